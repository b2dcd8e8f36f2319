import type { EngineLoss } from '../engines/engine.ts';
import type { Failure } from '../errors.ts';
import type { UnloadCause } from './replica-protocol.ts';

export interface PoolInput {
  id: string;
  /** Backoff between tries of an unready pool, in milliseconds. */
  retry: { initial_ms: number; factor: number; max_ms: number };
  /** Engines that it is to have. */
  replicas: number;
}

export interface PoolContext extends PoolInput {
  replicas_ready: number;
  /** Those whose breaker is open. */
  replicas_broken: number;
  /** Consecutive tries that did not reach `ready`. */
  failures: number;
  last_error: Failure | undefined;
  /**
   * What `last_error` is about: a model can be prepared again at any time, an engine when its breaker says so, and
   * what does not fit into memory never will.
   */
  fault: 'model' | 'memory' | 'engine' | undefined;
  /** Leases that are out; the pool only counts them, the owner knows whose they are. */
  leases: number;
  /** How long what runs may take when the pool is emptied, in milliseconds. */
  empty_ms: number;
  /** Whether what waits or runs when it closes is kept for the next process. */
  keeps: boolean;
  /** Whether what waits when it is reloaded was promised the old model. */
  finishes_queue: boolean;
  /** Whether it takes work again once it has been drained. */
  comes_back: boolean;
  unload_cause: UnloadCause;
}

export type PoolEvent =
  | { type: 'pool.ensure' }
  /** Give the memory back as soon as nothing runs. */
  | { type: 'pool.unload'; cause: UnloadCause }
  /** Run empty, and stay so. */
  | { type: 'pool.drain'; deadline_ms: number }
  /** Take work again after a drain, also one that is not over yet. */
  | { type: 'pool.restore' }
  | { type: 'pool.reload'; deadline_ms: number; finishes_queue: boolean }
  /** `keep`: what is not finished then goes on in the next process; `refuse`: it is told so. */
  | { type: 'pool.close'; deadline_ms: number; unfinished: 'keep' | 'refuse' }
  | { type: 'model.prepared' }
  | { type: 'model.failed'; failure: Failure }
  | { type: 'memory.granted' }
  | { type: 'memory.refused'; failure: Failure }
  | { type: 'replica.readied' }
  | { type: 'replica.lost'; loss: EngineLoss }
  | { type: 'replica.broken'; failure: Failure }
  | { type: 'replica.recoverable' }
  | { type: 'replica.rested' }
  /** Engines that others start have come or gone. */
  | { type: 'replicas.changed'; replicas: number }
  | { type: 'replicas.unloaded' }
  | { type: 'replicas.stopped' }
  | { type: 'queue.emptied' }
  | { type: 'lease.granted' }
  | { type: 'lease.closed' };

export const POOL_EVENTS = [
  'pool.ensure',
  'pool.unload',
  'pool.drain',
  'pool.restore',
  'pool.reload',
  'pool.close',
  'model.prepared',
  'model.failed',
  'memory.granted',
  'memory.refused',
  'replica.readied',
  'replica.lost',
  'replica.broken',
  'replica.recoverable',
  'replica.rested',
  'replicas.changed',
  'replicas.unloaded',
  'replicas.stopped',
  'queue.emptied',
  'lease.granted',
  'lease.closed',
] as const satisfies readonly PoolEvent['type'][];

/** What the pool's owner has to do. */
export type PoolFact =
  /** Answer with `model.prepared` or `model.failed`. */
  | { type: 'model.prepare'; which: 'current' | 'next' }
  /** What was prepared as the next model is the pool's from now on. */
  | { type: 'model.adopt' }
  | { type: 'model.restore' }
  /** Answer with `memory.granted` or `memory.refused`, some time. */
  | { type: 'memory.request' }
  | { type: 'replicas.start' }
  /** Answer with `replicas.unloaded`. */
  | { type: 'replicas.unload'; cause: UnloadCause }
  /** Answer with `replicas.stopped`. */
  | { type: 'replicas.stop' }
  | { type: 'leases.revoke' }
  | { type: 'leases.suspend' }
  | { type: 'queue.dispatch' }
  | { type: 'queue.refuse'; failure: Failure }
  /** A reload is over: it worked where there is no failure. */
  | { type: 'reload.settled'; failure?: Failure };

/** The answer for a task that an unready or draining pool cannot take. */
export function unreadyFailure(context: PoolContext): Failure {
  const cause = context.last_error;
  return {
    code: context.fault === 'memory' ? 'POOL_UNAVAILABLE' : 'POOL_UNREADY',
    message: cause
      ? `pool ${context.id} is not ready: ${cause.message}`
      : `pool ${context.id} takes no new work`,
    retriable: cause?.retriable ?? true,
    pool_id: context.id,
    retry_after_ms: context.retry.initial_ms,
  };
}

/** A reload that did not work. @param why where it is not the pool's last error */
export function reloadFailed({ id, last_error }: PoolContext, why?: string): PoolFact {
  const failure: Failure =
    why === undefined && last_error
      ? { ...last_error, pool_id: id }
      : { code: 'POOL_UNREADY', message: why ?? 'it did not work', retriable: true, pool_id: id };
  return { type: 'reload.settled', failure };
}

/** Why a reload was given up. */
export const TOO_BUSY = 'what runs did not finish before the deadline; drain the pool first';

/** What an event that has a failure says of its kind. */
export const FAULTS = {
  'model.failed': 'model',
  'memory.refused': 'memory',
  'replica.broken': 'engine',
} as const;
