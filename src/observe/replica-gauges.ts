import { Gauge, type Registry } from 'prom-client';
import type { Orchestrator } from '../actors/orchestrator.ts';
import type { Pool } from '../actors/pool.ts';
import type { Gpus } from './gpus.ts';

const REPLICA_LABELS = ['engine', 'engine_version', 'pool_id', 'replica_id'] as const;

type ReplicaLabels = Record<(typeof REPLICA_LABELS)[number], string>;

/** What each replica holds, read at each scrape; what nobody knows has no series. */
export function addReplicaGauges(orchestrator: Orchestrator, gpus: Gpus, registry: Registry): void {
  const held = new Gauge({
    name: 'sessions_kv_bytes',
    help: 'Bytes of cache that warm sessions hold in their replicas',
    registers: [],
    collect() {
      this.set(orchestrator.sessions.kvBytes);
    },
  });
  const usage = new Gauge({
    name: 'kv_cache_usage_ratio',
    help: 'Share of the KV cache of a replica that warm sessions hold, from 0 to 1',
    labelNames: [...REPLICA_LABELS],
    registers: [],
    collect() {
      this.reset();
      const bytes = orchestrator.sessions.kvBytesByReplica();
      for (const { labels, capacity_bytes } of replicasOf(orchestrator))
        if (capacity_bytes > 0)
          this.set(labels, Math.min(1, (bytes.get(labels.replica_id) ?? 0) / capacity_bytes));
    },
  });
  const utilization = ofDevices(
    'gpu_utilization',
    'Percent of the time in which the device was busy',
    'utilization_percent',
  );
  const memory = ofDevices(
    'vram_used_bytes',
    'Memory of the device that is in use, by any program',
    'vram_used_bytes',
  );
  for (const gauge of [held, usage, utilization, memory] as Gauge[]) registry.registerMetric(gauge);

  function ofDevices(name: string, help: string, field: 'utilization_percent' | 'vram_used_bytes'): Gauge {
    return new Gauge({
      name,
      help,
      labelNames: [...REPLICA_LABELS, 'device'],
      registers: [],
      collect() {
        this.reset();
        // A server whose pools have no devices starts no program to look at some.
        for (const { pool, labels } of replicasOf(orchestrator))
          for (const device of pool.spec.devices) {
            const gpu = gpus.read().find((each) => each.device === device);
            if (gpu) this.set({ ...labels, device: String(device) }, gpu[field]);
          }
      },
    });
  }
}

/** Those that have told what they are. */
function* replicasOf(
  orchestrator: Orchestrator,
): Generator<{ pool: Pool; labels: ReplicaLabels; capacity_bytes: number }> {
  for (const pool of orchestrator.pools.values())
    for (const { id, properties } of pool.replicas) {
      if (!properties) continue;
      const { engine_version, slots_total, ctx_max, kv_bytes_per_token = 0 } = properties;
      yield {
        pool,
        labels: { engine: pool.spec.engine, engine_version, pool_id: pool.spec.id, replica_id: id },
        capacity_bytes: slots_total * ctx_max * kv_bytes_per_token,
      };
    }
}
