import type { CatalogEntry } from './catalog-store.ts';

/** The catalog at one moment; never changes. */
export class CatalogView {
  /** By id. */
  readonly entries: readonly CatalogEntry[];
  readonly #byId = new Map<string, CatalogEntry>();
  readonly #byDigest = new Map<string, CatalogEntry[]>();

  constructor(entries: Iterable<CatalogEntry> = []) {
    this.entries = [...entries].sort((a, b) => (a.id < b.id ? -1 : 1)).map(frozen);
    for (const entry of this.entries) {
      this.#byId.set(entry.id, entry);
      const same = this.#byDigest.get(entry.digest);
      if (same) same.push(entry);
      else this.#byDigest.set(entry.digest, [entry]);
    }
  }

  get(id: string): CatalogEntry | undefined {
    return this.#byId.get(id);
  }

  withDigest(digest: string): readonly CatalogEntry[] {
    return this.#byDigest.get(digest) ?? [];
  }

  /** The same with this entry, or without one of this id. */
  with(id: string, entry: CatalogEntry | undefined): CatalogView {
    const others = this.entries.filter((other) => other.id !== id);
    return new CatalogView(entry === undefined ? others : [...others, entry]);
  }
}

/** What was given stays its giver's own. */
function frozen(entry: CatalogEntry): CatalogEntry {
  return Object.isFrozen(entry) ? entry : freeze(structuredClone(entry));
}

function freeze<T extends object>(value: T): T {
  for (const inner of Object.values(value)) if (typeof inner === 'object' && inner !== null) freeze(inner);
  return Object.freeze(value);
}
