import { SwapLedger } from './swap-ledger.ts';
import type {
  LastCall,
  SwapPlan,
  SwapStep,
  SwapWait,
  SwapWaitReason,
  TurnOver,
  Weighed,
} from './swap-plan.ts';
import { chooseVictims, isIdle } from './swap-victims.ts';
import {
  compete,
  DEFAULT_SWAP_RULES,
  loadTime,
  neverFits,
  overdueIn,
  unloadTime,
  urge,
  waited,
  type SwapPool,
  type SwapRules,
  type SwapView,
} from './swap-view.ts';

/**
 * Which pools are loaded and unloaded, now. Pure, total and deterministic: the same view gives the same plan, in
 * whatever order its pools come. To be asked after every change and before leases are given; whoever then gave some
 * asks again.
 *
 * 1. Pools with waiting tasks that are not loaded are looked at one after the other: the overdue ones first, by the age
 *    of their oldest task, then the others by {@link urge} less load time. What one is promised, none after it gets.
 * 2. Where there is room, it loads.
 * 3. An overdue pool takes its room. Who stands in its way, the least useful first, is told to unload; but while tasks
 *    wait there that are older than the oldest of the overdue pool, it gives those leases first, and only those.
 * 4. Any other pool gets the room of who has no work. A pool that has a queue goes on serving it, since most of what a
 *    load costs is saved by using it long. It makes room only after `min_residency_ms`, and if the urge of the other
 *    is at least `payback` times the price: both loads, the unloading, and the urge of the pool that makes room.
 * 5. Who had no work for its idle time is unloaded, though nobody wants its room.
 *
 * What the bound promises. Of two pools that cannot be loaded together, the one gives no lease to a task that was
 * accepted after a waiting task of the other, while that is not loaded, once that task has been passed so for
 * `max_overtaken_ms`. From then on it waits only for tasks that were accepted before it, for what runs, and for loads:
 * the oldest task of a pool with one rival waits at most for the older tasks of the rival, and the longest run, an unload
 * and a load of each. With more rivals, that for each of them which has older tasks. Pools that can be loaded beside it
 * are not in its way, and within a pool its own classes decide.
 *
 * What it costs. The bound makes turns short where no more can be done than is done: with queues that are always full
 * it comes near to the order of arrival. It is free while a round of all queues takes less than the bound.
 *
 * Nobody waits for ever: a pool gets all its devices at once, so none holds one while it waits for another; and what an
 * overdue pool was promised, nobody else gets.
 */
export function planSwaps(view: SwapView, rules: SwapRules = DEFAULT_SWAP_RULES): SwapPlan {
  return new Planner(view, rules).plan();
}

class Planner {
  readonly #view: SwapView;
  readonly #rules: SwapRules;
  readonly #ledger: SwapLedger;
  /** Loaded pools that nobody has asked to make room. */
  readonly #staying: Set<SwapPool>;
  readonly #steps: SwapStep[] = [];
  readonly #lastCalls: LastCall[] = [];
  readonly #waiting: SwapWait[] = [];
  #lookAgainIn = Infinity;

  constructor(view: SwapView, rules: SwapRules) {
    this.#view = { ...view, pools: view.pools.toSorted((a, b) => (a.id < b.id ? -1 : 1)) };
    this.#rules = rules;
    this.#ledger = new SwapLedger(view, rules);
    this.#staying = new Set(this.#view.pools.filter(({ state }) => state === 'loaded'));
  }

