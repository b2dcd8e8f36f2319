import {
  assign,
  cancel,
  emit,
  enqueueActions,
  raise,
  setup,
  type ActorRefFrom,
  type SnapshotFrom,
} from 'xstate';
import type { TaskUsage } from '../contract/generated/types.ts';
import { failure, type Failure } from '../errors.ts';
import type {
  Overdue,
  TaskContext,
  TaskEvent,
  TaskFact,
  TaskInput,
  TaskOutcome,
  TaskRules,
} from './task-protocol.ts';

const noUsage: TaskUsage = { tokens_in: 0, tokens_cached: 0, tokens_out: 0 };

const NO_RULES: TaskRules = {
  max_attempts: 1,
  max_continuations: 0,
  metrics_period_ms: 1000,
  first_token_ms: 120_000,
  idle_ms: 30_000,
  wall_ms: undefined,
};

/** Timers hold 31 bits: what lies beyond (24 days) is as good as never, and a larger number would fire at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

function timer(ms: number): number {
  return Math.min(LONGEST_TIMER_MS, Math.max(0, ms));
}

/** Milliseconds from a time to the event that is being handled. */
function since(time: number | undefined, event: TaskEvent): number {
  return 'at' in event && time !== undefined ? event.at - time : 0;
}

/** A check that found a sign of life is due again once that would be too long ago. */
function untilCheck(limit_ms: number, event: TaskEvent): number {
  return timer(event.type === 'engine.quiet' ? limit_ms - event.quiet_ms : limit_ms);
}

