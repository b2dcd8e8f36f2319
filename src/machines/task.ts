import { assign, emit, setup, type ActorRefFrom, type SnapshotFrom } from 'xstate';
import type { FinishReason, TaskUsage } from '../contract/generated/types.ts';
import type { Failure } from '../errors.ts';

/** Who ended a task that was not allowed to finish. Label values of `tasks_canceled_total`. */
export type CancelReason = 'client' | 'disconnect' | 'deadline' | 'watchdog' | 'drain';

export interface TaskInput {
  id: string;
  /** Monotonic milliseconds at which the task was accepted. */
  at: number;
  queue_position: number;
  predicted_start_ms: number;
  /** How often a run that died before its first token is queued again. */
  max_attempts: number;
  metrics_period_ms: number;
}

export interface TaskContext {
  id: string;
  queue_position: number;
  predicted_start_ms: number;
  max_attempts: number;
  metrics_period_ms: number;
  /** Runs started so far. */
  attempts: number;
  /** The slot lease of the current run; undefined while waiting. */
  lease: number | undefined;
  replica_id: string | undefined;
  usage: TaskUsage;
  /** Monotonic milliseconds of each first entry; the differences are what a client is told. */
  times: { admitted: number; provisioning?: number; placed?: number; first_token?: number; ended?: number };
  outcome: TaskOutcome | undefined;
}

export type TaskOutcome =
  | { kind: 'finished'; reason: FinishReason }
  | { kind: 'canceled'; reason: CancelReason }
  | { kind: 'failed'; failure: Failure };

/** Commands are imperative, facts are in the past tense; `at` is monotonic milliseconds. */
export type TaskEvent =
  | { type: 'task.provision'; at: number }
  | { type: 'task.wait' }
  | { type: 'task.place'; at: number; lease: number; replica_id: string }
  | { type: 'task.cancel'; at: number; reason: CancelReason; usage?: TaskUsage }
  | { type: 'task.fail'; at: number; failure: Failure; usage?: TaskUsage }
  | { type: 'engine.streamed'; at: number }
  | { type: 'engine.finished'; at: number; reason: FinishReason; usage: TaskUsage }
  | { type: 'engine.failed'; at: number; failure: Failure; usage: TaskUsage };

export const TASK_EVENTS = [
  'task.provision',
  'task.wait',
  'task.place',
  'task.cancel',
  'task.fail',
  'engine.streamed',
  'engine.finished',
  'engine.failed',
] as const satisfies readonly TaskEvent['type'][];

/** What the task's owner has to do or to tell. The log's lifecycle events have no other source. */
export type TaskFact =
  | { type: 'log.started' }
  | { type: 'log.provisioning' }
  | { type: 'log.metrics' }
  | { type: 'log.end' }
  | { type: 'log.error'; failure: Failure }
  | { type: 'engine.start'; lease: number; replica_id: string }
  | { type: 'engine.abort'; lease: number; replica_id: string }
  | { type: 'task.requeued' }
  | { type: 'task.closed' };

const noUsage: TaskUsage = { tokens_in: 0, tokens_cached: 0, tokens_out: 0 };

