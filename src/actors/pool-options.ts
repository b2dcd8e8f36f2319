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
import type { Tasks } from './tasks.ts';

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
  /** What one engine takes on each of them; undefined until it was measured. */
  memory_bytes: number | undefined;
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
  replica: Omit<ReplicaInput, 'id' | 'now' | 'random'>;
  /** The replica that has the cache of a session. */
  affinity: (session_id: string) => string | undefined;
  /** A replica went away with what its engine had cached. */
  lost: (replica_id: string, cause: 'unload' | 'failover') => void;
  /** The pool is in another state, or wants memory. */
  moved: () => void;
  stopped: () => void;
}