export const taskMachine = setup({
  types: {
    context: {} as TaskContext,
    events: {} as TaskEvent,
    input: {} as TaskInput,
    emitted: {} as TaskFact,
  },
  delays: {
    metricsPeriod: ({ context }) => context.rules.metrics_period_ms,
    overdue: ({ context, event }) => {
      const { times, deadline_ms, rules } = context;
      const run_left = (rules.wall_ms ?? Infinity) - since(times.placed, event);
      return timer(Math.min(deadline_ms - since(times.admitted, event), run_left));
    },
    firstTokenCheck: ({ context, event }) => untilCheck(context.rules.first_token_ms, event),
    idleCheck: ({ context, event }) => untilCheck(context.rules.idle_ms, event),
  },
  guards: {
    mayWait: ({ context: { times, rules }, event }) =>
      event.type === 'engine.declined' &&
      event.failure.retriable &&
      event.at - (times.declined ?? event.at) < rules.first_token_ms,
    mayRunAgain: ({ context, event }) =>
      (event.type === 'engine.failed' || event.type === 'engine.declined') &&
      event.failure.retriable &&
      context.attempts < context.rules.max_attempts,
    mayContinue: ({ context, event }) =>
      event.type === 'engine.failed' &&
      event.failure.retriable &&
      context.continuable &&
      context.continuations < context.rules.max_continuations,
    isContinuation: ({ context }) => context.times.first_token !== undefined,
    isSilent: ({ context, event }) =>
      event.type === 'engine.quiet' && event.quiet_ms >= context.rules.first_token_ms,
    isIdle: ({ context, event }) => event.type === 'engine.quiet' && event.quiet_ms >= context.rules.idle_ms,
  },
  actions: {
    logStarted: emit({ type: 'log.started' }),
    logResumed: emit({ type: 'log.resumed' }),
    logMetrics: emit({ type: 'log.metrics' }),
    logEnd: emit({ type: 'log.end' }),
    logError: emit(({ context }) => ({ type: 'log.error', failure: failureOf(context) })),
    startEngine: emit(({ context }) => ({ type: 'engine.start', ...leaseOf(context) })),
    abortEngine: emit(({ context }) => ({ type: 'engine.abort', ...leaseOf(context) })),
    check: emit({ type: 'run.check' }),
    tellOverdue: emit(({ context }) => ({ type: 'run.overdue', overdue: firstDue(context) })),
    planOverdue: raise({ type: 'overdue.due' }, { delay: 'overdue', id: 'overdue' }),
    planMetrics: raise({ type: 'metrics.due' }, { delay: 'metricsPeriod', id: 'metrics' }),
    planFirstTokenCheck: raise({ type: 'check.due' }, { delay: 'firstTokenCheck', id: 'check' }),
    planIdleCheck: raise({ type: 'check.due' }, { delay: 'idleCheck', id: 'check' }),
    requeue: emit({ type: 'task.requeued' }),
    suspend: emit({ type: 'task.suspended' }),
    close: emit({ type: 'task.closed' }),
    takeLease: assign(({ context, event }) =>
      event.type === 'task.place'
        ? {
            lease: event.lease,
            replica_id: event.replica_id,
            continuable: event.continuable,
            attempts: context.attempts + 1,
            times: { ...context.times, placed: context.times.placed ?? event.at },
          }
        : {},
    ),
    forgetAttempt: assign(({ context: { attempts, times }, event }) =>
      'at' in event
        ? { attempts: attempts - 1, times: { ...times, declined: times.declined ?? event.at } }
        : {},
    ),
    dropLease: assign({ lease: undefined, replica_id: undefined }),
    noteContinuation: assign(({ context, event }) =>
      event.type === 'engine.failed' ? { continuations: context.continuations + 1, usage: event.usage } : {},
    ),
    noteUsage: assign(({ context, event }) =>
      event.type === 'task.suspend' ? { usage: event.usage ?? context.usage } : {},
    ),
    noteProvisioning: assign(({ context, event }) =>
      'at' in event
        ? { times: { ...context.times, provisioning: context.times.provisioning ?? event.at } }
        : {},
    ),
    noteFirstToken: assign(({ context, event }) =>
      'at' in event ? { times: withFirstToken(context.times, event.at) } : {},
    ),
    recordSilence: assign(({ context, event }) =>
      event.type === 'engine.quiet'
        ? {
            times: { ...context.times, ended: event.at },
            ...overdueOutcome('first token', event, context),
          }
        : {},
    ),
    recordOutcome: assign(({ context, event }) => {
      if (!('at' in event)) return {};
      const times = { ...context.times, ended: event.at };
      switch (event.type) {
        case 'engine.finished':
          return { times, usage: event.usage, outcome: { kind: 'finished', reason: event.reason } as const };
        case 'engine.failed':
        case 'engine.declined':
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
        case 'task.expire':
          return { times, ...overdueOutcome(event.overdue, event, context) };
        case 'engine.quiet':
          return { times, ...overdueOutcome('idle', event, context) };
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
    deadline_ms: input?.deadline_ms ?? Infinity,
    rules: input?.rules ?? NO_RULES,
    attempts: 0,
    continuations: 0,
    continuable: false,
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
        'task.expire': { target: 'error', actions: 'recordOutcome' },
      },
    },
    provisioning: {
      description: 'Next in line, but its model or engine is not there yet; still a record in the queue.',
      tags: ['waiting'],
      entry: 'noteProvisioning',
      on: {
        'task.wait': 'admitted',
        'task.place': 'placed',
        'task.cancel': { target: 'ended', actions: 'recordOutcome' },
        'task.fail': { target: 'error', actions: 'recordOutcome' },
        'task.expire': { target: 'error', actions: 'recordOutcome' },
      },
    },
    placed: {
      description: 'Holds a slot lease; the engine is prefilling and has not sent a byte yet.',
      tags: ['in flight'],
      entry: [
        'takeLease',
        enqueueActions(({ enqueue, check }) => {
          if (check('isContinuation')) enqueue('logResumed');
        }),
        'planOverdue',
        'planFirstTokenCheck',
        'startEngine',
      ],
      on: {
        'overdue.due': { actions: 'tellOverdue' },
        'check.due': { actions: 'check' },
        'engine.quiet': [
          { guard: 'isSilent', target: 'error', actions: ['recordSilence', 'abortEngine'] },
          { actions: 'planFirstTokenCheck' },
        ],
        'engine.streamed': 'streaming',
        'engine.finished': { target: 'ended', actions: 'recordOutcome' },
        'engine.failed': [
          { guard: 'mayRunAgain', target: 'admitted', actions: ['dropLease', 'requeue'] },
          { target: 'error', actions: 'recordOutcome' },
        ],
        'engine.declined': [
          { guard: 'mayWait', target: 'admitted', actions: ['forgetAttempt', 'dropLease', 'requeue'] },
          { guard: 'mayRunAgain', target: 'admitted', actions: ['dropLease', 'requeue'] },
          { target: 'error', actions: 'recordOutcome' },
        ],
        'task.cancel': { target: 'ended', actions: ['recordOutcome', 'abortEngine'] },
        'task.fail': { target: 'error', actions: ['recordOutcome', 'abortEngine'] },
        'task.expire': { target: 'error', actions: ['recordOutcome', 'abortEngine'] },
        'task.suspend': { target: 'admitted', actions: ['abortEngine', 'dropLease', 'noteUsage', 'suspend'] },
      },
    },
    streaming: {
      description: 'Tokens flow from the engine into the task’s log, past this machine.',
      tags: ['in flight'],
      entry: ['noteFirstToken', 'planMetrics', cancel('check'), 'planIdleCheck'],
      on: {
        'metrics.due': { actions: ['logMetrics', 'planMetrics'] },
        'overdue.due': { actions: 'tellOverdue' },
        'check.due': { actions: 'check' },
        'engine.quiet': [
          { guard: 'isIdle', target: 'error', actions: ['recordOutcome', 'abortEngine'] },
          { actions: 'planIdleCheck' },
        ],
        'engine.finished': { target: 'ended', actions: ['recordOutcome', 'logMetrics'] },
        'engine.failed': [
          {
            guard: 'mayContinue',
            target: 'admitted',
            actions: ['dropLease', 'noteContinuation', 'requeue'],
          },
          { target: 'error', actions: 'recordOutcome' },
        ],
        'task.cancel': { target: 'ended', actions: ['recordOutcome', 'abortEngine'] },
        'task.fail': { target: 'error', actions: ['recordOutcome', 'abortEngine'] },
        'task.expire': { target: 'error', actions: ['recordOutcome', 'abortEngine'] },
        'task.suspend': { target: 'admitted', actions: ['abortEngine', 'dropLease', 'noteUsage', 'suspend'] },
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

function withFirstToken(times: TaskContext['times'], at: number): TaskContext['times'] {
  const after = { ...times, first_token: times.first_token ?? at };
  delete after.declined;
  return after;
}

function failureOf(context: TaskContext): Failure {
  return context.outcome?.kind === 'failed'
    ? context.outcome.failure
    : { code: 'INTERNAL', message: 'the task failed without a cause', retriable: false };
}

function overdueFailure(overdue: Overdue, { deadline_ms, rules }: TaskContext): Failure {
  switch (overdue) {
    case 'deadline':
      return failure('DEADLINE_UNMET', `the deadline of ${deadline_ms} ms has passed`);
    case 'wall':
      return failure('DECODE_TIMEOUT', `the run took longer than ${rules.wall_ms} ms`);
    case 'first token':
      return failure('DECODE_TIMEOUT', `the engine gave no sign of life for ${rules.first_token_ms} ms`);
    case 'idle':
      return failure('DECODE_TIMEOUT', `the engine gave no token for ${rules.idle_ms} ms`);
  }
}

/** Whichever of deadline and longest run ends first. */
function firstDue({ deadline_ms, rules, times }: TaskContext): Overdue {
  const end_of_run = (times.placed ?? times.admitted) + (rules.wall_ms ?? Infinity);
  return times.admitted + deadline_ms <= end_of_run ? 'deadline' : 'wall';
}

function overdueOutcome(
  overdue: Overdue,
  event: { usage?: TaskUsage },
  context: TaskContext,
): { usage: TaskUsage; outcome: TaskOutcome } {
  return {
    usage: event.usage ?? context.usage,
    outcome: { kind: 'failed', failure: overdueFailure(overdue, context), overdue },
  };
}

function leaseOf(context: TaskContext): { lease: number; replica_id: string } {
  return { lease: context.lease ?? -1, replica_id: context.replica_id ?? '' };
}
