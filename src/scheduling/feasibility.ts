import { failure, type Failure } from '../errors.ts';
import { byId, list, type PlacementJob, type PlacementPool } from './candidates.ts';

/** Why no pool takes a task, for the log. */
export type RefusalReason =
  | 'NO_CAPACITY'
  | 'INSUFFICIENT_CTX'
  | 'EXTENSIONS_UNSATISFIED'
  | 'POOL_UNREADY'
  | 'pinned_pool_infeasible'
  | 'no_preferred_feasible';

interface Filter {
  readonly name: string;
  readonly reason: RefusalReason;
  fits(pool: PlacementPool, job: PlacementJob): boolean;
  /** In the words of the field that asked for it. `pools` are those that passed every filter before. */
  refuse(pools: readonly PlacementPool[], job: PlacementJob): Failure;
}

/** Which pools have the model at all. */
const IDENTITY: readonly Filter[] = [
  {
    name: 'engine',
    reason: 'NO_CAPACITY',
    fits: (pool, { engine }) => pool.engine === engine,
    refuse: (pools, { engine }) =>
      never(`engine: no pool runs "${engine}"; this server has ${list(pools.map((pool) => pool.engine))}`),
  },
  {
    name: 'model',
    reason: 'NO_CAPACITY',
    fits: (pool, { model_ref }) => pool.model === model_ref,
    refuse: (pools, { engine, model_ref }) =>
      never(
        `model_ref: no ${engine} pool serves "${model_ref}"; this server has ${list(pools.map((pool) => pool.model))}`,
      ),
  },
];

/** What depends on the configuration and the model alone, and can be told before anything else is looked at. */
const SHAPE: readonly Filter[] = [
  ...IDENTITY,
  {
    name: 'workload',
    reason: 'EXTENSIONS_UNSATISFIED',
    fits: (pool, { workload }) => pool.workloads?.includes(workload) ?? true,
    refuse: (pools, { workload }) =>
      invalid(
        `workload: "${workload}" is not supported here; ${list(pools.flatMap((pool) => pool.workloads ?? []))} is`,
      ),
  },
  {
    name: 'ctx',
    reason: 'INSUFFICIENT_CTX',
    fits: (pool, { ctx }) => ctx <= (pool.ctx_max ?? Infinity),
    refuse: (pools, { ctx }) =>
      invalid(`ctx: must be at most ${widest(pools)} tokens for this model, got ${ctx}`),
  },
  {
    name: 'max_tokens',
    reason: 'NO_CAPACITY',
    fits: (pool, { max_tokens }) => max_tokens <= (pool.max_tokens_out ?? Infinity),
    refuse: (pools, { max_tokens }) =>
      invalid(`max_tokens: must be at most ${longest(pools)} for this model, got ${max_tokens}`),
  },
];

const ALL: readonly Filter[] = [
  ...SHAPE,
  {
    name: 'sampler_profile_version',
    reason: 'EXTENSIONS_UNSATISFIED',
    fits: (pool, { sampler_profile_version: wanted }) =>
      wanted === undefined || pool.sampler_profile_version === wanted,
    refuse: (pools, { sampler_profile_version }) =>
      invalid(
        `sampler_profile_version: no pool of this model has "${sampler_profile_version ?? ''}"; there is ${list(pools.map((pool) => pool.sampler_profile_version))}`,
      ),
  },
  {
    name: 'chat',
    reason: 'EXTENSIONS_UNSATISFIED',
    fits: ({ features }, { messages }) => messages === undefined || features?.chat !== 'none',
    refuse: () => invalid('messages: this model has no chat template; use prompt'),
  },
  {
    name: 'grammar',
    reason: 'EXTENSIONS_UNSATISFIED',
    fits: ({ features }, { sampling }) => sampling?.grammar === undefined || features?.grammar !== false,
    refuse: () => invalid('sampling.grammar: this engine cannot hold its output to a grammar; leave it out'),
  },
  {
    name: 'json_schema',
    reason: 'EXTENSIONS_UNSATISFIED',
    fits: ({ features }, { sampling }) =>
      sampling?.json_schema === undefined || features?.json_schema !== false,
    refuse: () =>
      invalid('sampling.json_schema: this engine cannot hold its output to a schema; leave it out'),
  },
  {
    name: 'determinism',
    reason: 'EXTENSIONS_UNSATISFIED',
    // Vectors and rankings do not depend on chance.
    fits: ({ features }, { determinism, workload }) =>
      determinism !== 'strict' ||
      workload !== 'completion' ||
      features?.deterministic !== false ||
      features.deterministic_cold === true,
    refuse: () =>
      invalid(
        'determinism: this engine does not promise the same output for the same request; use "best_effort" or leave it out',
      ),
  },
  {
    name: 'require_device_mask',
    reason: 'NO_CAPACITY',
    fits: ({ device_mask }, { placement }) =>
      placement?.require_device_mask === undefined || device_mask === placement.require_device_mask,
    refuse: (pools, { placement }) =>
      never(
        `placement.require_device_mask: no pool of this model has exactly "${placement?.require_device_mask ?? ''}"; there is ${list(pools.flatMap(({ device_mask }) => (device_mask === undefined ? [] : [device_mask])))}`,
      ),
  },
  {
    name: 'avoid_pools',
    reason: 'NO_CAPACITY',
    fits: ({ id }, { placement }) => !placement?.avoid_pools?.includes(id),
    refuse: (pools) =>
      never(
        `placement.avoid_pools: leaves no pool for this task; only ${list(pools.map(({ id }) => id))} could run it`,
      ),
  },
  {
    name: 'memory',
    reason: 'NO_CAPACITY',
    fits: ({ memory_free_bytes }, { memory_bytes }) =>
      memory_bytes === undefined || memory_bytes <= (memory_free_bytes ?? Infinity),
    refuse: (pools, { memory_bytes = 0 }) =>
      failure(
        'POOL_UNAVAILABLE',
        `ctx: needs ${memory_bytes} bytes of memory, and at most ${most(pools.map((pool) => pool.memory_free_bytes))} are free`,
        // More than a pool has in all is never free.
        { retriable: memory_bytes <= most(pools.map((pool) => pool.memory_total_bytes)) },
      ),
  },
  {
    name: 'ready',
    reason: 'POOL_UNREADY',
    fits: ({ refusal }) => refusal === undefined,
    refuse: (pools) => byId(pools).find(({ refusal }) => refusal !== undefined)?.refusal as Failure,
  },
];

