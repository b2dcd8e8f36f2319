import type { SwapPool, SwapRules, SwapView } from './swap-view.ts';

interface Account {
  /** Bytes that nobody holds and nobody was promised; below 0 where more was promised than there is. */
  free: number;
  /** The same once everybody who is on the way out has gone. */
  soon: number;
  /** Loads that may still begin. */
  loads: number;
}

/** The memory of all devices while a plan is made: what is there, what is coming free, and who was promised it. */
export class SwapLedger {
  readonly #accounts = new Map<string, Account>();

  constructor({ devices, pools }: SwapView, { max_parallel_loads }: SwapRules) {
    for (const { id, budget_bytes } of devices)
      this.#accounts.set(id, {
        free: budget_bytes,
        soon: budget_bytes,
        loads: Math.max(1, max_parallel_loads),
      });
    for (const pool of pools) {
      if (pool.state === 'cold') continue;
      for (const [account, bytes] of this.#of(pool)) {
        account.free -= bytes;
        if (pool.state !== 'unloading') account.soon -= bytes;
        if (pool.state === 'loading') account.loads--;
      }
    }
  }

  fitsNow(pool: SwapPool): boolean {
    return this.#of(pool).every(([{ free }, bytes]) => bytes <= free);
  }

  fitsSoon(pool: SwapPool): boolean {
    return this.#of(pool).every(([{ soon }, bytes]) => bytes <= soon);
  }

  /** Whether a load may begin on every device that it needs. */
  mayLoad(pool: SwapPool): boolean {
    return this.#of(pool).every(([{ loads }]) => loads > 0);
  }

  /** Nobody after it gets these bytes, or loads before it on these devices. */
  promise(pool: SwapPool): void {
    for (const [account, bytes] of this.#of(pool)) {
      account.free -= bytes;
      account.soon -= bytes;
      account.loads--;
    }
  }

  /** It will be unloaded. */
  release(pool: SwapPool): void {
    for (const [account, bytes] of this.#of(pool)) account.soon += bytes;
  }

  /** Bytes that are missing for a pool on each device that has too few, once everybody who is on the way out has gone. */
  missing(pool: SwapPool): Map<string, number> {
    const missing = new Map<string, number>();
    for (const [device, bytes] of Object.entries(pool.memory_bytes)) {
      const short = bytes - (this.#accounts.get(device)?.soon ?? 0);
      if (bytes > 0 && short > 0) missing.set(device, short);
    }
    return missing;
  }

  /** The accounts that it needs something of. */
  #of(pool: SwapPool): [account: Account, bytes: number][] {
    return Object.entries(pool.memory_bytes).flatMap(([device, bytes]) => {
      const account = this.#accounts.get(device);
      return account && bytes > 0 ? [[account, bytes] satisfies [Account, number]] : [];
    });
  }
}
