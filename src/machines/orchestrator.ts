import { assign, emit, setup } from 'xstate';
import type { Failure } from '../errors.ts';

export interface OrchestratorContext {
  shutdown_ms: number;
  pools_open: number;
  /** Why it takes no tasks although nobody has closed it. */
  failure: Failure | undefined;
}

export type OrchestratorEvent =
  | { type: 'store.recovered' }
  | { type: 'store.failed'; failure: Failure }
  | { type: 'orchestrator.close'; shutdown_ms: number }
  | { type: 'pool.opened' }
  | { type: 'pool.stopped' };

export const ORCHESTRATOR_EVENTS = [
  'store.recovered',
  'store.failed',
  'orchestrator.close',
  'pool.opened',
  'pool.stopped',
] as const satisfies readonly OrchestratorEvent['type'][];

export type OrchestratorFact = { type: 'pools.drain'; deadline_ms: number } | { type: 'resources.release' };

export const orchestratorMachine = setup({
  types: {
    context: {} as OrchestratorContext,
    events: {} as OrchestratorEvent,
    input: {} as { pools: number },
    emitted: {} as OrchestratorFact,
  },
  guards: { isNoPoolOpen: ({ context }) => context.pools_open <= 0 },
  actions: {
    drainPools: emit(({ context }) => ({ type: 'pools.drain', deadline_ms: context.shutdown_ms })),
    releaseResources: emit({ type: 'resources.release' }),
    noteDeadline: assign(({ event }) =>
      event.type === 'orchestrator.close' ? { shutdown_ms: event.shutdown_ms } : {},
    ),
    noteFailure: assign(({ event }) => (event.type === 'store.failed' ? { failure: event.failure } : {})),
    countOpened: assign({ pools_open: ({ context }) => context.pools_open + 1 }),
    countStopped: assign({ pools_open: ({ context }) => context.pools_open - 1 }),
  },
}).createMachine({
  id: 'orchestrator',
  context: ({ input }) => ({ shutdown_ms: 0, pools_open: input?.pools ?? 0, failure: undefined }),
  initial: 'recovering',
  on: { 'pool.opened': { actions: 'countOpened' }, 'pool.stopped': { actions: 'countStopped' } },
  states: {
    recovering: {
      description:
        'Reads what earlier processes have accepted; tasks that are posted meanwhile wait for that.',
      tags: ['recovering', 'readable'],
      on: {
        'store.recovered': 'serving',
        'store.failed': { target: 'draining', actions: 'noteFailure' },
        'orchestrator.close': { target: 'draining', actions: 'noteDeadline' },
      },
    },
    serving: {
      description: 'Takes tasks.',
      tags: ['accepting', 'readable'],
      on: { 'orchestrator.close': { target: 'draining', actions: 'noteDeadline' } },
    },
    draining: {
      description:
        'Takes no more tasks, because it is closed or cannot know what it has accepted; pools let running ones finish until the deadline and stop.',
      tags: ['readable'],
      entry: 'drainPools',
      on: { 'orchestrator.close': { actions: ['noteDeadline', 'drainPools'] } },
      always: { guard: 'isNoPoolOpen', target: 'closed' },
    },
    closed: {
      description: 'Every engine, thread and timer has been given back.',
      type: 'final',
      entry: 'releaseResources',
    },
  },
});
