import type { Commit, CommitResult, Fact, Store } from './store.ts';

/** Keeps the latest fact of each key, by reference, for as long as the process lives. */
export class MemoryStore implements Store {
  readonly isDurable = false;
  readonly #entries = new Map<string, { version: number; data: unknown }>();

  commit({ checks = [], facts }: Commit): CommitResult {
    for (const { key, version } of checks)
      if ((this.#entries.get(key)?.version ?? 0) !== version) return 'conflict';
    for (const { key, data } of facts) {
      const entry = this.#entries.get(key);
      if (data === undefined) this.#entries.delete(key);
      else if (entry) {
        entry.version++;
        entry.data = data;
      } else this.#entries.set(key, { version: 1, data });
    }
    return 'ok';
  }

  async *fold(): AsyncGenerator<readonly Fact[], void, undefined> {
    if (this.#entries.size > 0) yield Array.from(this.#entries, ([key, { data }]) => ({ key, data }));
  }

  async close(): Promise<void> {
    this.#entries.clear();
  }
}
