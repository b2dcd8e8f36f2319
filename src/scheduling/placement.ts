import { failure, type Failure } from '../errors.ts';
import type { EngineFamily } from '../engines/engine.ts';

export interface PlacementPool {
  id: string;
  engine: EngineFamily;
  /** The model reference the pool was configured with. */
  model: string;
  /** Tokens one slot holds; undefined until an engine has told. */
  ctx_max: number | undefined;
  max_tokens_out: number | undefined;
  workloads: readonly string[];
  /** Why an unready or draining pool takes no new work. */
  refusal: Failure | undefined;
  predicted_start_ms: number;
  waiting: number;
}

export interface PlacementJob {
  engine: string;
  model_ref: string;
  workload: string;
  ctx: number;
  max_tokens: number;
  placement?: {
    mode?: 'pin' | 'prefer' | 'auto' | undefined;
    pin_pool_id?: string | undefined;
    prefer_pools?: readonly string[] | undefined;
    avoid_pools?: readonly string[] | undefined;
    allow_fallback?: boolean | undefined;
  };
}

export type PlacementDecision =
  | { kind: 'assigned'; pool_id: string; considered: number; pinned: boolean; fallback_used: boolean }
  | { kind: 'refused'; failure: Failure; considered: number; pinned: boolean };

/**
 * Which pool a task goes to. Pure and total; ties end at the lexicographically first id, so the same input
 * picks the same pool, also after a restart.
 */
export function place(pools: readonly PlacementPool[], job: PlacementJob): PlacementDecision {
  const wishes = job.placement ?? {};
  const pinned = wishes.mode === 'pin' || (wishes.mode === undefined && wishes.pin_pool_id !== undefined);
  const refuse = (why: Failure, considered = 0): PlacementDecision => ({
    kind: 'refused',
    failure: { engine: job.engine, ...why },
    considered,
    pinned,
  });

  if (pinned) {
    const pin = pools.find((pool) => pool.id === wishes.pin_pool_id);
    if (!pin)
      return refuse(
        failure(
          'INVALID_PARAMS',
          `placement.pin_pool_id: there is no pool "${wishes.pin_pool_id ?? ''}"; pools are ${list(pools.map((p) => p.id))}`,
        ),
      );
    const misfit = misfitOf([pin], job) ?? refusalOf([pin]);
    return misfit ? refuse(misfit, 1) : assign(pin, 1);
  }

  const avoided = new Set(wishes.avoid_pools ?? []);
  const candidates = pools.filter((pool) => !avoided.has(pool.id));
  const misfit = misfitOf(candidates, job);
  if (misfit) return refuse(misfit, candidates.length);

  const fitting = candidates.filter((pool) => !misfitOf([pool], job));
  const open = fitting.filter((pool) => pool.refusal === undefined);
  const preferred = new Set(wishes.prefer_pools ?? []);
  const wanted = open.filter((pool) => preferred.has(pool.id));
  const fallback = preferred.size > 0 && wanted.length === 0;
  if (fallback && wishes.allow_fallback === false)
    return refuse(
      failure(
        'POOL_UNAVAILABLE',
        `placement.prefer_pools: none of ${list([...preferred])} can take this task now`,
      ),
      fitting.length,
    );
  const best = (wanted.length > 0 ? wanted : open).toSorted(byExpectedStart)[0];
  if (!best)
    return refuse(refusalOf(fitting) ?? failure('POOL_UNAVAILABLE', 'no pool is left'), fitting.length);
  return assign(best, fitting.length, fallback);

  function assign(pool: PlacementPool, considered: number, fallback_used = false): PlacementDecision {
    return { kind: 'assigned', pool_id: pool.id, considered, pinned, fallback_used };
  }
}

function byExpectedStart(a: PlacementPool, b: PlacementPool): number {
  return a.predicted_start_ms - b.predicted_start_ms || a.waiting - b.waiting || (a.id < b.id ? -1 : 1);
}

/** The first requirement that no pool of these meets, in the words of the field that asked for it. */
function misfitOf(pools: readonly PlacementPool[], job: PlacementJob): Failure | undefined {
  const ofEngine = pools.filter((pool) => pool.engine === job.engine);
  if (ofEngine.length === 0)
    return failure(
      'POOL_UNAVAILABLE',
      `engine: no pool runs "${job.engine}"; this server has ${list(pools.map((p) => p.engine))}`,
      { retriable: false },
    );
  const ofModel = ofEngine.filter((pool) => pool.model === job.model_ref);
  if (ofModel.length === 0)
    return failure(
      'POOL_UNAVAILABLE',
      `model_ref: no ${job.engine} pool serves "${job.model_ref}"; this server has ${list(ofEngine.map((p) => p.model))}`,
      { retriable: false },
    );
  const ofWorkload = ofModel.filter((pool) => pool.workloads.includes(job.workload));
  if (ofWorkload.length === 0)
    return failure(
      'INVALID_PARAMS',
      `workload: "${job.workload}" is not supported here; ${list(ofModel.flatMap((p) => p.workloads))} is`,
    );
  const widest = Math.max(...ofWorkload.map((pool) => pool.ctx_max ?? Infinity));
  if (job.ctx > widest)
    return failure('INVALID_PARAMS', `ctx: must be at most ${widest} tokens for this model, got ${job.ctx}`);
  const longest = Math.max(...ofWorkload.map((pool) => pool.max_tokens_out ?? Infinity));
  if (job.max_tokens > longest)
    return failure(
      'INVALID_PARAMS',
      `max_tokens: must be at most ${longest} for this model, got ${job.max_tokens}`,
    );
  return undefined;
}

function refusalOf(pools: readonly PlacementPool[]): Failure | undefined {
  return pools.find((pool) => pool.refusal)?.refusal;
}

function list(names: readonly string[]): string {
  const unique = [...new Set(names)];
  return unique.length === 0 ? 'none' : unique.map((name) => `"${name}"`).join(', ');
}
