import type { ArtifactPage, ArtifactRef } from '../contract/generated/types.ts';
import { failure, TaskchartError } from '../errors.ts';
import { DEFAULT_LIMITS, type ArtifactLimits, type ArtifactQuery } from './artifact-store.ts';

/** What is known of a stored artifact without reading it. */
export interface Entry {
  digest: string;
  bytes: number;
  created_ms: number;
}

/** How many artifacts are looked at together. */
const AT_ONCE = 16;

/** Which artifacts there are, and which of them have to leave. */
export class ArtifactIndex<E extends Entry> {
  limits: ArtifactLimits = DEFAULT_LIMITS;
  /** In the order in which they came. */
  readonly #entries = new Map<string, E>();
  #bytes = 0;

  get(digest: string): E | undefined {
    return this.#entries.get(digest);
  }

  add(entry: E): void {
    this.delete(entry.digest);
    this.#entries.set(entry.digest, entry);
    this.#bytes += entry.bytes;
  }

  delete(digest: string): void {
    const entry = this.#entries.get(digest);
    if (!entry) return;
    this.#entries.delete(digest);
    this.#bytes -= entry.bytes;
  }

  /** Takes out those that are too old or too many. */
  trim(now_ms: number): E[] {
    const { max_bytes, retention_ms } = this.limits;
    const oldest_kept = retention_ms === 0 ? -Infinity : now_ms - retention_ms;
    const gone: E[] = [];
    for (const entry of this.#entries.values()) {
      if (this.#bytes <= max_bytes && entry.created_ms > oldest_kept) break;
      this.delete(entry.digest);
      gone.push(entry);
    }
    return gone;
  }

  /** @throws TaskchartError INVALID_PARAMS (413) */
  checkSize(bytes: number): void {
    const { max_bytes } = this.limits;
    if (bytes <= max_bytes) return;
    throw new TaskchartError(
      failure('INVALID_PARAMS', `body: must be at most ${max_bytes} bytes (artifacts.max_bytes)`),
      413,
    );
  }

  /**
   * One page of those that fit, newest first.
   * @param refOf reads an artifact as far as a list needs it; undefined for one that turns out not to be there
   */
  async page(
    { kind, tag, limit, cursor }: ArtifactQuery,
    refOf: (entry: E) => ArtifactRef | undefined | Promise<ArtifactRef | undefined>,
  ): Promise<ArtifactPage> {
    const entries = this.#after(cursor);
    const artifacts: ArtifactRef[] = [];
    let last: E | undefined;
    for (let start = 0; start < entries.length; start += AT_ONCE) {
      const some = entries.slice(start, start + AT_ONCE);
      const refs = await Promise.all(some.map(refOf));
      for (const [place, entry] of some.entries()) {
        const ref = refs[place];
        if (!ref || (kind !== undefined && ref.kind !== kind)) continue;
        if (tag !== undefined && ref.tags?.includes(tag) !== true) continue;
        if (last && artifacts.length === limit) return { artifacts, next_cursor: cursorOf(last) };
        artifacts.push(ref);
        last = entry;
      }
    }
    return { artifacts };
  }

  #after(cursor: string | undefined): E[] {
    const entries = [...this.#entries.values()].sort(newestFirst);
    if (cursor === undefined) return entries;
    const [, created, digest = ''] = /^(\d{1,15})-([0-9a-f]{64})$/.exec(cursor) ?? [];
    if (created === undefined)
      throw new TaskchartError(
        failure('INVALID_PARAMS', 'cursor: must be the next_cursor of an earlier page'),
      );
    const before = { digest, created_ms: Number(created) };
    return entries.filter((entry) => newestFirst(before, entry) < 0);
  }
}

type Place = Pick<Entry, 'digest' | 'created_ms'>;

function newestFirst(a: Place, b: Place): number {
  return b.created_ms - a.created_ms || (a.digest < b.digest ? -1 : a.digest > b.digest ? 1 : 0);
}

function cursorOf({ created_ms, digest }: Place): string {
  return `${created_ms}-${digest}`;
}