  plan(): SwapPlan {
    const candidates = this.#view.pools.filter(({ state, waiting }) => waiting > 0 && state !== 'loaded');
    for (const pool of candidates.toSorted((a, b) => this.#compare(a, b))) this.#serve(pool);
    for (const pool of this.#staying) this.#idle(pool);
    return {
      steps: this.#steps,
      last_calls: this.#lastCalls,
      waiting: this.#waiting,
      look_again_in_ms: Number.isFinite(this.#lookAgainIn) ? this.#lookAgainIn : undefined,
    };
  }

  #compare(a: SwapPool, b: SwapPool): number {
    const first = Number(this.#isOverdue(b)) - Number(this.#isOverdue(a));
    if (first !== 0) return first;
    return (this.#isOverdue(a) ? 0 : this.#worth(b) - this.#worth(a)) || byAge(a, b);
  }

  #worth(pool: SwapPool): number {
    return this.#urge(pool) - loadTime(pool);
  }

  #urge(pool: SwapPool): number {
    return urge(pool, this.#view.now, this.#rules);
  }

  #isOverdue(pool: SwapPool): boolean {
    return overdueIn(pool, this.#view.now, this.#rules) === 0;
  }

  #serve(pool: SwapPool): void {
    const { id, state } = pool;
    const device = neverFits(this.#view, pool);
    if (device !== undefined)
      return this.#wait(
        pool,
        'never_fits',
        `Pool ${id} never fits device ${device} beside what is pinned there.`,
      );
    if (state === 'loading') return this.#wait(pool, 'loading', `Pool ${id} is loading.`);
    if (!pool.can_load) return this.#wait(pool, 'held', `Pool ${id} must not be loaded now.`);
    if (state === 'unloading')
      return this.#wait(pool, 'unloading', `Pool ${id} is unloaded before it loads again.`);
    if (!this.#ledger.fitsSoon(pool)) {
      const isMade = this.#isOverdue(pool) ? this.#takeRoom(pool) : this.#askForRoom(pool);
      if (!isMade) return;
    }
    if (!this.#ledger.fitsNow(pool)) this.#awaitMemory(pool);
    else if (this.#ledger.mayLoad(pool)) this.#load(pool);
    else
      this.#wait(
        pool,
        'load_slot',
        `Pool ${id} loads when another has loaded.`,
        this.#becoming('load', pool),
      );
    this.#ledger.promise(pool);
  }

  /** Everybody in its way makes room, but for who is pinned or still loading: those are asked when they have loaded. */
  #takeRoom(pool: SwapPool): boolean {
    const mayGo = [...this.#staying].filter(({ pinned }) => !pinned);
    const { pools, suffice } = this.#victims(pool, mayGo);
    for (const other of pools)
      if (isIdle(other)) this.#unload(other, 'idle', pool);
      else if (hasOlder(other, pool)) this.#callLast(other, pool);
      else this.#unload(other, 'overdue', pool);
    if (suffice) return true;
    this.#wait(pool, 'others_first', `Pool ${pool.id} is overdue and goes after what is loading now.`);
    // What is free meanwhile is kept for it.
    this.#ledger.promise(pool);
    return false;
  }

  #askForRoom(pool: SwapPool): boolean {
    const movable = [...this.#staying].filter(({ pinned }) => !pinned);
    const mayGo = movable.filter(
      // Who has just loaded, and is asked for before its first lease, would have loaded for nothing.
      (other) => isIdle(other) || (other.waiting > 0 && other.leases > 0 && this.#residency(other) <= 0),
    );
    const { pools, suffice } = this.#victims(pool, mayGo);
    if (!suffice) {
      this.#waitForTurn(pool, movable, mayGo);
      return false;
    }
    const ids = pools.filter((other) => !isIdle(other)).map(({ id }) => id);
    const weighed =
      ids.length === 0 ? undefined : { urge_ms: this.#urge(pool), needed_ms: this.#price(pool, pools) };
    if (weighed && weighed.urge_ms < weighed.needed_ms) {
      this.#wait(pool, 'turn', `Pool ${pool.id} waits while ${listed(ids)} is at work.`, ids, weighed);
      return false;
    }
    for (const other of pools)
      if (isIdle(other)) this.#unload(other, 'idle', pool);
      else this.#unload(other, 'outweighed', pool, weighed);
    return true;
  }

  /** Those that may go are not enough: says who is in the way. */
  #waitForTurn(pool: SwapPool, movable: readonly SwapPool[], mayGo: readonly SwapPool[]): void {
    const { pools, suffice } = this.#victims(pool, movable);
    if (!suffice)
      return this.#wait(
        pool,
        'others_first',
        `Pool ${pool.id} waits for memory that others were promised first.`,
      );
    const staying = pools.filter((other) => !mayGo.includes(other));
    const ids = staying.map(({ id }) => id);
    const young = staying.filter((other) => other.waiting > 0 && this.#residency(other) > 0);
    if (young.length === 0)
      return this.#wait(pool, 'turn', `Pool ${pool.id} waits while ${listed(ids)} is at work.`, ids);
    for (const other of young) this.#lookAgain(this.#residency(other));
    this.#wait(pool, 'residency', `Pool ${pool.id} waits while ${listed(ids)} is newly loaded.`, ids);
  }

  #victims(pool: SwapPool, candidates: readonly SwapPool[]): ReturnType<typeof chooseVictims> {
    return chooseVictims(this.#ledger.missing(pool), candidates, this.#view.now, this.#rules);
  }

  /** This load, and for each that makes room its unloading; for those that have to come back also their load and urge. */
  #price(pool: SwapPool, victims: readonly SwapPool[]): number {
    let price_ms = loadTime(pool);
    for (const other of victims)
      price_ms += unloadTime(other) + (other.waiting > 0 ? this.#urge(other) + loadTime(other) : 0);
    return price_ms * this.#rules.payback;
  }

  /** Milliseconds for which it stays though another has more to do. */
  #residency(pool: SwapPool): number {
    return pool.since + this.#rules.min_residency_ms - this.#view.now;
  }

  #idle(pool: SwapPool): void {
    const ttl_ms = pool.idle_ttl_ms ?? this.#rules.idle_ttl_ms;
    if (pool.pinned || ttl_ms <= 0 || !isIdle(pool)) return;
    const left_ms = (pool.idle_since ?? pool.since) + ttl_ms - this.#view.now;
    if (left_ms > 0) this.#lookAgain(left_ms);
    else this.#unload(pool, 'idle');
  }

  #load(pool: SwapPool): void {
    const waited_ms = waited(pool, this.#view.now);
    const reason = this.#isOverdue(pool) ? 'overdue' : 'room';
    const rank = reason === 'overdue' ? ' before others' : '';
    this.#steps.push({
      pool_id: pool.id,
      do: 'load',
      reason,
      waited_ms,
      human: `Pool ${pool.id} loads${rank}: its oldest task has waited ${Math.round(waited_ms)} ms.`,
    });
  }

  #unload(pool: SwapPool, turn_over: TurnOver, other?: SwapPool, weighed?: Weighed): void {
    this.#staying.delete(pool);
    this.#ledger.release(pool);
    this.#steps.push({
      pool_id: pool.id,
      do: 'unload',
      reason: other ? 'swap' : 'idle',
      turn_over,
      for_pool_id: other?.id,
      weighed,
      human: unloadSentence(pool.id, turn_over, other?.id),
    });
  }

  #callLast(pool: SwapPool, other: SwapPool): void {
    this.#staying.delete(pool);
    this.#ledger.release(pool);
    this.#lastCalls.push({
      pool_id: pool.id,
      before_sequence: sequenceOf(other),
      for_pool_id: other.id,
      human: `Pool ${pool.id} takes only older tasks before it makes room for pool ${other.id}.`,
    });
  }

  #awaitMemory(pool: SwapPool): void {
    const leaving = this.#becoming('unload', pool);
    if (leaving.length > 0)
      return this.#wait(
        pool,
        'memory_freeing',
        `Pool ${pool.id} waits until ${listed(leaving)} is unloaded.`,
        leaving,
      );
    const called = this.#lastCalls
      .filter(({ for_pool_id }) => for_pool_id === pool.id)
      .map(({ pool_id }) => pool_id);
    if (called.length > 0)
      return this.#wait(
        pool,
        'last_call',
        `Pool ${pool.id} waits for older tasks of ${listed(called)}.`,
        called,
      );
    this.#wait(pool, 'others_first', `Pool ${pool.id} waits for memory that others were promised first.`);
  }

  #wait(
    pool: SwapPool,
    reason: SwapWaitReason,
    human: string,
    blocked_by: string[] = [],
    weighed?: Weighed,
  ): void {
    const overdue_in_ms = overdueIn(pool, this.#view.now, this.#rules);
    if (pool.state === 'cold' && reason !== 'never_fits' && reason !== 'held')
      this.#lookAgain(overdue_in_ms ?? 0);
    this.#waiting.push({ pool_id: pool.id, reason, human, blocked_by, overdue_in_ms, weighed });
  }

  /** Those on its devices that are on their way in or out, by this plan or an earlier one. */
  #becoming(step: SwapStep['do'], pool: SwapPool): string[] {
    const begun = new Set(this.#steps.filter((one) => one.do === step).map(({ pool_id }) => pool_id));
    const state = `${step}ing`;
    return this.#view.pools
      .filter((other) => (other.state === state || begun.has(other.id)) && compete(other, pool))
      .map(({ id }) => id);
  }

  #lookAgain(in_ms: number): void {
    if (in_ms > 0) this.#lookAgainIn = Math.min(this.#lookAgainIn, in_ms);
  }
}

/** Whether a task waits there that is older than all of the other. */
function hasOlder(pool: SwapPool, other: SwapPool): boolean {
  return sequenceOf(pool) < sequenceOf(other);
}

function byAge(a: SwapPool, b: SwapPool): number {
  return sequenceOf(a) - sequenceOf(b) || (a.id < b.id ? -1 : 1);
}

function sequenceOf({ oldest }: SwapPool): number {
  return oldest?.sequence ?? Infinity;
}

function listed(ids: readonly string[]): string {
  if (ids.length > 2) return `each of ${ids.length} pools`;
  return `pool ${ids.join(' or ')}`;
}

function unloadSentence(id: string, turn_over: TurnOver, other: string | undefined): string {
  if (other === undefined) return `Pool ${id} is unloaded: it had no work for its idle time.`;
  if (turn_over === 'idle') return `Pool ${id} has no work and makes room for pool ${other}.`;
  return turn_over === 'outweighed'
    ? `Pool ${id} makes room for pool ${other}, whose turn is worth more.`
    : `Pool ${id} makes room for pool ${other}, which is overdue.`;
}
