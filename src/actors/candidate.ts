import type { PlacementPool } from '../scheduling/placement.ts';
import type { Priority } from '../scheduling/queue.ts';
import type { PoolSpec } from './pool-options.ts';
import type { Pool } from './pool.ts';

/** A pool as placement looks at it, for a task of this class. */
export function candidateOf(pool: Pool, priority: Priority): PlacementPool {
  const { spec, properties, queue, memoryRoom: room } = pool;
  return {
    id: spec.id,
    engine: spec.engine,
    model: pool.model,
    sampler_profile_version: spec.sampler_profile_version,
    device_mask: deviceMaskOf(pool.spec),
    ...(room === undefined
      ? {}
      : { memory_free_bytes: room.free_bytes, memory_total_bytes: room.total_bytes }),
    ctx_max: pool.ctxMax,
    max_tokens_out: spec.max_tokens_out,
    workloads: properties?.workloads,
    features: properties?.features,
    refusal: pool.refusal,
    predicted_start_ms: pool.forecast.newcomer(priority).predicted_start_ms,
    waiting: queue.length,
    leases: pool.leases,
    slots_total: pool.slots_total,
    rates: pool.rates,
    is_full: queue.admit(priority).kind === 'refuse',
  };
}

/** Devices in the words of `require_device_mask`: ordinals with commas, `cpu` for none; not known of a server elsewhere. */
function deviceMaskOf({ devices, reloadable }: PoolSpec): string | undefined {
  if (devices.length > 0) return devices.toSorted((a, b) => a - b).join(',');
  return reloadable ? 'cpu' : undefined;
}
