import { failure, type Failure } from '../errors.ts';
import { list, type PlacementJob, type PlacementPool } from './candidates.ts';
import { feasibleOf, limitsOf, type RefusalReason } from './feasibility.ts';
import { bestOf, type TieBreaker } from './ties.ts';

export { limitsOf };
export type { PlacementJob, PlacementPool, RefusalReason, TieBreaker };

export interface PlacementPolicy {
  /** Whether callers may pin a task to a pool. Default true. */
  allow_pin?: boolean | undefined;
}

/** What was looked at, and what decided. */
export interface DecisionLog {
  /** Pools that were looked at: one for a pinned task, else all there are. */
  considered: number;
  /** Those of them that could take the task now. */
  feasible: number;
  /** Filters that removed at least one pool. */
  filters_applied: readonly string[];
  /** Tie-breakers that left at least one pool out. */
  tie_breakers_applied: readonly TieBreaker[];
  pinned: boolean;
  /** Whether it went to a pool that was not preferred, because no preferred one could take it. */
  fallback_used: boolean;
}

export type PlacementDecision = DecisionLog &
  (
    | {
        kind: 'assigned';
        pool_id: string;
        /** The caller's choice, the only pool that could, the earliest expected end, or what decided between equals. */
        reason: 'pinned' | 'only_feasible' | 'predicted_end' | 'tie_break';
      }
    | { kind: 'refused'; failure: Failure; reason: RefusalReason }
  );

/**
 * Which pool a task goes to. Pure and total: the same pools in any order give the same decision, also after a restart.
 *
 * 1. A pinned task goes to its pool or is refused.
 * 2. Pools that cannot take the task now are left out, and it is refused with the first demand that none meets.
 * 3. Of those left, the preferred ones if there are any; the others only where a fallback is allowed.
 * 4. A pool whose queue would refuse it comes only where all of them would.
 * 5. The earliest expected end, and the tie-breakers of {@link bestOf}.
 */
export function place(
  pools: readonly PlacementPool[],
  job: PlacementJob,
  policy: PlacementPolicy = {},
): PlacementDecision {
  return isPinned(job) ? placePinned(pools, job, policy) : placeFreely(pools, job);
}

/** Whether the caller has chosen the pool. */
export function isPinned({ placement }: Pick<PlacementJob, 'placement'>): boolean {
  const { mode, pin_pool_id } = placement ?? {};
  return mode === 'pin' || (mode === undefined && pin_pool_id !== undefined);
}

function placePinned(
  pools: readonly PlacementPool[],
  job: PlacementJob,
  { allow_pin = true }: PlacementPolicy,
): PlacementDecision {
  const id = job.placement?.pin_pool_id;
  const pin = pools.find((pool) => pool.id === id);
  const log: DecisionLog = {
    considered: 0,
    feasible: 0,
    filters_applied: [],
    tie_breakers_applied: [],
    pinned: true,
    fallback_used: false,
  };
  const refuse = (why: Failure, changes: Partial<DecisionLog> = {}): PlacementDecision => ({
    ...log,
    ...changes,
    kind: 'refused',
    reason: 'pinned_pool_infeasible',
    failure: { engine: job.engine, ...why },
  });
  if (!allow_pin)
    return refuse(
      failure('INVALID_PARAMS', 'placement: this server does not allow pinning; use mode "prefer" or "auto"'),
    );
  if (!pin) {
    const what = id === undefined ? 'must name the pool for mode "pin"' : `there is no pool "${id}"`;
    const all = list(pools.map((pool) => pool.id));
    return refuse(failure('INVALID_PARAMS', `placement.pin_pool_id: ${what}; pools are ${all}`));
  }
  const { refusal, filters_applied } = feasibleOf([pin], job);
  if (refusal) return refuse({ pool_id: pin.id, ...refusal.failure }, { considered: 1, filters_applied });
  return { ...log, kind: 'assigned', pool_id: pin.id, reason: 'pinned', considered: 1, feasible: 1 };
}

function placeFreely(pools: readonly PlacementPool[], job: PlacementJob): PlacementDecision {
  const { mode, prefer_pools = [], allow_fallback = true } = job.placement ?? {};
  const { feasible, filters_applied, refusal } = feasibleOf(pools, job);
  const preferred = mode === 'auto' ? [] : prefer_pools;
  const wanted = feasible.filter(({ id }) => preferred.includes(id));
  const log: DecisionLog = {
    considered: pools.length,
    feasible: feasible.length,
    filters_applied,
    tie_breakers_applied: [],
    pinned: false,
    fallback_used: false,
  };
  const refuse = (why: Failure, reason: RefusalReason): PlacementDecision => ({
    ...log,
    kind: 'refused',
    reason,
    failure: { engine: job.engine, ...why },
  });
  if (refusal) return refuse(refusal.failure, refusal.reason);

  const fallback_used = preferred.length > 0 && wanted.length === 0;
  if (fallback_used && !allow_fallback)
    return refuse(
      failure(
        'POOL_UNAVAILABLE',
        `placement.prefer_pools: none of ${list(preferred)} can take this task now`,
        // One that does not exist cannot later either.
        { retriable: pools.some(({ id }) => preferred.includes(id)) },
      ),
      'no_preferred_feasible',
    );
  const willing = wanted.length > 0 ? wanted : feasible;
  const open = willing.filter(({ is_full }) => !is_full);
  const candidates = open.length > 0 ? open : willing;
  const { pool_id, tie_breakers_applied } = bestOf(candidates, job);
  const reason =
    tie_breakers_applied.length > 0
      ? 'tie_break'
      : candidates.length === 1
        ? 'only_feasible'
        : 'predicted_end';
  return { ...log, kind: 'assigned', pool_id, reason, fallback_used, tie_breakers_applied };
}
