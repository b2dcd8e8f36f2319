import type { Pool } from './pool.ts';

/** Gives pools the memory that they wait for. */
export class Memory {
  readonly #pools: ReadonlyMap<string, Pool>;

  constructor(pools: ReadonlyMap<string, Pool>) {
    this.#pools = pools;
  }

  look(): void {
    for (const pool of this.#pools.values()) if (pool.engines.wantsMemory) pool.engines.grantMemory();
  }
}
