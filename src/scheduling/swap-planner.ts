import { SwapLedger } from './swap-ledger.ts';
import { chooseVictims, isIdle } from './swap-victims.ts';
import {
  DEFAULT_SWAP_RULES,
  loadTime,
  neverFits,
  overdueSince,
  unloadTime,
  urge,
  waited,
  type SwapPool,
  type SwapRules,
  type SwapView,
} from './swap-view.ts';

/** Why a pool that was loaded stays so no longer. */
export type TurnOver =
  /** It has no work. */
  | 'idle'
  /** Others wait with more work, or longer, than swapping costs; see {@link planSwaps}. */
  | 'outweighed'
  /** Another was passed over for `max_overtaken_ms`. */
  | 'overdue';

interface Step {
  pool_id: string;
  /** One sentence for people. */
  human: string;
}

export interface LoadStep extends Step {
  do: 'load';
  /** `fits`: there is room. `overdue`: there is room, and it goes before all others. */
  reason: 'fits' | 'overdue';
  /** Milliseconds for which its oldest task has waited. */
  waited_ms: number;
}

export interface UnloadStep extends Step {
  do: 'unload';
  /** `idle`: nobody wanted it for its idle time. `swap`: another needs its memory. */
  reason: 'idle' | 'swap';
  turn_over: TurnOver;
  /** Who needs its memory; undefined where nobody does. */
  for_pool_id: string | undefined;
  /** Milliseconds that the other's urge counts, and what it was weighed against; only where it was `outweighed`. */
  weighed?: { urge_ms: number; against_ms: number };
}

export type SwapStep = LoadStep | UnloadStep;

/** Why a pool with waiting tasks is not loaded now. */
export type SwapWaitReason =
  /** It takes more than its device has beside what is pinned there. */
  | 'never_fits'
  /** The executor says that it must not be loaded. */
  | 'held'
  | 'loading'
  /** It is on its way out, and is asked for again when it has gone. */
  | 'unloading'
  /** There is room, but as many loads as may run at the same time are under way or go first. */
  | 'load_slot'
  /** Others are on their way out to make room. */
  | 'memory_freeing'
  /** What it needs is held by pools that are loading, or whose overdue turn has just begun. */
  | 'others_first'
  /** Others are in the minimum residency. */
  | 'residency'
  /** Others go on serving their queues: a swap does not pay yet. */
  | 'turn';

export interface SwapWait {
  pool_id: string;
  reason: SwapWaitReason;
  /** One sentence for people. */
  human: string;
  /** Whom it waits for, by id. */
  blocked_by: string[];
  /** Milliseconds until it is overdue; 0 when it is, undefined while nobody has passed it. */
  overdue_in_ms: number | undefined;
}

export interface SwapPlan {
  /** To be begun now, all of them. An `unload` of a pool with leases lets them end and gives no new ones. */
  steps: SwapStep[];
  /** Every pool with waiting tasks that is not loaded and is not told to load now. */
  waiting: SwapWait[];
  /** Milliseconds after which to ask again though nothing has happened; undefined: only when something has. */
  look_again_in_ms: number | undefined;
}

/**
 * Who is loaded and who is unloaded, now. Pure, total and deterministic.
 */
export function planSwaps(view: SwapView, rules: SwapRules = DEFAULT_SWAP_RULES): SwapPlan {
  return new Planner(view, rules).plan();
}

class Planner {
  readonly #now: number;
  readonly #view: SwapView;
  readonly #rules: SwapRules;
  readonly #ledger: SwapLedger;
  /** Loaded pools that nobody has asked to go yet. */
  readonly #staying = new Set<SwapPool>();
  readonly #steps: SwapStep[] = [];
  readonly #waiting: SwapWait[] = [];
  #lookAgainIn = Infinity;

  constructor(view: SwapView, rules: SwapRules) {
    this.#now = view.now;
    this.#view = view;
    this.#rules = rules;
    this.#ledger = new SwapLedger(view, rules);
    for (const pool of view.pools) if (pool.state === 'loaded') this.#staying.add(pool);
  }

