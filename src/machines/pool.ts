import { assign, emit, enqueueActions, setup, type ActorRefFrom, type SnapshotFrom } from 'xstate';
import type { Failure } from '../errors.ts';

export interface PoolInput {
  id: string;
  /** Backoff between tries of an unready pool, in milliseconds. */
  retry: { initial_ms: number; factor: number; max_ms: number };
}

export interface PoolContext extends PoolInput {
  replicas_ready: number;
  /** Consecutive tries that did not reach `ready`. */
  failures: number;
  last_error: Failure | undefined;
  /** Leases that are out; the pool only counts them, the owner knows whose they are. */
  leases: number;
  drain_ms: number;
  /** Whether what waits or runs when it drains is kept for the next process. */
  keeps: boolean;
}

export type PoolEvent =
  | { type: 'pool.ensure' }
  /** `keep`: what is not finished then goes on in the next process; `refuse`: it is told so. */
  | { type: 'pool.drain'; deadline_ms: number; unfinished: 'keep' | 'refuse' }
  | { type: 'model.prepared' }
  | { type: 'model.failed'; failure: Failure }
  | { type: 'replica.readied' }
  | { type: 'replica.lost' }
  | { type: 'replica.broken'; failure: Failure }
  | { type: 'replicas.stopped' }
  | { type: 'lease.granted' }
  | { type: 'lease.closed' };

export const POOL_EVENTS = [
  'pool.ensure',
  'pool.drain',
  'model.prepared',
  'model.failed',
  'replica.readied',
  'replica.lost',
  'replica.broken',
  'replicas.stopped',
  'lease.granted',
  'lease.closed',
] as const satisfies readonly PoolEvent['type'][];

/** What the pool's owner has to do. */
export type PoolFact =
  | { type: 'model.prepare' }
  | { type: 'replicas.start' }
  | { type: 'replicas.stop' }
  | { type: 'leases.revoke' }
  | { type: 'leases.suspend' }
  | { type: 'queue.dispatch' }
  | { type: 'queue.refuse'; failure: Failure };

