import { assign, emit, fromPromise, setup, type ActorRefFrom, type SnapshotFrom } from 'xstate';
import type { EngineHealth, EngineLoss, EngineProperties } from '../engines/engine.ts';
import { toFailure, type Failure } from '../errors.ts';
import { restartDelay, type RestartRule } from './restart-policy.ts';

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

export interface ReplicaContext extends ReplicaInput {
  properties: EngineProperties | undefined;
  last_error: Failure | undefined;
  /** How the last run of the engine ended; causes are kept apart because each has its own remedy. */
  exit: EngineLoss | undefined;
  /** Restarts since the engine was last stable. */
  restarts: number;
  /** Monotonic milliseconds at which it became ready last. */
  ready_at: number | undefined;
  failed_probes: number;
  backoff_ms: number;
}

export type ReplicaEvent =
  | { type: 'replica.start' }
  | { type: 'replica.stop' }
  | { type: 'engine.waited'; why: string }
  | { type: 'engine.lost'; loss: EngineLoss };

export const REPLICA_EVENTS = [
  'replica.start',
  'replica.stop',
  'engine.waited',
  'engine.lost',
] as const satisfies readonly ReplicaEvent['type'][];

/** What a replica tells its pool. */
export type ReplicaFact =
  | { type: 'replica.readied'; properties: EngineProperties }
  | { type: 'replica.lost'; loss: EngineLoss }
  | { type: 'replica.broken'; failure: Failure }
  | { type: 'replica.stopped' };

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
    unloadEngine: fromPromise<void>(() => notProvided('unloadEngine')),
  },
  delays: {
    loadTimeout: ({ context }) => context.load_timeout_ms,
    probeInterval: ({ context }) => context.probe_interval_ms,
    backoff: ({ context }) => context.backoff_ms,
  },
  guards: {
    isReady: (_, params: { health: EngineHealth }) => params.health.ready,
    isOneFailureShort: ({ context }) => context.failed_probes + 1 < context.probe_fail,
    mayRestart: ({ context }) => restartDelay(context.restart, context.restarts, 0.5) !== undefined,
  },
  actions: {
    keepProperties: assign({
      properties: (_, params: { properties: EngineProperties }) => params.properties,
      failed_probes: 0,
    }),
    noteFailure: assign({
      last_error: (_, params: { cause: unknown }) => toFailure(params.cause, 'POOL_UNAVAILABLE'),
    }),
    noteLoss: assign(({ context, event }, params: { loss?: EngineLoss }) => {
      const loss = params.loss ?? (event.type === 'engine.lost' ? event.loss : undefined);
      return loss
        ? {
            exit: loss,
            last_error: toFailure(new Error(`engine of ${context.id}: ${loss.message}`), 'WORKER_RESET'),
          }
        : {};
    }),
    noteWaiting: assign(({ event }) =>
      event.type === 'engine.waited'
        ? { last_error: toFailure(new Error(event.why), 'POOL_UNAVAILABLE') }
        : {},
    ),
    countFailedProbe: assign({ failed_probes: ({ context }) => context.failed_probes + 1 }),
    forgetFailedProbes: assign({ failed_probes: 0 }),
    scheduleRestart: assign(({ context }) => ({
      backoff_ms: restartDelay(context.restart, context.restarts, context.random()) ?? 0,
      restarts: context.restarts + 1,
    })),
    noteReady: assign({ ready_at: ({ context }) => context.now() }),
    forgiveIfStable: assign(({ context }) =>
      context.ready_at !== undefined && context.now() - context.ready_at >= context.restart.stable_ms
        ? { restarts: 0, ready_at: undefined }
        : { ready_at: undefined },
    ),
    forgetRestarts: assign({ restarts: 0 }),
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
      failure: context.last_error ?? toFailure(new Error('restart budget spent'), 'REPLICA_EXHAUSTED'),
    })),
    tellStopped: emit({ type: 'replica.stopped' }),
  },
}).createMachine({
  id: 'replica',
  context: ({ input }) => ({
    ...input,
    properties: undefined,
    last_error: undefined,
    exit: undefined,
    restarts: 0,
    ready_at: undefined,
    failed_probes: 0,
    backoff_ms: 0,
  }),
  initial: 'idle',
  on: { 'replica.stop': '.stopping' },
  states: {
    idle: {
      description: 'No engine; waits for its pool to ask for one.',
      on: { 'replica.start': 'loading' },
    },
    loading: {
      description: 'The engine starts, or is attached to, and loads the model.',
      tags: ['loading'],
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
          target: 'failed',
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
            target: 'failed',
            actions: { type: 'noteFailure', params: () => ({ cause: 'the first health probe failed' }) },
          },
        ],
        onError: {
          target: 'failed',
          actions: { type: 'noteFailure', params: ({ event }) => ({ cause: event.error }) },
        },
      },
      on: { 'engine.lost': { target: 'lost', actions: { type: 'noteLoss', params: {} } } },
    },
    ready: {
      description: 'Decodes; its slots are granted to tasks, and it is probed from time to time.',
      tags: ['ready', 'live'],
      entry: ['noteReady', 'tellReady'],
      exit: 'forgiveIfStable',
      initial: 'serving',
      on: { 'engine.lost': { target: 'lost', actions: [{ type: 'noteLoss', params: {} }, 'tellLost'] } },
      states: {
        serving: {
          description: 'Between two probes.',
          after: { probeInterval: 'checking' },
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
                actions: 'forgetFailedProbes',
              },
              { guard: 'isOneFailureShort', target: 'serving', actions: 'countFailedProbe' },
              {
                target: '#replica.lost',
                actions: [
                  {
                    type: 'noteLoss',
                    params: () => ({ loss: { cause: 'unreachable', message: 'failed its health probes' } }),
                  },
                  'tellLost',
                ],
              },
            ],
            onError: { target: 'serving', actions: 'countFailedProbe' },
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
      after: { backoff: 'loading' },
    },
    broken: {
      description: 'The restart budget is spent; only its pool can ask for another try.',
      entry: 'tellBroken',
      on: { 'replica.start': { target: 'loading', actions: 'forgetRestarts' } },
    },
    stopping: {
      description: 'The engine is unloaded, by force where it does not follow.',
      invoke: { id: 'unload', src: 'unloadEngine', onDone: 'stopped', onError: 'stopped' },
      on: { 'replica.stop': {} },
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
