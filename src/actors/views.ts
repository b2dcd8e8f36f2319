import type { Clock } from '../clock.ts';
import { API_VERSION } from '../contract/generated/operations.ts';
import type {
  Capabilities,
  PoolHealth,
  PoolSummary,
  ReplicaHealth,
  TaskInfo,
  TaskSummary,
} from '../contract/generated/types.ts';
import { outerState } from '../machines/state-name.ts';
import { recentRestarts } from '../machines/restart-policy.ts';
import { outputOf } from '../streams/read-log.ts';
import type { Orchestrator } from './orchestrator.ts';
import type { Pool } from './pool.ts';
import type { Replica } from './replica.ts';
import type { TaskRecord } from './task-record.ts';

/** What `GET /v1/tasks/{id}` says: the record as it is now, with what it has written so far. */
export async function taskInfo(orchestrator: Orchestrator, record: TaskRecord): Promise<TaskInfo> {
  const output = outputOf(await orchestrator.eventsSoFar(record.id));
  const { workload } = record.request;
  const transcript_id = await orchestrator.transcripts.idOf(record);
  return {
    ...taskSummary(orchestrator, record),
    text: output.text,
    ...(workload === 'embedding' ? { embeddings: output.embeddings as TaskInfo['embeddings'] } : {}),
    ...(workload === 'rerank' ? { ranking: output.ranking } : {}),
    ...(output.last_event_id === undefined ? {} : { last_event_id: output.last_event_id }),
    ...(transcript_id === undefined ? {} : { transcript_id }),
  } as TaskInfo;
}

/** The same without its output, for lists. */
export function taskSummary(orchestrator: Orchestrator, record: TaskRecord): TaskSummary {
  const { context, request, state } = record;
  const { outcome, times, usage } = context;
  const since = (at: number | undefined): number | undefined =>
    at === undefined ? undefined : Math.max(0, Math.round(at - times.admitted));
  const isWaiting = state === 'admitted' || state === 'provisioning';
  return defined({
    task_id: record.id,
    session_id: record.session_id,
    state,
    workload: request.workload,
    model_ref: request.model_ref,
    engine: request.engine,
    priority: request.priority,
    pool_id: record.pool_id,
    replica_id: context.replica_id,
    ...(isWaiting ? orchestrator.place(record) : {}),
    canceled: outcome?.kind === 'canceled' ? (true as const) : undefined,
    finish_reason: outcome?.kind === 'finished' ? outcome.reason : undefined,
    seed: record.seed,
    usage: {
      tokens_in: usage.tokens_in || (record.tokens_in ?? 0),
      tokens_cached: usage.tokens_cached,
      tokens_out: orchestrator.tasks.tokensOf(record),
    },
    timings: defined({
      admitted_ms: record.admitted_wall_ms,
      provisioning_ms: since(times.provisioning),
      placed_ms: since(times.placed),
      first_token_ms: since(times.first_token),
      ended_ms: since(times.ended),
    }),
    error: outcome?.kind === 'failed' ? outcome.failure : undefined,
  });
}

/** What this server can do now, from its pools and from what their engines said when they were loaded. */
export function capabilities(orchestrator: Orchestrator): Capabilities {
  return {
    api_version: API_VERSION,
    engines: Array.from(orchestrator.pools.values(), (pool) => {
      const { properties, spec } = pool;
      return defined({
        engine: spec.engine,
        pool_id: spec.id,
        model_id: pool.model,
        engine_version: properties?.engine_version,
        ctx_max: pool.ctxMax ?? 0,
        max_tokens_out: spec.max_tokens_out ?? Math.max(0, (pool.ctxMax ?? 1) - 1),
        supported_workloads: [...(properties?.workloads ?? ['completion' as const])],
        slots_total: pool.slots_total,
        slots_free: pool.slots_free,
        features: { ...properties?.features, synthetic: spec.engine === 'synthetic' },
        rate_limits: {},
      });
    }),
  };
}

export function poolHealth(pool: Pool, clock: Clock): PoolHealth {
  const { snapshot, properties, replicas } = pool;
  const heard = replicas.flatMap(({ snapshot: { context } }) => context.healthy_at ?? []);
  return defined({
    pool_id: pool.spec.id,
    state: pool.phase as PoolHealth['state'],
    live: replicas.some((replica) => replica.snapshot.hasTag('live')),
    ready: isReady(pool),
    draining: snapshot.hasTag('draining'),
    last_error: lastErrorOf(pool),
    last_reload: pool.engines.lastReload,
    waits_for_memory: pool.memoryWait,
    engine_version: properties?.engine_version,
    last_heartbeat_ms:
      heard.length === 0 ? undefined : Math.round(clock.wall() - (clock.now() - Math.max(...heard))),
    metrics: defined({
      queue_depth: pool.queue_depth,
      slots_total: pool.slots_total,
      slots_free: pool.slots_free,
      active_leases: pool.leases,
      memory_bytes: memoryOf(pool),
    }),
    replicas: replicas.map((replica) => replicaHealth(replica, clock)),
  });
}

/** Whether a task would be started now. */
function isReady(pool: Pool): boolean {
  return pool.isReady && pool.replicas.some((replica) => replica.isReady);
}

function memoryOf({ replicas }: Pool): number | undefined {
  const known = replicas.flatMap(({ isReady: is, properties }) =>
    is && properties?.memory_bytes !== undefined ? [properties.memory_bytes] : [],
  );
  return known.length === 0 ? undefined : known.reduce((a, b) => a + b);
}

function replicaHealth({ id, snapshot, properties }: Replica, clock: Clock): ReplicaHealth {
  const { history, restart, exit, last_error } = snapshot.context;
  return defined({
    replica_id: id,
    state: outerState(snapshot),
    restarts: recentRestarts(restart, history, clock.now()).length,
    slots_total: properties?.slots_total,
    last_exit: exit,
    last_error: last_error?.message,
  });
}

/** A failing load is told while it is still being retried, not only when the pool gives up. */
function lastErrorOf(pool: Pool): string | null {
  if (isReady(pool)) return null;
  const ofReplica = pool.replicas.map((replica) => replica.snapshot.context.last_error).find(Boolean);
  return (pool.snapshot.context.last_error ?? ofReplica)?.message ?? null;
}

export function poolSummary(pool: Pool, clock: Clock): PoolSummary {
  const { pool_id, live, ready, draining, last_error } = poolHealth(pool, clock);
  return {
    pool_id,
    engine: pool.spec.engine,
    model: pool.model,
    state: pool.phase as PoolSummary['state'],
    live,
    ready,
    draining,
    queue_depth: pool.queue_depth,
    slots_total: pool.slots_total,
    slots_free: pool.slots_free,
    last_error,
  };
}

type Defined<T> = { [K in keyof T as undefined extends T[K] ? never : K]: T[K] } & {
  [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined>;
};

/** Leaves out what is undefined: an absent field says "not known", on the wire too. */
function defined<T extends object>(value: T): Defined<T> {
  return Object.fromEntries(Object.entries(value).filter(([, field]) => field !== undefined)) as Defined<T>;
}
