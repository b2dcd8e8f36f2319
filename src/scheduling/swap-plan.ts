/** Why a pool that is loaded makes room. */
export type TurnOver =
  /** It has no work. */
  | 'idle'
  /** What waits elsewhere is `payback` times more than the swap costs. */
  | 'outweighed'
  /** A task of another pool was passed for `max_overtaken_ms`. */
  | 'overdue';

interface Step {
  pool_id: string;
  /** One sentence for people. */
  human: string;
}

export interface LoadStep extends Step {
  do: 'load';
  /** `overdue`: it goes before all that are not. `room`: there is room for it. */
  reason: 'room' | 'overdue';
  /** Milliseconds for which its oldest task has waited. */
  waited_ms: number;
}

/** Gives no new leases from now on; when the running ones have ended it is unloaded. It cannot be called back. */
export interface UnloadStep extends Step {
  do: 'unload';
  /** `idle`: nobody wanted it for its idle time. `swap`: another needs its memory. */
  reason: 'idle' | 'swap';
  turn_over: TurnOver;
  /** Who needs its memory; undefined where nobody does. */
  for_pool_id: string | undefined;
  /** The urge of the other, and what it had to reach, in milliseconds; only where this one was `outweighed`. */
  weighed: Weighed | undefined;
}

export interface Weighed {
  urge_ms: number;
  needed_ms: number;
}

export type SwapStep = LoadStep | UnloadStep;

/**
 * A pool that makes room for an overdue one, once it has given leases to the tasks that were accepted before the
 * oldest of the other. It gives no others.
 */
export interface LastCall extends Step {
  /** Place in the order of all admissions: tasks before it are given leases. */
  before_sequence: number;
  for_pool_id: string;
}

/** Why a pool with waiting tasks is not loaded and is not told to load. */
export type SwapWaitReason =
  /** It takes more than its device has beside what is pinned there. Nothing changes that but the configuration. */
  | 'never_fits'
  /** It must not be loaded: `can_load` is false. */
  | 'held'
  /** It is on its way. */
  | 'loading'
  /** It is on its way out, and is asked for again when it has gone. */
  | 'unloading'
  /** There is room, but as many loads as may run at the same time are under way or go first. */
  | 'load_slot'
  /** Others are on their way out to make room. */
  | 'memory_freeing'
  /** Others give their last leases to older tasks before they make room. */
  | 'last_call'
  /** What it needs is taken by pools that are loading, or promised to pools that go first. */
  | 'others_first'
  /** Others have not been loaded for `min_residency_ms`. */
  | 'residency'
  /** Others go on serving their queues: a swap would cost more than it is worth. */
  | 'turn';

export interface SwapWait extends Step {
  reason: SwapWaitReason;
  /** Pools that it waits for, by id, as far as they can be named. */
  blocked_by: string[];
  /** Milliseconds until it is overdue; 0 when it is, undefined while nobody has passed its oldest task. */
  overdue_in_ms: number | undefined;
  /** Its urge, and what that had to reach, in milliseconds; only where it waits for the `turn` of others. */
  weighed: Weighed | undefined;
}

export interface SwapPlan {
  /** To be begun now, all of them. */
  steps: SwapStep[];
  /** All that are in force until the next plan; they replace those of the last one. */
  last_calls: LastCall[];
  /** Every pool with waiting tasks that is not loaded and is not told to load now. */
  waiting: SwapWait[];
  /** Milliseconds after which to ask again though nothing has happened; undefined: only when something has. */
  look_again_in_ms: number | undefined;
}
