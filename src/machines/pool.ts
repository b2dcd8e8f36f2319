import { assign, emit, enqueueActions, setup, type ActorRefFrom, type SnapshotFrom } from 'xstate';
import type { EngineLoss } from '../engines/engine.ts';
import {
  FAULTS,
  reloadFailed,
  TOO_BUSY,
  unreadyFailure,
  type PoolContext,
  type PoolEvent,
  type PoolFact,
  type PoolInput,
} from './pool-protocol.ts';

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
    emptyDeadline: ({ context }) => context.empty_ms,
  },
  guards: {
    isLastReady: ({ context }) => context.replicas_ready <= 1,
    isLastToExit: ({ context }, params: { loss: EngineLoss }) =>
      context.replicas_ready <= 1 && params.loss.cause === 'exit',
    isLastHope: ({ context }) => context.replicas_broken + 1 >= context.replicas,
    hasReady: ({ context }) => context.replicas_ready > 0,
    hasNoLease: ({ context }) => context.leases <= 0,
    isKeeping: ({ context }) => context.keeps,
    isModelRetriable: ({ context }) => context.fault === 'model' && context.last_error?.retriable === true,
    isRetriable: ({ context }) => context.last_error?.retriable === true,
    comesBack: ({ context }) => context.comes_back,
    finishesQueue: ({ context }) => context.finishes_queue && context.replicas_ready > 0,
  },
  actions: {
    prepareModel: emit({ type: 'model.prepare', which: 'current' }),
    prepareNext: emit({ type: 'model.prepare', which: 'next' }),
    adoptNext: emit({ type: 'model.adopt' }),
    restorePrevious: emit({ type: 'model.restore' }),
    requestMemory: emit({ type: 'memory.request' }),
    startReplicas: emit({ type: 'replicas.start' }),
    unloadReplicas: emit(({ context }) => ({ type: 'replicas.unload', cause: context.unload_cause })),
    stopReplicas: emit({ type: 'replicas.stop' }),
    revokeLeases: emit({ type: 'leases.revoke' }),
    endLeases: emit(({ context }) => ({ type: context.keeps ? 'leases.suspend' : 'leases.revoke' })),
    dispatch: emit({ type: 'queue.dispatch' }),
    refuseQueue: emit(({ context }) => ({ type: 'queue.refuse', failure: unreadyFailure(context) })),
    tellReloaded: emit({ type: 'reload.settled' }),
    tellReloadFailed: emit(({ context }, { why }: { why?: string }) => reloadFailed(context, why)),
    countReady: assign({
      replicas_ready: ({ context }) => Math.min(context.replicas, context.replicas_ready + 1),
      failures: 0,
    }),
    countLost: assign({ replicas_ready: ({ context }) => Math.max(0, context.replicas_ready - 1) }),
    countBroken: assign({ replicas_broken: ({ context }) => context.replicas_broken + 1 }),
    forgetReplicas: assign({ replicas_ready: 0, replicas_broken: 0 }),
    countRecovered: assign({ replicas_broken: ({ context }) => Math.max(0, context.replicas_broken - 1) }),
    countReplicas: assign(({ event }) =>
      event.type === 'replicas.changed' ? { replicas: event.replicas } : {},
    ),
    countGranted: assign({ leases: ({ context }) => context.leases + 1 }),
    countClosed: assign({ leases: ({ context }) => Math.max(0, context.leases - 1) }),
    forgetError: assign({ last_error: undefined, fault: undefined }),
    noteFailure: assign(({ context, event }) =>
      'failure' in event
        ? {
            last_error: event.failure,
            failures: context.failures + 1,
            fault: FAULTS[event.type],
          }
        : {},
    ),
    noteUnload: assign(({ event }) => (event.type === 'pool.unload' ? { unload_cause: event.cause } : {})),
    noteDrain: assign(({ event }) =>
      event.type === 'pool.drain'
        ? { empty_ms: event.deadline_ms, keeps: false, comes_back: false, unload_cause: 'drain' as const }
        : {},
    ),
    noteReload: assign(({ event }) =>
      event.type === 'pool.reload'
        ? {
            empty_ms: event.deadline_ms,
            finishes_queue: event.finishes_queue,
            unload_cause: 'unload' as const,
          }
        : {},
    ),
    noteComeback: assign({ comes_back: true }),
    noteClose: assign(({ event }) =>
      event.type === 'pool.close' ? { empty_ms: event.deadline_ms, keeps: event.unfinished === 'keep' } : {},
    ),
  },
}).createMachine({
  id: 'pool',
  context: ({ input }) => ({
    id: input?.id ?? '',
    retry: input?.retry ?? { initial_ms: 1000, factor: 2, max_ms: 60_000 },
    replicas: input?.replicas ?? 1,
    replicas_ready: 0,
    replicas_broken: 0,
    failures: 0,
    last_error: undefined,
    fault: undefined,
    leases: 0,
    empty_ms: 0,
    keeps: false,
    finishes_queue: false,
    comes_back: false,
    unload_cause: 'unload',
  }),
  initial: 'cold',
  on: {
    'lease.granted': { actions: 'countGranted' },
    'lease.closed': { actions: ['countClosed', 'dispatch'] },
    'replicas.changed': { actions: 'countReplicas' },
    'replica.readied': { actions: 'countReady' },
    'replica.lost': { actions: 'countLost' },
    'replica.broken': { actions: 'countBroken' },
    'replica.recoverable': { actions: 'countRecovered' },
    'replica.rested': { actions: 'dispatch' },
    'pool.drain': { target: '.draining', actions: 'noteDrain' },
    'pool.close': { target: '.closing', actions: 'noteClose' },
  },
  states: {
    cold: {
      description: 'Nothing is loaded, because nothing asks for it now.',
      tags: ['accepting'],
      entry: 'dispatch',
      on: {
        'pool.ensure': 'preparing',
        'pool.reload': { target: 'reloading', actions: 'noteReload' },
        'replica.readied': { target: 'ready', actions: ['countReady', 'forgetError'] },
      },
    },
    preparing: {
      description: 'The provisioner resolves, fetches and verifies the model.',
      tags: ['accepting', 'provisioning'],
      entry: ['prepareModel', 'dispatch'],
      on: {
        'model.prepared': 'waiting',
        'model.failed': { target: 'unready', actions: 'noteFailure' },
      },
    },
    waiting: {
      description: 'The model is on this machine; the planner says when there is memory to load it.',
      tags: ['accepting', 'provisioning', 'wants memory'],
      entry: ['requestMemory', 'dispatch'],
      on: {
        'memory.granted': 'starting',
        'memory.refused': { target: 'unready', actions: 'noteFailure' },
      },
    },
    starting: {
      description: 'Replicas load the model, and the first to pass its probe makes the pool ready.',
      tags: ['accepting', 'provisioning', 'loading'],
      entry: ['startReplicas', 'dispatch'],
      always: { guard: 'hasReady', target: 'ready', actions: 'forgetError' },
      on: {
        'replica.readied': { target: 'ready', actions: ['countReady', 'forgetError'] },
        'replica.broken': [
          { guard: 'isLastHope', target: 'unready', actions: ['countBroken', 'noteFailure'] },
          { actions: 'countBroken' },
        ],
        'replica.recoverable': { actions: ['countRecovered', 'startReplicas'] },
      },
    },
    ready: {
      description: 'At least one replica decodes; tasks are granted slots.',
      tags: ['accepting', 'ready'],
      entry: 'dispatch',
      on: {
        'replica.readied': { actions: ['countReady', 'dispatch'] },
        'replica.lost': [
          {
            guard: { type: 'isLastToExit', params: ({ event }) => ({ loss: event.loss }) },
            target: 'cold',
            actions: 'countLost',
          },
          { guard: 'isLastReady', target: 'starting', actions: 'countLost' },
          { actions: 'countLost' },
        ],
        'replica.recoverable': { actions: ['countRecovered', 'startReplicas'] },
        'pool.unload': { target: 'unloading', actions: 'noteUnload' },
        'pool.reload': { target: 'reloading', actions: 'noteReload' },
      },
    },
    unloading: {
      description:
        'It gives its memory back: no new leases, and what waits does so until it is loaded again.',
      tags: ['accepting', 'provisioning'],
      initial: 'emptying',
      states: {
        emptying: {
          description: 'What runs may finish.',
          always: { guard: 'hasNoLease', target: 'freeing' },
        },
        freeing: {
          description: 'Replicas unload their engines.',
          entry: 'unloadReplicas',
          on: { 'replicas.unloaded': { target: '#pool.cold', actions: 'forgetReplicas' } },
        },
      },
    },
    unready: {
      description:
        'It could not be brought up: what waited was told why, new work is refused with the cause.',
      tags: ['turns away'],
      entry: 'refuseQueue',
      after: { retryBackoff: { guard: 'isModelRetriable', target: 'preparing' } },
      on: {
        'pool.ensure': { guard: 'isRetriable', target: 'preparing' },
        'pool.reload': { target: 'reloading', actions: ['noteReload', 'forgetReplicas'] },
        'replica.recoverable': { target: 'preparing', actions: 'countRecovered' },
        'replica.readied': { target: 'ready', actions: ['countReady', 'forgetError'] },
      },
    },
    reloading: {
      description: 'It is given another model; where that fails, the one it had is back.',
      initial: 'staging',
      states: {
        staging: {
          description: 'The new model is brought here and checked, while the old one goes on.',
          tags: ['accepting', 'ready'],
          entry: ['prepareNext', 'dispatch'],
          on: {
            'replica.readied': { actions: ['countReady', 'dispatch'] },
            'replica.recoverable': { actions: ['countRecovered', 'startReplicas'] },
            'model.prepared': [
              { guard: 'finishesQueue', target: 'emptying.queue' },
              { target: 'emptying.slots' },
            ],
            'model.failed': [
              {
                guard: 'hasReady',
                target: '#pool.ready',
                actions: ['noteFailure', { type: 'tellReloadFailed', params: {} }, 'forgetError'],
              },
              {
                target: '#pool.unready',
                actions: ['noteFailure', { type: 'tellReloadFailed', params: {} }],
              },
            ],
          },
        },
        emptying: {
          description: 'The old model finishes its work; where it is not done in time, it stays.',
          after: {
            emptyDeadline: [
              {
                guard: 'hasReady',
                target: '#pool.ready',
                actions: { type: 'tellReloadFailed', params: { why: TOO_BUSY } },
              },
              {
                target: '#pool.starting',
                actions: { type: 'tellReloadFailed', params: { why: TOO_BUSY } },
              },
            ],
          },
          initial: 'slots',
          states: {
            queue: {
              description: 'What was accepted for the old model still gets it; new work is refused.',
              tags: ['ready', 'finishing queue'],
              entry: 'dispatch',
              on: { 'queue.emptied': 'slots' },
            },
            slots: {
              description: 'What runs may finish.',
              tags: ['accepting', 'provisioning'],
              always: { guard: 'hasNoLease', target: '#pool.reloading.unloading' },
            },
          },
        },
        unloading: {
          description: 'Replicas unload the old model.',
          tags: ['accepting', 'provisioning'],
          entry: 'unloadReplicas',
          on: { 'replicas.unloaded': { target: 'waiting', actions: ['forgetReplicas', 'adoptNext'] } },
        },
        waiting: {
          description: 'The planner says when there is memory to load the new model.',
          tags: ['accepting', 'provisioning', 'wants memory'],
          entry: 'requestMemory',
          on: {
            'memory.granted': 'starting',
            'memory.refused': { target: 'restoring', actions: ['noteFailure', 'restorePrevious'] },
          },
        },
        starting: {
          description: 'Replicas load the new model.',
          tags: ['accepting', 'provisioning', 'loading'],
          entry: 'startReplicas',
          on: {
            'replica.readied': {
              target: '#pool.ready',
              actions: ['countReady', 'forgetError', 'tellReloaded'],
            },
            'replica.broken': [
              { guard: 'isLastHope', target: 'clearing', actions: ['countBroken', 'noteFailure'] },
              { actions: 'countBroken' },
            ],
          },
        },
        clearing: {
          description: 'The new model does not work: what is left of its engines is cleared away.',
          tags: ['accepting', 'provisioning'],
          entry: 'unloadReplicas',
          on: {
            'replicas.unloaded': { target: 'restoring', actions: ['forgetReplicas', 'restorePrevious'] },
          },
        },
        restoring: {
          description: 'Replicas load the old model again.',
          tags: ['accepting', 'provisioning', 'wants memory'],
          entry: ['requestMemory', { type: 'tellReloadFailed', params: {} }],
          on: {
            'memory.granted': '#pool.starting',
            'memory.refused': { target: '#pool.unready', actions: 'noteFailure' },
          },
        },
      },
    },
    draining: {
      description: 'An operator lets it run empty: no new work, and what runs may finish until the deadline.',
      tags: ['draining', 'turns away'],
      initial: 'emptying',
      entry: 'refuseQueue',
      on: {
        'lease.closed': { actions: 'countClosed' },
        'pool.drain': { target: 'draining', reenter: true, actions: 'noteDrain' },
        'pool.restore': { actions: 'noteComeback' },
      },
      states: {
        emptying: {
          description: 'What runs may finish until the deadline, then its leases end.',
          after: { emptyDeadline: { target: 'freeing', actions: 'revokeLeases' } },
          always: { guard: 'hasNoLease', target: 'freeing' },
        },
        freeing: {
          description: 'Replicas unload their engines.',
          entry: 'unloadReplicas',
          on: {
            'replicas.unloaded': [
              { guard: 'comesBack', target: '#pool.cold', actions: 'forgetReplicas' },
              { target: '#pool.drained', actions: 'forgetReplicas' },
            ],
            'pool.drain': {},
          },
        },
      },
    },
    drained: {
      description: 'Empty and unloaded, and takes no work until an operator wants it back.',
      tags: ['draining', 'turns away'],
      on: {
        'pool.restore': 'cold',
        'pool.reload': { target: 'reloading', actions: 'noteReload' },
        'pool.drain': {},
      },
    },
    closing: {
      description:
        'The process stops: no new work; what runs may finish until the deadline, then its leases end.',
      tags: ['draining', 'turns away'],
      initial: 'emptying',
      entry: enqueueActions(({ enqueue, check }) => {
        if (!check('isKeeping')) enqueue('refuseQueue');
      }),
      on: {
        'lease.closed': { actions: 'countClosed' },
        'pool.drain': {},
        'pool.close': { target: 'closing', reenter: true, actions: 'noteClose' },
      },
      states: {
        emptying: {
          description: 'What runs may finish.',
          after: { emptyDeadline: { target: 'stopping', actions: 'endLeases' } },
          always: { guard: 'hasNoLease', target: 'stopping' },
        },
        stopping: {
          description: 'Replicas unload their engines, for good.',
          entry: 'stopReplicas',
          on: { 'replicas.stopped': '#pool.stopped', 'pool.close': {} },
        },
      },
    },
    stopped: {
      description: 'Everything this pool held has been given back.',
      type: 'final',
    },
  },
});

export type PoolActor = ActorRefFrom<typeof poolMachine>;
export type PoolSnapshot = SnapshotFrom<typeof poolMachine>;
