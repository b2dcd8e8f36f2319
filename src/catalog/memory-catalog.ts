import { StoreError } from '../sqlite/store-error.ts';
import type { CatalogEntry, CatalogStore } from './catalog-store.ts';
import { CatalogView } from './catalog-view.ts';

/** The catalog of one process, gone with it. */
export class MemoryCatalog implements CatalogStore {
  #view = new CatalogView();
  #isClosed = false;

  get(id: string): CatalogEntry | undefined {
    return this.#view.get(id);
  }

  withDigest(digest: string): readonly CatalogEntry[] {
    return this.#view.withDigest(digest);
  }

  entries(): readonly CatalogEntry[] {
    return this.#view.entries;
  }

  async refresh(): Promise<void> {}

  async change(
    id: string,
    change: (current: CatalogEntry | undefined) => CatalogEntry | undefined,
  ): Promise<CatalogEntry | undefined> {
    if (this.#isClosed) throw closed();
    this.#view = this.#view.with(id, change(this.#view.get(id)));
    return this.#view.get(id);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
  }
}

export function closed(): StoreError {
  return new StoreError('unusable', 'the catalog is closed');
}
