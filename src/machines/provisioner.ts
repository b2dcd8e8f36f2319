import { assign, emit, fromPromise, setup } from 'xstate';
import { toFailure, type Failure } from '../errors.ts';

/** Where a model is and whether it has to be brought here first. */
export interface ResolvedModel {
  id: string;
  path: string;
  present: boolean;
  /** `sha256:<hex>` the file must have, where one was given. */
  digest?: string;
  /** The version of it that the reference means now: a commit, a manifest's digest or an ETag. */
  revision?: string;
  size_bytes?: number;
}

/** How far the provisioning of a model is. */
export interface ModelProgress {
  /** `waiting` is for another process that fetches the same model. */
  phase: 'waiting' | 'fetching' | 'verifying';
  bytes_done: number;
  /** Left out where nobody has told. */
  bytes_total: number | undefined;
}

/** How far the provisioning of an engine is. */
export interface EngineProgress {
  /** `waiting` is for another process that brings the same engine here; after `prepared` nothing more is told. */
  phase:
    | 'waiting'
    | 'cloning'
    | 'configuring'
    | 'building'
    | 'pulling'
    | 'downloading'
    | 'unpacking'
    | 'installing'
    | 'prepared';
  /** 0 to 1, where it can be told. */
  fraction?: number;
  /** What somebody should know of it, in words. */
  note?: string;
}

/** A model file that is here and was checked. */
export interface PreparedModel {
  id: string;
  path: string;
  size_bytes: number;
  /** Tokens the model was trained for, where the file says so. */
  context_length?: number;
  /** What one token of context takes in the KV cache, in bytes, where the file says enough. */
  kv_bytes_per_token?: number;
  digest?: string;
  revision?: string;
  verification: 'pass' | 'warn';
}

export interface ProvisionerInput {
  model_ref: string;
  /** Whether the engine has to be brought here as well. */
  needs_engine: boolean;
}

export interface ProvisionerContext extends ProvisionerInput {
  resolved: ResolvedModel | undefined;
  prepared: PreparedModel | undefined;
  failure: Failure | undefined;
}

export type ProvisionerEvent = { type: 'provisioner.cancel' };
export const PROVISIONER_EVENTS = [
  'provisioner.cancel',
] as const satisfies readonly ProvisionerEvent['type'][];

export type ProvisionerFact =
  { type: 'model.prepared'; model: PreparedModel } | { type: 'model.failed'; failure: Failure };

const notProvided = (name: string): never => {
  throw new Error(`${name} is provided by the provisioner actor`);
};

export const provisionerMachine = setup({
  types: {
    context: {} as ProvisionerContext,
    events: {} as ProvisionerEvent,
    input: {} as ProvisionerInput,
    emitted: {} as ProvisionerFact,
  },
  actors: {
    ensureEngine: fromPromise<void>(() => notProvided('ensureEngine')),
    resolveModel: fromPromise<ResolvedModel, { model_ref: string }>(() => notProvided('resolveModel')),
    fetchModel: fromPromise<ResolvedModel, { model: ResolvedModel }>(() => notProvided('fetchModel')),
    verifyModel: fromPromise<PreparedModel, { model: ResolvedModel }>(() => notProvided('verifyModel')),
  },
  guards: {
    needsEngine: ({ context }) => context.needs_engine,
    isPresent: ({ context }) => context.resolved?.present === true,
  },
  actions: {
    keepResolved: assign({ resolved: (_, params: { model: ResolvedModel }) => params.model }),
    keepPrepared: assign({ prepared: (_, params: { model: PreparedModel }) => params.model }),
    noteFailure: assign({
      failure: (_, params: { cause: unknown }) => toFailure(params.cause, 'POOL_UNAVAILABLE'),
    }),
    tellPrepared: emit(({ context }) => ({
      type: 'model.prepared',
      model: context.prepared as PreparedModel,
    })),
    tellFailed: emit(({ context }) => ({ type: 'model.failed', failure: context.failure as Failure })),
    noteCanceled: assign({
      failure: () => toFailure(new Error('provisioning was canceled'), 'POOL_UNAVAILABLE'),
    }),
  },
}).createMachine({
  id: 'provisioner',
  context: ({ input }) => ({ ...input, resolved: undefined, prepared: undefined, failure: undefined }),
  initial: 'beginning',
  on: { 'provisioner.cancel': { target: '.failed', actions: 'noteCanceled' } },
  states: {
    beginning: {
      description: 'An engine that is part of this package, or runs somewhere, needs nothing.',
      always: [{ guard: 'needsEngine', target: 'equipping' }, { target: 'resolving' }],
    },
    equipping: {
      description:
        'Builds the engine or fetches it, unless it is here: before the model, so that a tool that is missing is told early.',
      invoke: {
        id: 'ensure',
        src: 'ensureEngine',
        onDone: 'resolving',
        onError: {
          target: 'failed',
          actions: { type: 'noteFailure', params: ({ event }) => ({ cause: event.error }) },
        },
      },
    },
    resolving: {
      description: 'Finds what the model reference names, and whether it is on this machine.',
      invoke: {
        id: 'resolve',
        src: 'resolveModel',
        input: ({ context }) => ({ model_ref: context.model_ref }),
        onDone: {
          target: 'locating',
          actions: { type: 'keepResolved', params: ({ event }) => ({ model: event.output }) },
        },
        onError: {
          target: 'failed',
          actions: { type: 'noteFailure', params: ({ event }) => ({ cause: event.error }) },
        },
      },
    },
    locating: {
      description: 'A model that is here is not fetched again.',
      always: [{ guard: 'isPresent', target: 'verifying' }, { target: 'fetching' }],
    },
    fetching: {
      description: 'Brings the model to this machine.',
      invoke: {
        id: 'fetch',
        src: 'fetchModel',
        input: ({ context }) => ({ model: context.resolved as ResolvedModel }),
        onDone: {
          target: 'verifying',
          actions: { type: 'keepResolved', params: ({ event }) => ({ model: event.output }) },
        },
        onError: {
          target: 'failed',
          actions: { type: 'noteFailure', params: ({ event }) => ({ cause: event.error }) },
        },
      },
    },
    verifying: {
      description: 'Checks that the file is a model, and the digest where one was given.',
      invoke: {
        id: 'verify',
        src: 'verifyModel',
        input: ({ context }) => ({ model: context.resolved as ResolvedModel }),
        onDone: {
          target: 'prepared',
          actions: { type: 'keepPrepared', params: ({ event }) => ({ model: event.output }) },
        },
        onError: {
          target: 'failed',
          actions: { type: 'noteFailure', params: ({ event }) => ({ cause: event.error }) },
        },
      },
    },
    prepared: {
      description: 'The model is ready to be loaded; the pool has been told.',
      type: 'final',
      entry: 'tellPrepared',
    },
    failed: {
      description: 'The engine or the model cannot be had; the pool has been told why.',
      type: 'final',
      entry: 'tellFailed',
    },
  },
});