export const poolMachine = setup({
  types: {
    context: {} as PoolContext,
    events: {} as PoolEvent,
    input: {} as PoolInput,
    emitted: {} as PoolFact,
  },
  delays: {
    retryBackoff: ({ context: { retry, failures } }) =>
      Math.min(retry.max_ms, retry.initial_ms * retry.factor ** Math.max(0, failures - 1)),
    drainDeadline: ({ context }) => context.drain_ms,
  },
  guards: {
    isLastReady: ({ context }) => context.replicas_ready <= 1,
    hasNoLease: ({ context }) => context.leases <= 0,
    isKeeping: ({ context }) => context.keeps,
    isRetriable: ({ context }) => context.last_error?.retriable === true,
  },
  actions: {
    prepareModel: emit({ type: 'model.prepare' }),
    startReplicas: emit({ type: 'replicas.start' }),
    stopReplicas: emit({ type: 'replicas.stop' }),
    endLeases: emit(({ context }) => ({ type: context.keeps ? 'leases.suspend' : 'leases.revoke' })),
    dispatch: emit({ type: 'queue.dispatch' }),
    refuseQueue: emit(({ context }) => ({ type: 'queue.refuse', failure: unreadyFailure(context) })),
    countReady: assign({ replicas_ready: ({ context }) => context.replicas_ready + 1, failures: 0 }),
    countLost: assign({ replicas_ready: ({ context }) => Math.max(0, context.replicas_ready - 1) }),
    countGranted: assign({ leases: ({ context }) => context.leases + 1 }),
    countClosed: assign({ leases: ({ context }) => Math.max(0, context.leases - 1) }),
    forgetError: assign({ last_error: undefined }),
    noteFailure: assign(({ context, event }) =>
      'failure' in event ? { last_error: event.failure, failures: context.failures + 1 } : {},
    ),
    noteDrain: assign(({ event }) =>
      event.type === 'pool.drain' ? { drain_ms: event.deadline_ms, keeps: event.unfinished === 'keep' } : {},
    ),
  },
}).createMachine({
  id: 'pool',
  context: ({ input }) => ({
    id: input?.id ?? '',
    retry: input?.retry ?? { initial_ms: 1000, factor: 2, max_ms: 60_000 },
    replicas_ready: 0,
    failures: 0,
    last_error: undefined,
    leases: 0,
    drain_ms: 0,
    keeps: false,
  }),
  initial: 'cold',
  on: {
    'lease.granted': { actions: 'countGranted' },
    'lease.closed': { actions: ['countClosed', 'dispatch'] },
    'pool.drain': { target: '.draining', actions: 'noteDrain' },
  },
  states: {
    cold: {
      description: 'Nothing is loaded, because nothing has asked for it yet.',
      tags: ['accepting'],
      on: { 'pool.ensure': 'preparing' },
    },
    preparing: {
      description: 'The provisioner resolves, fetches and verifies the model.',
      tags: ['accepting', 'provisioning'],
      entry: ['prepareModel', 'dispatch'],
      on: {
        'model.prepared': 'starting',
        'model.failed': { target: 'unready', actions: 'noteFailure' },
      },
    },
    starting: {
      description:
        'The model is there; replicas load it, and the first to pass its probe makes the pool ready.',
      tags: ['accepting', 'provisioning'],
      entry: ['startReplicas', 'dispatch'],
      on: {
        'replica.readied': { target: 'ready', actions: ['countReady', 'forgetError'] },
        'replica.broken': { target: 'unready', actions: 'noteFailure' },
      },
    },
    ready: {
      description: 'At least one replica decodes; tasks are granted slots.',
      tags: ['accepting', 'ready'],
      entry: 'dispatch',
      on: {
        'replica.readied': { actions: ['countReady', 'dispatch'] },
        'replica.lost': [
          { guard: 'isLastReady', target: 'starting', actions: 'countLost' },
          { actions: 'countLost' },
        ],
      },
    },
    unready: {
      description:
        'It could not be brought up: what waited was told why, new work is refused with the cause.',
      entry: 'refuseQueue',
      after: { retryBackoff: { guard: 'isRetriable', target: 'preparing' } },
      on: { 'pool.ensure': { guard: 'isRetriable', target: 'preparing' } },
    },
    draining: {
      description: 'No new work; what runs may finish until the deadline, then its leases end.',
      tags: ['draining'],
      entry: enqueueActions(({ enqueue, check }) => {
        if (!check('isKeeping')) enqueue('refuseQueue');
      }),
      after: { drainDeadline: { target: 'stopping', actions: 'endLeases' } },
      always: { guard: 'hasNoLease', target: 'stopping' },
      on: {
        'lease.closed': { actions: 'countClosed' },
        'replica.lost': { actions: 'countLost' },
        'pool.drain': { target: 'draining', reenter: true, actions: 'noteDrain' },
      },
    },
    stopping: {
      description: 'Replicas unload their engines.',
      tags: ['draining'],
      entry: 'stopReplicas',
      on: { 'replicas.stopped': 'stopped', 'lease.closed': { actions: 'countClosed' }, 'pool.drain': {} },
    },
    stopped: {
      description: 'Everything this pool held has been given back.',
      type: 'final',
    },
  },
});

export type PoolActor = ActorRefFrom<typeof poolMachine>;
export type PoolSnapshot = SnapshotFrom<typeof poolMachine>;
export type PoolState = PoolSnapshot['value'];

/** The answer for a task that an unready or draining pool cannot take. */
export function unreadyFailure(context: PoolContext): Failure {
  const cause = context.last_error;
  return {
    code: 'POOL_UNREADY',
    message: cause
      ? `pool ${context.id} is not ready: ${cause.message}`
      : `pool ${context.id} takes no new work`,
    retriable: cause?.retriable ?? true,
    pool_id: context.id,
    retry_after_ms: context.retry.initial_ms,
  };
}
