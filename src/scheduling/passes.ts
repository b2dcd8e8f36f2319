import { compete, type SwapPool } from './swap-view.ts';

/**
 * Since when others pass the tasks of a pool. Amortised O(1) for a lease: kept are only leases to tasks that were
 * accepted later than all before, since who is passed by any of them was passed by the first.
 */
export class Passes {
  readonly #passes: { at: number; accepted_at: number }[] = [];

  /**
   * A lease of another pool passed this one; see {@link passedBy}.
   * @param at when it was given
   * @param accepted_at of the task that got it, on the same clock
   */
  note(at: number, accepted_at: number): void {
    const last = this.#passes.at(-1);
    if (last === undefined || last.accepted_at < accepted_at) this.#passes.push({ at, accepted_at });
  }

  /**
   * When a task that was accepted after this one was first given a lease; what was noted for older ones is forgotten.
   * @param oldest_accepted_at of the task of this pool that has waited longest; undefined where none waits
   */
  since(oldest_accepted_at: number | undefined): number | undefined {
    const first = this.#passes.findIndex(({ accepted_at }) => accepted_at > (oldest_accepted_at ?? Infinity));
    this.#passes.splice(0, first < 0 ? this.#passes.length : first);
    return this.#passes[0]?.at;
  }
}

/**
 * The pools that a lease passes: not loaded, though they may be, on a device of the pool that gives it, and with a
 * task that was accepted before the one that gets it.
 * @param accepted_at of the task that gets the lease
 */
export function passedBy<P extends Passable>(pools: readonly P[], granting: P, accepted_at: number): P[] {
  return pools.filter(
    (pool) =>
      pool.state !== 'loaded' &&
      pool.can_load &&
      pool.oldest_accepted_at !== undefined &&
      pool.oldest_accepted_at < accepted_at &&
      compete(pool, granting),
  );
}

/** What {@link passedBy} looks at. */
export type Passable = Pick<SwapPool, 'state' | 'can_load' | 'oldest_accepted_at' | 'memory_bytes'>;
