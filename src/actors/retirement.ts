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
      const failure = this.#deprecation(pool.model);
      if (!failure) continue;
      this.#drained.add(pool.spec.id);
      for (const record of pool.queue.take(pool.queue.length))
        tasks.send(record, {
          type: 'task.fail',
          at: clock.now(),
          failure: { ...failure, pool_id: pool.spec.id },
        });
      pool.engines.drain(deadline_ms);
    }
  }

  /** Opens the pools whose model may be used again; one that is still draining follows once it is over. */
  activate(): void {
    for (const pool_id of this.#drained) {
      const pool = this.#options.pools.get(pool_id);
      if (!pool || this.#deprecation(pool.model)) continue;
      this.#drained.delete(pool_id);
      pool.engines.restore();
    }
  }

  #deprecation(model: string): Failure | undefined {
    const failure = this.#options.catalog?.refusalOf(model);
    return failure?.code === 'MODEL_DEPRECATED' ? failure : undefined;
  }
}
