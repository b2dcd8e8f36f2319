import type { Clock } from '../clock.ts';
import type { Failure } from '../errors.ts';
import type { ModelGate } from './model-gate.ts';
import type { Pool } from './pool.ts';
import type { Tasks } from './tasks.ts';

export interface RetirementOptions {
  clock: Clock;
  /** Without one nothing is ever retired. */
  catalog: ModelGate | undefined;
  pools: ReadonlyMap<string, Pool>;
  tasks: Tasks;
  /** Puts a pool that begins anew in the place of one that is over; does nothing where nobody needs it any more. */
  reopen: (pool_id: string) => void;
}

/** What becomes of pools when their model is retired, and when it is taken back. */
export class Retirement {
  readonly #options: RetirementOptions;
  /** Pools that were drained for that. */
  readonly #drained = new Set<string>();

  constructor(options: RetirementOptions) {
    this.#options = options;
  }

  /**
   * Drains the pools whose model takes no new work: what waits is told why, what runs may go on.
   * @param deadline_ms how long it may
   */
  retire(deadline_ms: number): void {
    const { clock, pools, tasks } = this.#options;
    for (const pool of pools.values()) {
      const failure = this.#deprecation(pool.spec.model);
      if (!failure) continue;
      this.#drained.add(pool.spec.id);
      for (const record of pool.queue.take(pool.queue.length))
        tasks.send(record, {
          type: 'task.fail',
          at: clock.now(),
          failure: { ...failure, pool_id: pool.spec.id },
        });
      pool.drain(deadline_ms);
    }
  }

  /** Opens drained pools whose model may be used again; one that is still draining follows once it is over. */
  activate(): void {
    for (const pool_id of this.#drained)
      if (this.#options.pools.get(pool_id)?.snapshot.status !== 'active') this.stopped(pool_id);
  }

  /** A pool is over, and has given back what it held. */
  stopped(pool_id: string): void {
    const pool = this.#options.pools.get(pool_id);
    if (!pool || !this.#drained.has(pool_id) || this.#deprecation(pool.spec.model)) return;
    this.#drained.delete(pool_id);
    this.#options.reopen(pool_id);
  }

  #deprecation(model: string): Failure | undefined {
    const failure = this.#options.catalog?.refusalOf(model);
    return failure?.code === 'MODEL_DEPRECATED' ? failure : undefined;
  }
}