export const taskMachine = setup({
  types: {
    context: {} as TaskContext,
    events: {} as TaskEvent,
    input: {} as TaskInput,
    emitted: {} as TaskFact,
  },
  delays: { metricsPeriod: ({ context }) => context.metrics_period_ms },
  guards: {
    mayRunAgain: ({ context, event }) =>
      event.type === 'engine.failed' &&
      event.failure.retriable &&
      event.usage.tokens_out === 0 &&
      context.attempts < context.max_attempts,
  },
  actions: {
    logStarted: emit({ type: 'log.started' }),
    logProvisioning: emit({ type: 'log.provisioning' }),
    logMetrics: emit({ type: 'log.metrics' }),
    logEnd: emit({ type: 'log.end' }),
    logError: emit(({ context }) => ({ type: 'log.error', failure: failureOf(context) })),
    startEngine: emit(({ context }) => ({ type: 'engine.start', ...leaseOf(context) })),
    abortEngine: emit(({ context }) => ({ type: 'engine.abort', ...leaseOf(context) })),
    requeue: emit({ type: 'task.requeued' }),
    close: emit({ type: 'task.closed' }),
    takeLease: assign(({ context, event }) =>
      event.type === 'task.place'
        ? {
            lease: event.lease,
            replica_id: event.replica_id,
            attempts: context.attempts + 1,
            times: { ...context.times, placed: context.times.placed ?? event.at },
          }
        : {},
    ),
    dropLease: assign({ lease: undefined, replica_id: undefined }),
    noteProvisioning: assign(({ context, event }) =>
      'at' in event
        ? { times: { ...context.times, provisioning: context.times.provisioning ?? event.at } }
        : {},
    ),
    noteFirstToken: assign(({ context, event }) =>
      'at' in event
        ? { times: { ...context.times, first_token: context.times.first_token ?? event.at } }
        : {},
    ),
    recordOutcome: assign(({ context, event }) => {
      if (!('at' in event)) return {};
      const times = { ...context.times, ended: event.at };
      switch (event.type) {
        case 'engine.finished':
          return { times, usage: event.usage, outcome: { kind: 'finished', reason: event.reason } as const };
        case 'engine.failed':
          return { times, usage: event.usage, outcome: { kind: 'failed', failure: event.failure } as const };
        case 'task.cancel':
          return {
            times,
            usage: event.usage ?? context.usage,
            outcome: { kind: 'canceled', reason: event.reason } as const,
          };
        case 'task.fail':
          return {
            times,
            usage: event.usage ?? context.usage,
            outcome: { kind: 'failed', failure: event.failure } as const,
          };
        default:
          return {};
      }
    }),
  },
}).createMachine({
  id: 'task',
  context: ({ input }) => ({
    id: input?.id ?? '',
    queue_position: input?.queue_position ?? 0,
    predicted_start_ms: input?.predicted_start_ms ?? 0,
    max_attempts: input?.max_attempts ?? 1,
    metrics_period_ms: input?.metrics_period_ms ?? 1000,
    attempts: 0,
    lease: undefined,
    replica_id: undefined,
    usage: noUsage,
    times: { admitted: input?.at ?? 0 },
    outcome: undefined,
  }),
  initial: { target: 'admitted', actions: 'logStarted' },
  states: {
    admitted: {
      description: 'Accepted and waiting in its pool’s queue; a plain record, no actor.',
      tags: ['waiting'],
      on: {
        'task.provision': 'provisioning',
        'task.place': 'placed',
        'task.cancel': { target: 'ended', actions: 'recordOutcome' },
        'task.fail': { target: 'error', actions: 'recordOutcome' },
      },
    },
    provisioning: {
      description: 'Next in line, but its model or engine is not there yet; still a record in the queue.',
      tags: ['waiting'],
      entry: ['noteProvisioning', 'logProvisioning'],
      on: {
        'task.wait': 'admitted',
        'task.place': 'placed',
        'task.cancel': { target: 'ended', actions: 'recordOutcome' },
        'task.fail': { target: 'error', actions: 'recordOutcome' },
      },
    },
    placed: {
      description: 'Holds a slot lease; the engine is prefilling and has not sent a byte yet.',
      tags: ['in flight'],
      entry: ['takeLease', 'startEngine'],
      on: {
        'engine.streamed': 'streaming',
        'engine.finished': { target: 'ended', actions: 'recordOutcome' },
        'engine.failed': [
          { guard: 'mayRunAgain', target: 'admitted', actions: ['dropLease', 'requeue'] },
          { target: 'error', actions: 'recordOutcome' },
        ],
        'task.cancel': { target: 'ended', actions: ['recordOutcome', 'abortEngine'] },
        'task.fail': { target: 'error', actions: ['recordOutcome', 'abortEngine'] },
      },
    },
    streaming: {
      description: 'Tokens flow from the engine into the task’s log, past this machine.',
      tags: ['in flight'],
      entry: ['noteFirstToken', 'logMetrics'],
      after: { metricsPeriod: { target: 'streaming', reenter: true } },
      on: {
        'engine.finished': { target: 'ended', actions: ['recordOutcome', 'logMetrics'] },
        'engine.failed': { target: 'error', actions: 'recordOutcome' },
        'task.cancel': { target: 'ended', actions: ['recordOutcome', 'abortEngine'] },
        'task.fail': { target: 'error', actions: ['recordOutcome', 'abortEngine'] },
      },
    },
    ended: {
      description: 'Finished, or canceled: the log closed with its one `end` event.',
      type: 'final',
      entry: ['logEnd', 'close'],
    },
    error: {
      description: 'Failed: the log closed with its one `error` event.',
      type: 'final',
      entry: ['logError', 'close'],
    },
  },
});

export type TaskActor = ActorRefFrom<typeof taskMachine>;
export type TaskSnapshot = SnapshotFrom<typeof taskMachine>;
export type TaskState = TaskSnapshot['value'];

/** Final states: nothing follows in the log, and no event moves the task any more. */
export function isOver(state: TaskState): boolean {
  return state === 'ended' || state === 'error';
}

function failureOf(context: TaskContext): Failure {
  return context.outcome?.kind === 'failed'
    ? context.outcome.failure
    : { code: 'INTERNAL', message: 'the task failed without a cause', retriable: false };
}

function leaseOf(context: TaskContext): { lease: number; replica_id: string } {
  return { lease: context.lease ?? -1, replica_id: context.replica_id ?? '' };
}
