import { byId, type PlacementJob, type PlacementPool } from './candidates.ts';
import { expectedTokens, type Rates } from './estimate.ts';

/** In the order in which they are asked. */
export type TieBreaker = 'affinity' | 'load' | 'memory' | 'speed' | 'id';

/** Ends that are nearer to the best one than this share of it are a tie: estimates are not finer. */
const TIE_SHARE = 0.05;

export interface Best {
  pool_id: string;
  /** Those that had to decide, and did leave somebody out. */
  tie_breakers_applied: TieBreaker[];
}

/**
 * The pool where a task is expected to end first. Ties go to the pool with the session's cache, then to the one with
 * the least work per slot, the most free memory, the faster one, and the first by id. What is not known of every pool
 * in the tie decides nothing, so the order of the pools never matters.
 * @param pools at least one
 */
export function bestOf(pools: readonly PlacementPool[], job: PlacementJob): Best {
  const [only] = pools;
  if (only && pools.length === 1) return { pool_id: only.id, tie_breakers_applied: [] };
  let tied = tiedForEnd(byId(pools), job);
  const tie_breakers_applied: TieBreaker[] = [];
  const narrow = (name: TieBreaker, cost: (pool: PlacementPool) => number | undefined): void => {
    const left = cheapest(tied, cost);
    if (left.length < tied.length) tie_breakers_applied.push(name);
    tied = left;
  };
  narrow('affinity', ({ id }) => (id === job.affinity_pool_id ? 0 : 1));
  narrow('load', ({ waiting, leases, slots_total }) => (waiting + leases) / Math.max(1, slots_total));
  narrow('memory', ({ memory_free_bytes }) =>
    memory_free_bytes === undefined ? undefined : -memory_free_bytes,
  );
  narrow('speed', ({ rates }) => rates.token_ms);
  if (tied.length > 1) tie_breakers_applied.push('id');
  return { pool_id: (tied[0] as PlacementPool).id, tie_breakers_applied };
}

/** A rate that a pool has not measured is taken to be the best one that is known: the other figures decide then. */
function tiedForEnd(pools: readonly PlacementPool[], job: PlacementJob): PlacementPool[] {
  const first_token_ms = bestKnown(pools, 'first_token_ms');
  const token_ms = bestKnown(pools, 'token_ms');
  const tokens_out = bestKnown(pools, 'tokens_out');
  const ends = pools.map(({ rates, predicted_start_ms }) => {
    const length = { ...rates, tokens_out: rates.tokens_out ?? tokens_out };
    return (
      predicted_start_ms +
      (rates.first_token_ms ?? first_token_ms ?? 0) +
      expectedTokens(length, job) * (rates.token_ms ?? token_ms ?? 0)
    );
  });
  const best = Math.min(...ends);
  return pools.filter((_, i) => (ends[i] as number) <= best * (1 + TIE_SHARE));
}

function bestKnown(pools: readonly PlacementPool[], rate: keyof Rates): number | undefined {
  const values = pools.flatMap(({ rates }) => rates[rate] ?? []);
  return values.length === 0 ? undefined : Math.min(...values);
}

/** All of them where the cost of one is not known. */
function cheapest(
  pools: PlacementPool[],
  cost: (pool: PlacementPool) => number | undefined,
): PlacementPool[] {
  const costs = pools.map(cost);
  if (costs.includes(undefined)) return pools;
  const least = Math.min(...(costs as number[]));
  return pools.filter((_, i) => costs[i] === least);
}
