import { assign, emit, fromPromise, setup, type ActorRefFrom, type SnapshotFrom } from 'xstate';
import type { EngineHealth, EngineLoss, EngineProperties } from '../engines/engine.ts';
import { toFailure } from '../errors.ts';
import type {
  ReplicaContext,
  ReplicaEvent,
  ReplicaFact,
  ReplicaInput,
  UnloadCause,
} from './replica-protocol.ts';
import { breakerOpenFor, NO_HISTORY, noteFailed, noteRestarted, restartDelay } from './restart-policy.ts';
import { restFor } from './rest-policy.ts';

const notProvided = (name: string): never => {
  throw new Error(`${name} is provided by the replica actor`);
};

export const replicaMachine = setup({
  types: {
    context: {} as ReplicaContext,
    events: {} as ReplicaEvent,
    input: {} as ReplicaInput,
    emitted: {} as ReplicaFact,
  },
  actors: {
    loadEngine: fromPromise<EngineProperties>(() => notProvided('loadEngine')),
    probeEngine: fromPromise<EngineHealth>(() => notProvided('probeEngine')),
    /** Whether it decodes one token. */
    proveEngine: fromPromise<boolean>(() => notProvided('proveEngine')),
    unloadEngine: fromPromise<void>(() => notProvided('unloadEngine')),
  },
  delays: {
    loadTimeout: ({ context }) => context.load_timeout_ms,
    probeInterval: ({ context }) => context.probe_interval_ms,
    backoff: ({ context }) => context.backoff_ms,
    breakerOpen: ({ context }) => breakerOpenFor(context.restart, context.trials - 1),
    trialStable: ({ context }) => context.restart.trial_stable_ms,
    stable: ({ context }) => context.restart.stable_ms,
    rest: ({ context }) => context.rest_ms,
  },
  guards: {
    isReady: (_, params: { health: EngineHealth }) => params.health.ready,
    decodes: (_, params: { decoded: boolean }) => params.decoded,
    isOneFailureShort: ({ context }) => context.failed_probes + 1 < context.probe_fail,
    isExit: (_, params: { loss: EngineLoss }) => params.loss.cause === 'exit',
    mayRestart: ({ context: { trials, restart, history, now } }) =>
      trials === 0 && restartDelay(restart, history, now(), 0.5) !== undefined,
    isTrial: ({ context }) => context.trials > 0,
  },
  actions: {
    keepProperties: assign({
      properties: (_, params: { properties: EngineProperties }) => params.properties,
      failed_probes: 0,
    }),
    noteFailure: assign(({ context }, params: { cause: unknown }) => ({
      last_error: toFailure(params.cause, 'POOL_UNAVAILABLE'),
      history: noteFailed(context.history, false),
    })),
    noteLoss: assign(({ context, event }, params: { loss?: EngineLoss }) => {
      const loss = params.loss ?? (event.type === 'engine.lost' ? event.loss : undefined);
      if (!loss) return {};
      return {
        exit: loss,
        last_error: toFailure(new Error(`engine of ${context.id}: ${loss.message}`), 'WORKER_RESET'),
        ...(loss.cause === 'exit' ? {} : { history: noteFailed(context.history, isOfDevice(loss)) }),
      };
    }),
    noteWaiting: assign(({ event }) =>
      event.type === 'engine.waited'
        ? { last_error: toFailure(new Error(event.why), 'POOL_UNAVAILABLE') }
        : {},
    ),
    noteUnload: assign(({ event }) =>
      event.type === 'replica.unload'
        ? {
            exit: { cause: event.cause, message: UNLOADED[event.cause] },
            trials: 0,
            history: NO_HISTORY,
          }
        : {},
    ),
    countFailedProbe: assign({ failed_probes: ({ context }) => context.failed_probes + 1 }),
    noteHealthy: assign({ failed_probes: 0, healthy_at: ({ context }) => context.now() }),
    scheduleRestart: assign(({ context: { restart, history, now, random } }) => ({
      ...waitFor(restartDelay(restart, history, now(), random()) ?? restart.max_ms, now()),
      history: noteRestarted(restart, history, now()),
    })),
    noteLoading: assign({ loading_at: ({ context }) => context.now() }),
    noteReady: assign({
      ready_at: ({ context }) => context.now(),
      healthy_at: ({ context }) => context.now(),
      last_error: undefined,
      rests: 0,
    }),
    planRest: assign(({ context: { rests, random }, event }) =>
      event.type === 'run.declined'
        ? { rests: rests + 1, rest_ms: restFor(rests, random(), event.retry_after_ms) }
        : {},
    ),
    forgetRests: assign({ rests: 0 }),
    openBreaker: assign(({ context: { trials, restart, now } }) => ({
      trials: trials + 1,
      loads_again_at: now() + breakerOpenFor(restart, trials),
    })),
    closeBreaker: assign({ trials: 0, history: NO_HISTORY }),
    forgive: assign({ history: NO_HISTORY }),
    tellReady: emit(({ context }) => ({
      type: 'replica.readied',
      properties: context.properties as EngineProperties,
    })),
    tellLost: emit(({ context }) => ({
      type: 'replica.lost',
      loss: context.exit ?? { cause: 'crash', message: 'unknown' },
    })),
    tellBroken: emit(({ context }) => ({
      type: 'replica.broken',
      failure: context.last_error ?? toFailure(new Error('its breaker is open'), 'REPLICA_EXHAUSTED'),
    })),
    tellRecoverable: emit({ type: 'replica.recoverable' }),
    tellRested: emit({ type: 'replica.rested' }),
    tellUnloaded: emit({ type: 'replica.unloaded' }),
    tellStopped: emit({ type: 'replica.stopped' }),
  },
}).createMachine({
  id: 'replica',
  context: ({ input }) => ({
    ...input,
    properties: undefined,
    last_error: undefined,
    exit: undefined,
    history: NO_HISTORY,
    trials: 0,
    ready_at: undefined,
    healthy_at: undefined,
    failed_probes: 0,
    loading_at: undefined,
    loads_again_at: 0,
    backoff_ms: 0,
    rests: 0,
    rest_ms: 0,
  }),
  initial: 'idle',
  on: { 'replica.stop': '.stopping', 'replica.unload': { target: '.unloading', actions: 'noteUnload' } },
  states: {
    idle: {
      description: 'No engine; waits for its pool to ask for one.',
      tags: ['empty'],
      on: {
        'replica.start': 'loading',
        'replica.unload': { actions: 'tellUnloaded' },
      },
    },
    loading: {
      description: 'The engine starts, or is attached to, and loads the model.',
      tags: ['loading'],
      entry: 'noteLoading',
      invoke: {
        id: 'load',
        src: 'loadEngine',
        onDone: {
          target: 'probing',
          actions: { type: 'keepProperties', params: ({ event }) => ({ properties: event.output }) },
        },
        onError: {
          target: 'failed',
          actions: { type: 'noteFailure', params: ({ event }) => ({ cause: event.error }) },
        },
      },
      on: { 'engine.waited': { actions: 'noteWaiting' } },
      after: {
        loadTimeout: {
          target: 'lost',
          actions: {
            type: 'noteFailure',
            params: ({ context }) => ({
              cause: `not loaded after ${context.load_timeout_ms} ms${context.last_error ? `: ${context.last_error.message}` : ''}`,
            }),
          },
        },
      },
    },
    probing: {
      description: 'Loaded; one health probe has to pass before a task may be placed.',
      tags: ['loading', 'live'],
      invoke: {
        id: 'probe',
        src: 'probeEngine',
        onDone: [
          { guard: { type: 'isReady', params: ({ event }) => ({ health: event.output }) }, target: 'ready' },
          {
            target: 'lost',
            actions: { type: 'noteFailure', params: () => ({ cause: 'the first health probe failed' }) },
          },
        ],
        onError: {
          target: 'lost',
          actions: { type: 'noteFailure', params: ({ event }) => ({ cause: event.error }) },
        },
      },
      on: { 'engine.lost': { target: 'lost', actions: { type: 'noteLoss', params: {} } } },
    },
    ready: {
      description: 'Decodes; its slots are granted to tasks, and it is probed from time to time.',
      tags: ['ready', 'live'],
      entry: ['noteReady', 'tellReady'],
      after: {
        stable: { actions: 'forgive' },
        trialStable: { guard: 'isTrial', actions: 'closeBreaker' },
      },
      type: 'parallel',
      on: {
        'engine.lost': [
          {
            guard: { type: 'isExit', params: ({ event }) => ({ loss: event.loss }) },
            target: 'unloading',
            actions: [{ type: 'noteLoss', params: {} }, 'tellLost'],
          },
          { target: 'lost', actions: [{ type: 'noteLoss', params: {} }, 'tellLost'] },
        ],
      },
      states: {
        health: {
          description: 'Whether it still works is looked at from time to time.',
          initial: 'serving',
          states: {
            serving: {
              description: 'Between two probes.',
              after: { probeInterval: 'checking' },
              on: { 'replica.suspect': 'proving' },
            },
            checking: {
              description: 'A health probe is under way; tasks go on.',
              invoke: {
                id: 'check',
                src: 'probeEngine',
                onDone: [
                  {
                    guard: { type: 'isReady', params: ({ event }) => ({ health: event.output }) },
                    target: 'serving',
                    actions: 'noteHealthy',
                  },
                  { guard: 'isOneFailureShort', target: 'serving', actions: 'countFailedProbe' },
                  {
                    target: '#replica.lost',
                    actions: [
                      {
                        type: 'noteLoss',
                        params: () => ({
                          loss: { cause: 'unreachable', message: 'failed its health probes' },
                        }),
                      },
                      'tellLost',
                    ],
                  },
                ],
                onError: { target: 'serving', actions: 'countFailedProbe' },
              },
              on: { 'replica.suspect': 'proving' },
            },
            proving: {
              description: 'It answers, but has it gone deaf? It is asked to decode one token.',
              invoke: {
                id: 'prove',
                src: 'proveEngine',
                onDone: [
                  {
                    guard: { type: 'decodes', params: ({ event }) => ({ decoded: event.output }) },
                    target: 'serving',
                    actions: 'noteHealthy',
                  },
                  {
                    target: '#replica.lost',
                    actions: [
                      {
                        type: 'noteLoss',
                        params: () => ({ loss: { cause: 'deaf', message: 'answers, but decodes no token' } }),
                      },
                      'tellLost',
                    ],
                  },
                ],
                onError: 'serving',
              },
            },
          },
        },
        intake: {
          description: 'Whether it is given runs.',
          initial: 'open',
          on: { 'run.taken': { actions: 'forgetRests' } },
          states: {
            open: {
              description: 'It is granted runs as long as it has free slots.',
              tags: ['open'],
              on: { 'run.declined': { target: 'resting', actions: 'planRest' } },
            },
            resting: {
              description:
                'Its engine works but would not take a run: for as long as it asks, or longer each time, it is given none.',
              after: { rest: { target: 'open', actions: 'tellRested' } },
            },
          },
        },
      },
    },
    lost: {
      description: 'The engine is gone without having been asked to; what is left of it is cleared away.',
      invoke: {
        id: 'clear',
        src: 'unloadEngine',
        onDone: 'failed',
        onError: 'failed',
      },
    },
    failed: {
      description: 'Decides between one more try and giving up, by the restart budget.',
      always: [
        { guard: 'mayRestart', target: 'backing off', actions: 'scheduleRestart' },
        { target: 'broken' },
      ],
    },
    'backing off': {
      description: 'Waits before the next try, longer each time.',
      tags: ['waiting'],
      after: { backoff: 'loading' },
    },
    broken: {
      description: 'The breaker is open: too many failures in a row, or restarts in too short a time.',
      tags: ['empty', 'waiting'],
      entry: ['openBreaker', 'tellBroken'],
      after: { breakerOpen: 'half open' },
    },
    'half open': {
      description: 'One trial may show whether it works again; the pool says when.',
      tags: ['empty'],
      entry: 'tellRecoverable',
      on: { 'replica.start': 'loading' },
    },
    unloading: {
      description: 'The engine lets go of its memory; the replica stays.',
      invoke: { id: 'unload', src: 'unloadEngine', onDone: 'unloaded', onError: 'unloaded' },
      on: { 'replica.unload': {} },
    },
    unloaded: {
      description: 'Tells its pool, and waits like one that never ran.',
      tags: ['empty'],
      entry: 'tellUnloaded',
      always: 'idle',
    },
    stopping: {
      description: 'The engine is unloaded, by force where it does not follow.',
      invoke: { id: 'stop', src: 'unloadEngine', onDone: 'stopped', onError: 'stopped' },
      on: { 'replica.stop': {}, 'replica.unload': {} },
    },
    stopped: {
      description: 'Nothing is left running.',
      type: 'final',
      entry: 'tellStopped',
    },
  },
});

export type ReplicaActor = ActorRefFrom<typeof replicaMachine>;
export type ReplicaSnapshot = SnapshotFrom<typeof replicaMachine>;

const UNLOADED: Record<UnloadCause, string> = {
  unload: 'unloaded on request',
  idle: 'unloaded because nobody used it',
  swap: 'unloaded to make room for another model',
  drain: 'unloaded because its pool was drained',
};

function waitFor(backoff_ms: number, now: number): { backoff_ms: number; loads_again_at: number } {
  return { backoff_ms, loads_again_at: now + backoff_ms };
}

/** Faults of the device come back with any process on it, so they have a breaker of their own. */
function isOfDevice({ cause }: EngineLoss): boolean {
  return cause === 'cuda' || cause === 'vram_oom';
}
