import type { EngineLoss, EngineProperties } from '../engines/engine.ts';
import type { Failure } from '../errors.ts';
import type { RestartHistory, RestartRule } from './restart-policy.ts';

export interface ReplicaInput {
  id: string;
  restart: RestartRule;
  /** How long a load may take, in milliseconds. */
  load_timeout_ms: number;
  probe_interval_ms: number;
  /** Failed probes in a row after which a replica counts as lost. */
  probe_fail: number;
  /** Monotonic milliseconds, to tell a stable engine from one that crashes again. */
  now: () => number;
  /** 0 to 1, for the jitter of the backoff. */
  random: () => number;
}

/** Who wanted an engine that worked to be gone. */
export type UnloadCause = 'unload' | 'idle' | 'swap' | 'drain';

export interface ReplicaContext extends ReplicaInput {
  properties: EngineProperties | undefined;
  last_error: Failure | undefined;
  /** How the last run of the engine ended; causes are kept apart because each has its own remedy. */
  exit: EngineLoss | undefined;
  history: RestartHistory;
  /** Failed trials of an open breaker in a row. */
  trials: number;
  /** Monotonic milliseconds at which it became ready last. */
  ready_at: number | undefined;
  /** When it proved healthy last, in monotonic milliseconds. */
  healthy_at: number | undefined;
  failed_probes: number;
  /** When its load began, in monotonic milliseconds. */
  loading_at: number | undefined;
  /** When it loads again, where it waits for that; in monotonic milliseconds. */
  loads_again_at: number;
  backoff_ms: number;
  /** Runs in a row that its engine would not take, and the rest after the last of them in milliseconds. */
  rests: number;
  rest_ms: number;
}

export type ReplicaEvent =
  | { type: 'replica.start' }
  | { type: 'replica.unload'; cause: UnloadCause }
  | { type: 'replica.stop' }
  /** It answers, but a run on it has given no token for too long. */
  | { type: 'replica.suspect' }
  /** Its engine takes no runs now. */
  | { type: 'run.declined'; retry_after_ms?: number | undefined }
  /** It does after all. */
  | { type: 'run.taken' }
  | { type: 'engine.waited'; why: string }
  | { type: 'engine.lost'; loss: EngineLoss };

export const REPLICA_EVENTS = [
  'replica.start',
  'replica.unload',
  'replica.stop',
  'replica.suspect',
  'run.declined',
  'run.taken',
  'engine.waited',
  'engine.lost',
] as const satisfies readonly ReplicaEvent['type'][];

/** What a replica tells its pool. */
export type ReplicaFact =
  | { type: 'replica.readied'; properties: EngineProperties }
  | { type: 'replica.lost'; loss: EngineLoss }
  /** Its breaker is open. */
  | { type: 'replica.broken'; failure: Failure }
  /** Its breaker lets one trial through: a `replica.start` is that trial. */
  | { type: 'replica.recoverable' }
  /** It may be granted runs again. */
  | { type: 'replica.rested' }
  | { type: 'replica.unloaded' }
  | { type: 'replica.stopped' };
