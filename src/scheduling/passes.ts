import { compete, type OldestTask, type SwapPool } from './swap-view.ts';

/**
 * Since when others pass the tasks of a pool. Amortised O(1) for a lease: kept are only leases to tasks that were
 * accepted later than all before, since who is passed by any of them was passed by the first.
 */
export class Passes {
  readonly #passes: { at: number; sequence: number }[] = [];

  /**
   * A lease of another pool passed this one; see {@link passedBy}.
   * @param at when it was given
   * @param sequence of the task that got it, in the order of all admissions
   */
  note(at: number, sequence: number): void {
    const last = this.#passes.at(-1);
    if (last === undefined || last.sequence < sequence) this.#passes.push({ at, sequence });
  }

  /**
   * When a task that was accepted after this one was first given a lease; what was noted for older ones is forgotten.
   * @param oldest the task of this pool that was accepted first; undefined where none waits
   */
  since(oldest: OldestTask | undefined): number | undefined {
    const first = this.#passes.findIndex(({ sequence }) => sequence > (oldest?.sequence ?? Infinity));
    this.#passes.splice(0, first < 0 ? this.#passes.length : first);
    return this.#passes[0]?.at;
  }
}

/**
 * The pools that a lease passes: not loaded, though they may be, on a device of the pool that gives it, and with a
 * task that was accepted before the one that gets it.
 * @param sequence of the task that gets the lease
 */
export function passedBy<P extends Passable>(pools: readonly P[], granting: P, sequence: number): P[] {
  return pools.filter(
    (pool) =>
      pool.state !== 'loaded' &&
      pool.can_load &&
      pool.oldest !== undefined &&
      pool.oldest.sequence < sequence &&
      compete(pool, granting),
  );
}

/** What {@link passedBy} looks at. */
export type Passable = Pick<SwapPool, 'state' | 'can_load' | 'oldest' | 'memory_bytes'>;