export interface Feasibility {
  /** Those that can take the task now. */
  feasible: readonly PlacementPool[];
  /** Filters that removed at least one pool, in the order in which they looked. */
  filters_applied: string[];
  /** Why none is left. */
  refusal: { failure: Failure; reason: RefusalReason } | undefined;
}

/** The pools that can take a task now, or the first demand of it that none of them meets. */
export function feasibleOf(pools: readonly PlacementPool[], job: PlacementJob): Feasibility {
  return sieve(pools, job, ALL);
}

export interface Limits {
  /** Pool of this model to ask for the tokens of a text; undefined where none serves the model. */
  pool_id: string | undefined;
  /** Why no pool could ever take the task, whatever else runs: engine, model, workload, ctx or max_tokens. */
  failure: Failure | undefined;
  /** The same for the log. */
  reason: RefusalReason | undefined;
}

/** What the pools of a task's engine and model allow; looks at nothing that changes with load. */
export function limitsOf(pools: readonly PlacementPool[], job: PlacementJob): Limits {
  const { refusal } = sieve(pools, job, SHAPE);
  const counters = byId(sieve(pools, job, IDENTITY).feasible);
  return {
    pool_id: (
      counters.find((pool) => pool.features?.tokenizer) ??
      counters.find((pool) => pool.refusal === undefined) ??
      counters[0]
    )?.id,
    failure: refusal?.failure,
    reason: refusal?.reason,
  };
}

function sieve(pools: readonly PlacementPool[], job: PlacementJob, filters: readonly Filter[]): Feasibility {
  let feasible = pools;
  const filters_applied: string[] = [];
  for (const filter of filters) {
    // The common case, without a list.
    if (feasible.length > 0 && feasible.every((pool) => filter.fits(pool, job))) continue;
    const fitting = feasible.filter((pool) => filter.fits(pool, job));
    if (fitting.length < feasible.length) filters_applied.push(filter.name);
    if (fitting.length === 0)
      return {
        feasible: [],
        filters_applied,
        refusal: { failure: filter.refuse(feasible, job), reason: filter.reason },
      };
    feasible = fitting;
  }
  return { feasible, filters_applied, refusal: undefined };
}

function invalid(message: string): Failure {
  return failure('INVALID_PARAMS', message);
}

/** Not before somebody changes the configuration. */
function never(message: string): Failure {
  return failure('POOL_UNAVAILABLE', message, { retriable: false });
}

function widest(pools: readonly PlacementPool[]): number {
  return most(pools.map(({ ctx_max }) => ctx_max));
}

function longest(pools: readonly PlacementPool[]): number {
  return most(pools.map(({ max_tokens_out }) => max_tokens_out));
}

/** What is not known may be anything. */
function most(amounts: readonly (number | undefined)[]): number {
  return Math.max(...amounts.map((amount) => amount ?? Infinity));
}
