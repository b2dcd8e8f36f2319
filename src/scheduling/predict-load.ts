import { passedBy } from './passes.ts';
import { planSwaps } from './swap-planner.ts';
import { loadTime, unloadTime, type SwapPool, type SwapRules, type SwapView } from './swap-view.ts';

/** Changes that are looked ahead; of what comes after them nothing is said. */
const MOST_CHANGES = 100;

/** The finest that is told apart. */
const TICK_MS = 1;

/**
 * Milliseconds until a pool is expected to be loaded; 0 where it is. Plays on what {@link planSwaps} would do if nobody
 * else came: loaded pools work off their queues evenly, oldest tasks first. Where nobody waits in the pool, it is the
 * load that a newcomer would bring about.
 * @returns undefined where nothing can be said: the pool must not be loaded, never fits, or does not exist
 */
export function predictLoad(view: SwapView, rules: SwapRules, pool_id: string): number | undefined {
  let pools = inOrderOfTime(view, pool_id);
  let now = view.now;
  for (let change = 0; change < MOST_CHANGES; change++) {
    const pool = pools.find(({ id }) => id === pool_id);
    if (!pool) return undefined;
    if (pool.state === 'loaded') return Math.round(now - view.now);
    const plan = planSwaps({ ...view, now, pools }, rules);
    const begun = new Map(plan.steps.map((step) => [step.pool_id, step.do]));
    pools = pools.map((one) => begin(one, begun.get(one.id), now));
    const next_ms = Math.min(
      plan.look_again_in_ms ?? Infinity,
      ...pools.flatMap((one) => changesOf(one, pools, now, view.now)),
    );
    if (!Number.isFinite(next_ms)) return undefined;
    const passed_ms = Math.max(TICK_MS, next_ms);
    now += passed_ms;
    pools = passOver(
      pools.map((one) => later(one, passed_ms, now, view.now)),
      now,
    );
  }
  return undefined;
}

/** What keeps the order of tasks that were accepted in the same millisecond. */
const BETWEEN_TICKS = 1e-6;

/** Tasks in the middle of a queue have no known place in the order of admissions, but a time. */
function inOrderOfTime({ pools, now }: SwapView, newcomer_of: string): SwapPool[] {
  const first = pools.flatMap(({ oldest }) => oldest?.sequence ?? []).toSorted((a, b) => a - b);
  return pools.map((pool) => {
    const accepted_at = pool.oldest?.accepted_at ?? (pool.id === newcomer_of ? now : undefined);
    if (accepted_at === undefined) return pool;
    const place = pool.oldest ? first.indexOf(pool.oldest.sequence) : first.length;
    const sequence = accepted_at + place * BETWEEN_TICKS;
    return { ...pool, waiting: Math.max(1, pool.waiting), oldest: { sequence, accepted_at } };
  });
}

function begin(pool: SwapPool, step: 'load' | 'unload' | undefined, now: number): SwapPool {
  return step === undefined ? pool : { ...pool, state: `${step}ing`, since: now };
}

/** In how many milliseconds the planner may say something else because of this pool. */
function changesOf(pool: SwapPool, pools: readonly SwapPool[], now: number, asked_at: number): number[] {
  const { state, since, running_ms, waiting_work_ms } = pool;
  if (state === 'loading') return [since + loadTime(pool) - now];
  if (state === 'unloading') return [running_ms + unloadTime(pool)];
  if (state === 'cold' || (running_ms === 0 && pool.waiting === 0)) return [];
  const own = pool.oldest?.accepted_at ?? asked_at;
  const untilYoungerThan = pools
    .filter((other) => other.state !== 'loaded' && other.oldest && other.oldest.accepted_at > own)
    .map(
      ({ oldest }) =>
        running_ms + (waiting_work_ms * ((oldest?.accepted_at ?? own) - own)) / (asked_at - own),
    );
  return [running_ms + waiting_work_ms, ...untilYoungerThan.map((in_ms) => in_ms + TICK_MS)];
}

function later(pool: SwapPool, passed_ms: number, now: number, asked_at: number): SwapPool {
  const { state, since, running_ms } = pool;
  if (state === 'loading' && since + loadTime(pool) <= now)
    return { ...pool, state: 'loaded', since: now, idle_since: pool.waiting === 0 ? now : undefined };
  if (state === 'unloading') {
    const left_ms = running_ms + unloadTime(pool) - passed_ms;
    if (left_ms <= 0) return { ...pool, state: 'cold', since: now, running_ms: 0, leases: 0 };
    return running_ms > passed_ms
      ? { ...pool, running_ms: running_ms - passed_ms }
      : { ...pool, running_ms: 0, leases: 0, unload_ms: left_ms };
  }
  return state === 'loaded' ? worked(pool, passed_ms, now, asked_at) : pool;
}

/** First what runs, then what waits. */
function worked(pool: SwapPool, passed_ms: number, now: number, asked_at: number): SwapPool {
  const { running_ms, waiting_work_ms, oldest } = pool;
  const spent_ms = Math.max(0, passed_ms - running_ms);
  const left = { ...pool, running_ms: Math.max(0, running_ms - passed_ms) };
  if (spent_ms >= waiting_work_ms)
    return {
      ...left,
      waiting: 0,
      waiting_work_ms: 0,
      oldest: undefined,
      passed_over_since: undefined,
      leases: left.running_ms > 0 ? pool.leases : 0,
      idle_since: left.running_ms > 0 ? undefined : (pool.idle_since ?? now),
    };
  const own = oldest?.accepted_at ?? asked_at;
  const moved_ms = ((asked_at - own) * spent_ms) / waiting_work_ms;
  const accepted_at = own + moved_ms;
  return {
    ...left,
    waiting_work_ms: waiting_work_ms - spent_ms,
    oldest: { sequence: (oldest?.sequence ?? own) + moved_ms, accepted_at },
    leases: Math.max(1, pool.leases),
  };
}

function passOver(pools: readonly SwapPool[], now: number): SwapPool[] {
  const passed = new Set(
    pools
      .filter(({ state, waiting }) => state === 'loaded' && waiting > 0)
      .flatMap((pool) => passedBy(pools, pool, pool.oldest?.sequence ?? 0)),
  );
  return pools.map((pool) =>
    passed.has(pool) ? { ...pool, passed_over_since: pool.passed_over_since ?? now } : pool,
  );
}