  plan(): SwapPlan {
    const candidates = this.#view.pools.filter((pool) => pool.waiting > 0 && pool.state !== 'loaded');
    for (const pool of candidates.toSorted((a, b) => this.#compare(a, b))) this.#serve(pool);
    for (const pool of this.#view.pools) this.#idle(pool);
    return {
      steps: this.#steps,
      waiting: this.#waiting,
      look_again_in_ms: Number.isFinite(this.#lookAgainIn) ? this.#lookAgainIn : undefined,
    };
  }

  /** The overdue first, by since when they were passed over; then those whose turn is worth most beyond its load. */
  #compare(a: SwapPool, b: SwapPool): number {
    const [overdue_a, overdue_b] = [this.#isOverdue(a), this.#isOverdue(b)];
    if (overdue_a !== overdue_b) return overdue_a ? -1 : 1;
    return (overdue_a ? bySince(a, b) : this.#worth(b) - this.#worth(a)) || byAge(a, b);
  }

  #worth(pool: SwapPool): number {
    return urge(pool, this.#now, this.#rules) - loadTime(pool);
  }

  #isOverdue(pool: SwapPool): boolean {
    return overdueSince(pool, this.#now, this.#rules) !== undefined;
  }

  #serve(pool: SwapPool): void {
    const ledger = this.#ledger;
    const device = neverFits(this.#view, pool);
    if (device !== undefined)
      return this.#wait(pool, 'never_fits', [], `Pool ${pool.id} never fits device ${device} beside what is pinned.`);
    if (pool.state === 'loading') return this.#wait(pool, 'loading', [], `Pool ${pool.id} is loading.`);
    if (!pool.can_load) return this.#wait(pool, 'held', [], `Pool ${pool.id} must not be loaded now.`);
    if (pool.state === 'unloading')
      return this.#wait(pool, 'unloading', [], `Pool ${pool.id} is being unloaded before it can load again.`);
    if (ledger.fitsNow(pool)) {
      if (ledger.hasTurnToLoad(pool)) this.#load(pool);
      else this.#wait(pool, 'load_slot', this.#in('loading', pool), `Pool ${pool.id} loads after others.`);
      return ledger.promise(pool);
    }
    if (!ledger.fitsSoon(pool) && !this.#makeRoom(pool)) return;
    ledger.promise(pool);
    const leaving = this.#in('unloading', pool);
    this.#wait(pool, 'memory_freeing', leaving, `Pool ${pool.id} waits until ${listed(leaving)} is unloaded.`);
  }

  #makeRoom(pool: SwapPool): boolean {
    return this.#isOverdue(pool) ? this.#takeRoom(pool) : this.#askForRoom(pool);
  }

  /** Everybody in its way goes, but for who is loading or has not been served in an earlier overdue turn. */
  #takeRoom(pool: SwapPool): boolean {
    const mayGo = [...this.#staying].filter((other) => !other.pinned && !this.#isStillDue(other, pool));
    const { pools, suffice } = chooseVictims(this.#ledger.missing(pool), mayGo, this.#now, this.#rules);
    for (const other of pools) this.#unload(other, isIdle(other) ? 'idle' : 'overdue', pool);
    if (suffice) return true;
    // What it needs is kept for it meanwhile.
    this.#ledger.promise(pool);
    this.#wait(pool, 'others_first', [], `Pool ${pool.id} is overdue and goes after those that are before it.`);
    return false;
  }

  #isStillDue(other: SwapPool, pool: SwapPool): boolean {
    return other.waiting > 0 && other.passed_over_since !== undefined && bySince(other, pool) < 0;
  }

  /** Who is idle goes; who has a queue goes if its residency is over and a swap pays. */
  #askForRoom(pool: SwapPool): boolean {
    const missing = this.#ledger.missing(pool);
    const may = [...this.#staying].filter((other) => !other.pinned);
    const free = may.filter((other) => isIdle(other) || (EXPLORE.served && other.waiting === 0) || (other.waiting > 0 && this.#residency(other) <= 0));
    const { pools, suffice } = chooseVictims(missing, free, this.#now, this.#rules);
    if (!suffice) {
      const all = chooseVictims(missing, may, this.#now, this.#rules);
      const inResidency = all.pools.filter((other) => !free.includes(other));
      if (!all.suffice)
        this.#wait(pool, 'others_first', [], `Pool ${pool.id} waits until others have loaded.`);
      else {
        for (const other of inResidency) this.#lookAgain(this.#residency(other));
        const ids = inResidency.map(({ id }) => id);
        this.#wait(pool, 'residency', ids, `Pool ${pool.id} waits while ${listed(ids)} stays.`);
      }
      return false;
    }
    const inUse = pools.filter((other) => !isIdle(other));
    const urge_ms = urge(pool, this.#now, this.#rules);
    const against_ms = inUse.length === 0 ? 0 : this.#price(pool, pools);
    if (urge_ms < against_ms) {
      const ids = inUse.map(({ id }) => id);
      this.#wait(pool, 'turn', ids, `Pool ${pool.id} waits while ${listed(ids)} serves its queue.`);
      return false;
    }
    for (const other of pools)
      if (isIdle(other)) this.#unload(other, 'idle', pool);
      else this.#unload(other, 'outweighed', pool, { urge_ms, against_ms });
    return true;
  }

  /** What must be gained: what the others want, their unloading, this load, and the loads by which they come back. */
  #price(pool: SwapPool, victims: readonly SwapPool[]): number {
    let price = loadTime(pool);
    for (const other of victims) {
      price += unloadTime(other);
      if (other.waiting > 0) price += EXPLORE.own * urge(other, this.#now, this.#rules) + loadTime(other);
    }
    return price * EXPLORE.pay;
  }

  /** Milliseconds for which it stays though others want its memory. */
  #residency(pool: SwapPool): number {
    return pool.since + this.#rules.min_residency_ms - this.#now;
  }

  /** Who has had no work for its idle time goes. */
  #idle(pool: SwapPool): void {
    const ttl_ms = pool.idle_ttl_ms ?? this.#rules.idle_ttl_ms;
    if (!this.#staying.has(pool) || pool.pinned || ttl_ms <= 0 || !isIdle(pool)) return;
    const left_ms = (pool.idle_since ?? pool.since) + ttl_ms - this.#now;
    if (left_ms > 0) this.#lookAgain(left_ms);
    else this.#unload(pool, 'idle');
  }

  #load(pool: SwapPool): void {
    const isOverdue = this.#isOverdue(pool);
    const waited_ms = waited(pool, this.#now);
    this.#steps.push({
      pool_id: pool.id,
      do: 'load',
      reason: isOverdue ? 'overdue' : 'fits',
      human: `Pool ${pool.id} loads${isOverdue ? ' before all others' : ''}: a task has waited ${Math.round(waited_ms)} ms.`,
      waited_ms,
    });
  }

  #unload(pool: SwapPool, turn_over: TurnOver, other?: SwapPool, weighed?: UnloadStep['weighed']): void {
    this.#staying.delete(pool);
    this.#ledger.release(pool);
    this.#steps.push({
      pool_id: pool.id,
      do: 'unload',
      reason: other ? 'swap' : 'idle',
      turn_over,
      for_pool_id: other?.id,
      human: sentence(pool.id, turn_over, other?.id),
      ...(weighed ? { weighed } : {}),
    });
  }

  #wait(pool: SwapPool, reason: SwapWaitReason, blocked_by: string[], human: string): void {
    const passed = pool.passed_over_since;
    const overdue_in_ms =
      passed === undefined ? undefined : Math.max(0, passed + this.#rules.max_overtaken_ms - this.#now);
    if (reason !== 'never_fits' && reason !== 'loading') this.#lookAgain(overdue_in_ms ?? 0);
    this.#waiting.push({ pool_id: pool.id, reason, human, blocked_by, overdue_in_ms });
  }

  /** Those of a state that hold memory on a device of this pool, and those that this plan brings into it. */
  #in(state: 'loading' | 'unloading', pool: SwapPool): string[] {
    const begun = new Set(
      this.#steps
        .filter((step) => step.do === (state === 'loading' ? 'load' : 'unload'))
        .map(({ pool_id }) => pool_id),
    );
    return this.#view.pools
      .filter(
        (other) =>
          (other.state === state || begun.has(other.id)) &&
          Object.entries(pool.memory_bytes).some(
            ([device, bytes]) => bytes > 0 && (other.memory_bytes[device] ?? 0) > 0,
          ),
      )
      .map(({ id }) => id)
      .toSorted();
  }

  #lookAgain(in_ms: number): void {
    if (in_ms > 0) this.#lookAgainIn = Math.min(this.#lookAgainIn, in_ms);
  }
}

export const EXPLORE = { served: false, own: 1, pay: 1 };

function bySince(a: SwapPool, b: SwapPool): number {
  return (a.passed_over_since ?? Infinity) - (b.passed_over_since ?? Infinity) || byAge(a, b);
}

function byAge(a: SwapPool, b: SwapPool): number {
  return (a.oldest_accepted_at ?? 0) - (b.oldest_accepted_at ?? 0) || (a.id < b.id ? -1 : 1);
}

function listed(ids: readonly string[]): string {
  return ids.length > 2 ? `${ids.length} pools` : ids.join(' and ');
}

function sentence(id: string, turn_over: TurnOver, other: string | undefined): string {
  if (other === undefined) return `Pool ${id} is unloaded: nobody wants it for its idle time.`;
  if (turn_over === 'idle') return `Pool ${id} has no work and makes room for pool ${other}.`;
  return turn_over === 'outweighed'
    ? `Pool ${id} makes room for pool ${other}, whose turn pays more now.`
    : `Pool ${id} makes room for pool ${other}, which is overdue.`;
}
