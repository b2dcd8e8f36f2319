import { assign, emit, setup, type SnapshotFrom } from 'xstate';
import { addSpending, NOTHING_SPENT, type Account, type Spending } from '../scheduling/budget.ts';

export interface SessionInput {
  /** Monotonic milliseconds of its last use. */
  at: number;
  /** What it had before a restart; nothing by default. */
  turns?: number;
  spent?: Spending;
  /** Of the task that it is made for, as if that had been accepted in it; none by default. */
  reserve?: number;
}

export interface SessionContext extends Account {
  /** Tasks that were accepted in it. */
  turns: number;
  /** Accepted tasks that are not over. Each one's reservation is known to the owner: a session may have thousands. */
  running: number;
  /** Monotonic milliseconds of the last accept, settle or touch. */
  last_seen_at: number;
  /** Where its cache is; undefined while it is cold. */
  warmth: SessionWarmth | undefined;
}

export interface SessionWarmth {
  pool_id: string;
  replica_id: string;
  kv_bytes: number;
}

/** `expired` also where more sessions were idle than may be kept. */
export type SessionEnd = 'expired' | 'deleted' | 'turns';

/** `at` is monotonic milliseconds, `reserve` the tokens that the task may write. */
export type SessionEvent =
  | { type: 'session.accept'; at: number; reserve: number }
  | { type: 'session.readopt'; at: number; reserve: number }
  | { type: 'session.release'; at: number; reserve: number }
  | { type: 'session.settle'; at: number; reserve: number; spent: Spending }
  | ({ type: 'session.warm' } & SessionWarmth)
  | { type: 'session.cool'; failover: boolean }
  | { type: 'session.touch'; at: number }
  | { type: 'session.expire' }
  | { type: 'session.exhaust' }
  | { type: 'session.delete' };

export const SESSION_EVENTS = [
  'session.accept',
  'session.readopt',
  'session.release',
  'session.settle',
  'session.warm',
  'session.cool',
  'session.touch',
  'session.expire',
  'session.exhaust',
  'session.delete',
] as const satisfies readonly SessionEvent['type'][];

/** Told once: the owner forgets the session, and its cache may go. */
export interface SessionFact {
  type: 'session.closed';
  reason: SessionEnd;
  warmth: SessionWarmth | undefined;
}

export const sessionMachine = setup({
  types: {
    context: {} as SessionContext,
    events: {} as SessionEvent,
    input: {} as SessionInput,
    emitted: {} as SessionFact,
  },
  guards: {
    isIdle: ({ context }) => context.running === 0,
    hasTasks: ({ context }) => context.running > 0,
  },
  actions: {
    accept: assign(({ context, event }) =>
      event.type === 'session.accept' || event.type === 'session.readopt'
        ? {
            turns: context.turns + (event.type === 'session.accept' ? 1 : 0),
            running: context.running + 1,
            reserved_tokens: context.reserved_tokens + event.reserve,
            last_seen_at: event.at,
          }
        : {},
    ),
    giveBack: assign(({ context, event }) =>
      event.type === 'session.settle' || event.type === 'session.release'
        ? {
            turns: Math.max(0, context.turns - (event.type === 'session.release' ? 1 : 0)),
            running: context.running - 1,
            reserved_tokens: context.reserved_tokens - event.reserve,
            spent: event.type === 'session.settle' ? addSpending(context.spent, event.spent) : context.spent,
            last_seen_at: event.at,
          }
        : {},
    ),
    noteWarmth: assign(({ event }) =>
      event.type === 'session.warm'
        ? {
            warmth: { pool_id: event.pool_id, replica_id: event.replica_id, kv_bytes: event.kv_bytes },
          }
        : {},
    ),
    dropWarmth: assign({ warmth: undefined }),
    forgiveSpending: assign(({ event }) =>
      event.type === 'session.cool' && event.failover ? { spent: NOTHING_SPENT } : {},
    ),
    noteUse: assign(({ event }) => ('at' in event ? { last_seen_at: event.at } : {})),
    tellClosed: emit(({ context, event }) => ({
      type: 'session.closed',
      reason: reasonOf(event),
      warmth: context.warmth,
    })),
  },
}).createMachine({
  id: 'session',
  context: ({ input }) => ({
    turns: input?.turns ?? 0,
    running: input?.reserve === undefined ? 0 : 1,
    reserved_tokens: input?.reserve ?? 0,
    spent: input?.spent ?? NOTHING_SPENT,
    last_seen_at: input?.at ?? 0,
    warmth: undefined,
  }),
  initial: 'open',
  states: {
    open: {
      description: 'Counts its turns and what its tasks spend; a plain record that any task may come to.',
      on: {
        'session.accept': { actions: 'accept' },
        'session.readopt': { actions: 'accept' },
        'session.release': { guard: 'hasTasks', actions: 'giveBack' },
        'session.settle': { guard: 'hasTasks', actions: 'giveBack' },
        'session.warm': { actions: 'noteWarmth' },
        'session.cool': { actions: ['dropWarmth', 'forgiveSpending'] },
        'session.touch': { actions: 'noteUse' },
        'session.expire': { guard: 'isIdle', target: 'closed' },
        'session.exhaust': 'closed',
        'session.delete': 'closed',
      },
    },
    closed: {
      description: 'Forgotten. Its running tasks go on and are charged to nobody; its id begins anew.',
      type: 'final',
      entry: ['tellClosed', 'dropWarmth'],
    },
  },
});

export type SessionState = SnapshotFrom<typeof sessionMachine>['value'];

function reasonOf(event: SessionEvent): SessionEnd {
  if (event.type === 'session.exhaust') return 'turns';
  return event.type === 'session.delete' ? 'deleted' : 'expired';
}
