import type { Clock } from '../clock.ts';
import type { EngineFamily } from '../engines/engine.ts';
import type { PreparedModel } from '../machines/provisioner.ts';
import type { ReplicaInput } from '../machines/replica-protocol.ts';
import type { TaskRules } from '../machines/task-protocol.ts';
import type { Priority, QueueRules } from '../scheduling/queue.ts';
import type { ThreadPool } from '../threads/thread-pool.ts';
import type { Observers } from './observation.ts';
import type { ModelSource } from './provisioner.ts';
import type { EngineFactory } from './replica.ts';
import type { TaskRecord } from './task-record.ts';
import type { Tasks } from './tasks.ts';
import type { WorkerDescription } from './workers.ts';

export interface PoolSpec {
  id: string;
  engine: EngineFamily;
  /** What tasks call its model. */
  model: string;
  /** Where its model comes from; undefined where its name is a reference, and says so. */
  model_ref: string | undefined;
  /** Engines that it starts, each with all the slots. */
  replicas: number;
  /** Of each engine. */
  slots: number;
  /** Ordinals of the accelerators that it runs on; none: the processor. */
  devices: readonly number[];
  /** What part of its model is on each of them, in their order; 1 in all. */
  shares: readonly number[];
  /** What one engine takes on the device with the largest share; undefined until it was measured. */
  memory_bytes: number | undefined;
  /** What its KV cache takes, as a share of one in f16. */
  kv_scale: number;
  /** Never unloaded to make room. */
  pinned: boolean;
  /** How long it stays loaded without work, in milliseconds; undefined: until its memory is wanted. */
  idle_ttl_ms: number | undefined;
  ctx: number | undefined;
  max_tokens_out: number | undefined;
  queue: QueueRules;
  /** Tasks of a class that are accepted per second; no limit for a class without a number. */
  rate_limit_rps: Partial<Record<Priority, number>>;
  rules: TaskRules;
  sampler_profile_version: string;
  preload: boolean;
  /** Whether it can be given another model; a server that somebody else runs cannot. */
  reloadable: boolean;
}

/** What a pool asks of whoever shares the memory out. */
export interface PoolMemory {
  /** Something has changed: answered by `grantMemory`, `refuseMemory` or `unload`, now or later. */
  look(): void;
  /** A task got a lease. */
  granted(record: TaskRecord): void;
  /** Tasks from this place in the order of all admissions on get no lease now. */
  lastCall(): number | undefined;
  /** What its fullest device has to spare; undefined where that has no limit. */
  room(): { free_bytes: number; total_bytes: number } | undefined;
  /** Why it is not loaded, where it waits for that. */
  wait(): { reason: string; human: string } | undefined;
  /** Milliseconds until the pool is expected to be loaded, where others have a say in it. */
  untilLoaded(): number | undefined;
}

export interface PoolOptions {
  spec: PoolSpec;
  clock: Clock;
  random: () => number;
  observers: Observers;
  tasks: Tasks;
  models: ModelSource;
  threads: ThreadPool;
  /** Called once the model is prepared; the replica owns what it returns. */
  engine: (model: PreparedModel, replica_id: string) => EngineFactory;
  /** For an engine that somebody else has started and announced. */
  announced: (worker: WorkerDescription, replica_id: string) => EngineFactory;
  replica: Omit<ReplicaInput, 'id' | 'now' | 'random'>;
  /** The replica that has the cache of a session. */
  affinity: (session_id: string) => string | undefined;
  /** A replica went away with what its engine had cached. */
  lost: (replica_id: string, cause: 'unload' | 'failover') => void;
  /** Who is in memory: told when this pool's state or work has changed. */
  memory: PoolMemory;
  stopped: () => void;
}
