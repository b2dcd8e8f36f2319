import { emit, setup } from 'xstate';

/** Commands; `deadline_ms` is how long running tasks may go on. */
export type ModelEvent = { type: 'model.retire'; deadline_ms: number } | { type: 'model.activate' };

export const MODEL_EVENTS = [
  'model.retire',
  'model.activate',
] as const satisfies readonly ModelEvent['type'][];

/** What the model's owner has to do. */
export type ModelFact = { type: 'pools.drain'; deadline_ms: number } | { type: 'pools.reopen' };

/**
 * Whether new work may use a model. A model is a record: its state is kept in the catalog under these very names, and
 * there is no actor for it.
 */
export const modelMachine = setup({
  types: {
    context: {} as Record<string, never>,
    events: {} as ModelEvent,
    emitted: {} as ModelFact,
  },
  actions: {
    drainPools: emit((_, { deadline_ms }: { deadline_ms: number }) => ({ type: 'pools.drain', deadline_ms })),
    reopenPools: emit({ type: 'pools.reopen' }),
  },
}).createMachine({
  id: 'model',
  context: {},
  initial: 'Active',
  states: {
    Active: {
      description: 'New work may use it.',
      on: {
        'model.retire': {
          target: 'Retired',
          actions: { type: 'drainPools', params: ({ event }) => ({ deadline_ms: event.deadline_ms }) },
        },
        'model.activate': {},
      },
    },
    Retired: {
      description: 'New work is refused, and pools unload it once what runs has finished; its files stay.',
      on: {
        // Another deadline for what still runs.
        'model.retire': {
          actions: { type: 'drainPools', params: ({ event }) => ({ deadline_ms: event.deadline_ms }) },
        },
        'model.activate': { target: 'Active', actions: 'reopenPools' },
      },
    },
  },
});
