import type { EngineProperties } from '../engines/engine.ts';
import type { Failure } from '../errors.ts';
import type { Rates } from '../scheduling/estimate.ts';
import type { PlacementPool } from '../scheduling/placement.ts';
import type { Priority } from '../scheduling/queue.ts';
import type { PoolSpec } from './pool-options.ts';
import type { Pool } from './pool.ts';

/**
 * A pool as placement looks at it, for tasks of one class. It is made once and read live: most decisions need a few of
 * its fields, and to work all of them out for each admission took longer than to decide.
 */
export class Candidate implements PlacementPool {
  readonly id: string;
  readonly engine: PlacementPool['engine'];
  readonly sampler_profile_version: string;
  readonly device_mask: string | undefined;
  readonly max_tokens_out: number | undefined;
  readonly #pool: Pool;
  readonly #priority: Priority;
  /** What a task calls the model, where that is not the pool's own name for it. */
  readonly #alias: string | undefined;

  constructor(pool: Pool, priority: Priority, alias?: string) {
    const { spec } = pool;
    this.id = spec.id;
    this.engine = spec.engine;
    this.sampler_profile_version = spec.sampler_profile_version;
    this.device_mask = deviceMaskOf(spec);
    this.max_tokens_out = spec.max_tokens_out;
    this.#pool = pool;
    this.#priority = priority;
    this.#alias = alias;
  }

  /** The same for a task that names its model otherwise. */
  calling(alias: string): Candidate {
    return new Candidate(this.#pool, this.#priority, alias);
  }

  get model(): string {
    return this.#alias ?? this.#pool.model;
  }

  get memory_free_bytes(): number | undefined {
    return this.#pool.memoryRoom?.free_bytes;
  }

  get memory_total_bytes(): number | undefined {
    return this.#pool.memoryRoom?.total_bytes;
  }

  get ctx_max(): number | undefined {
    return this.#pool.ctxMax;
  }

  get workloads(): EngineProperties['workloads'] | undefined {
    return this.#pool.properties?.workloads;
  }

  get features(): EngineProperties['features'] | undefined {
    return this.#pool.properties?.features;
  }

  get refusal(): Failure | undefined {
    return this.#pool.refusal;
  }

  get predicted_start_ms(): number {
    return this.#pool.forecast.newcomer(this.#priority).predicted_start_ms;
  }

  get waiting(): number {
    return this.#pool.queue.length;
  }

  get leases(): number {
    return this.#pool.leases;
  }

  get slots_total(): number {
    return this.#pool.slots_total;
  }

  get rates(): Rates {
    return this.#pool.rates;
  }

  get is_full(): boolean {
    return this.#pool.queue.admit(this.#priority).kind === 'refuse';
  }
}

/** Devices in the words of `require_device_mask`: ordinals with commas, `cpu` for none; not known of a server elsewhere. */
function deviceMaskOf({ devices, reloadable }: PoolSpec): string | undefined {
  if (devices.length > 0) return devices.toSorted((a, b) => a - b).join(',');
  return reloadable ? 'cpu' : undefined;
}
