import { emit, setup, type ActorRefFrom } from 'xstate';

export interface ReadershipInput {
  /** How long the last reader may be gone, in milliseconds. */
  grace_ms: number;
}

export type ReadershipEvent = { type: 'reader.attached' } | { type: 'task.closed' };

export const READERSHIP_EVENTS = [
  'reader.attached',
  'task.closed',
] as const satisfies readonly ReadershipEvent['type'][];

export type ReadershipFact = { type: 'task.deserted' };

/**
 * What happens after the last reader of an interactive task has left. There is an actor only for that time: a task
 * that is read, or was never read, has none.
 */
export const readershipMachine = setup({
  types: {
    context: {} as ReadershipInput,
    events: {} as ReadershipEvent,
    input: {} as ReadershipInput,
    emitted: {} as ReadershipFact,
  },
  delays: { grace: ({ context }) => context.grace_ms },
  actions: { desert: emit({ type: 'task.deserted' }) },
}).createMachine({
  id: 'readership',
  context: ({ input }) => ({ grace_ms: input?.grace_ms ?? 0 }),
  initial: 'awaited',
  states: {
    awaited: {
      description: 'The last reader has left; it, or another one, may come back.',
      after: { grace: 'deserted' },
      on: { 'reader.attached': 'resumed', 'task.closed': 'pointless' },
    },
    resumed: { description: 'Somebody reads again.', type: 'final' },
    deserted: {
      description: 'Nobody came back: the task is canceled.',
      type: 'final',
      entry: 'desert',
    },
    pointless: { description: 'The task was over first.', type: 'final' },
  },
});

export type ReadershipActor = ActorRefFrom<typeof readershipMachine>;
