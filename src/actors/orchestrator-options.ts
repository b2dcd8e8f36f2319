import type { Clock } from '../clock.ts';
import type { Store } from '../store/store.ts';
import type { TaskLog } from '../streams/task-log.ts';
import type { ThreadPool } from '../threads/thread-pool.ts';
import type { MemoryOptions } from './memory.ts';
import type { ModelGate } from './model-gate.ts';
import type { PoolOptions } from './pool-options.ts';
import type { SessionsOptions } from './sessions-options.ts';
import type { TaskRegistryOptions } from './task-registry.ts';

export interface OrchestratorSettings extends Pick<
  TaskRegistryOptions,
  'retained_tasks' | 'retained_ms' | 'idempotency_ttl_ms'
> {
  sessions: Pick<SessionsOptions, 'ttl_ms' | 'max_turns' | 'budgets' | 'cost_per_output_token'>;
  /** How long the last reader of an interactive task may be gone, in milliseconds; undefined: for ever. */
  disconnect_grace_ms: number | undefined;
  /** Whether callers may pin a task to a pool. */
  allow_pin: boolean;
  /** What pools may take together. */
  memory: Pick<MemoryOptions, 'budget' | 'rules'>;
  /** How long `close` lets running tasks finish, in milliseconds. */
  shutdown_ms: number;
  /** Whether streams of finished tasks can be read as artifacts. @default true */
  transcripts?: boolean;
}

export interface OrchestratorPorts {
  clock: Clock;
  random: () => number;
  log: TaskLog;
  store: Store;
  threads: ThreadPool;
  /** Which models may be used. @default all of them */
  catalog?: ModelGate;
}

export type PoolBlueprint = Pick<PoolOptions, 'spec' | 'models' | 'engine' | 'announced' | 'replica'>;
