import { loadTime, urge, type SwapPool, type SwapRules } from './swap-view.ts';

/** What an idle pool counts as at least when it is asked how long nobody has wanted it. */
const JUST_IDLE_MS = 1000;

/** Who has to go so that another fits. */
export interface Victims {
  pools: SwapPool[];
  /** Whether the other fits once they have gone. */
  suffice: boolean;
}

/** Whether it has neither running nor waiting tasks. */
export function isIdle(pool: SwapPool): boolean {
  return pool.waiting === 0 && pool.leases === 0;
}

/**
 * The least useful pools whose going frees what is missing, none of which could stay. Those in use go after all that
 * are not. Of two that are idle, the one goes of which less is lost for each byte: its load time, divided by how long
 * nobody has wanted it, since who was wanted a second ago will be wanted again sooner than who was wanted an hour ago.
 * Of two in use, the one with less {@link urge} and load time for each byte.
 * @param missing bytes, by device id
 * @param candidates those that may go
 */
export function chooseVictims(
  missing: ReadonlyMap<string, number>,
  candidates: readonly SwapPool[],
  now: number,
  rules: SwapRules,
): Victims {
  const ranked = candidates
    .filter((pool) => freed(pool, missing) > 0)
    .map((pool) => ({ pool, isIdle: isIdle(pool), loss: loss(pool, now, rules) / freed(pool, missing) }))
    .toSorted(
      (a, b) =>
        Number(b.isIdle) - Number(a.isIdle) ||
        a.loss - b.loss ||
        a.pool.since - b.pool.since ||
        (a.pool.id < b.pool.id ? -1 : 1),
    )
    .map(({ pool }) => pool);
  const chosen: SwapPool[] = [];
  for (const pool of ranked) {
    if (suffices(chosen, missing)) break;
    chosen.push(pool);
  }
  if (!suffices(chosen, missing)) return { pools: chosen, suffice: false };
  for (const pool of chosen.toReversed()) {
    const others = chosen.filter((one) => one !== pool);
    if (suffices(others, missing)) chosen.splice(chosen.indexOf(pool), 1);
  }
  return { pools: chosen, suffice: true };
}

/** Bytes that its going frees where they are missing; what is more than missing counts for nothing. */
function freed(pool: SwapPool, missing: ReadonlyMap<string, number>): number {
  let bytes = 0;
  for (const [device, short] of missing) bytes += Math.min(short, pool.memory_bytes[device] ?? 0);
  return bytes;
}

function suffices(pools: readonly SwapPool[], missing: ReadonlyMap<string, number>): boolean {
  for (const [device, short] of missing)
    if (pools.reduce((sum, pool) => sum + (pool.memory_bytes[device] ?? 0), 0) < short) return false;
  return true;
}

function loss(pool: SwapPool, now: number, rules: SwapRules): number {
  if (!isIdle(pool)) return urge(pool, now, rules) + loadTime(pool);
  return loadTime(pool) / Math.max(JUST_IDLE_MS, now - (pool.idle_since ?? pool.since));
}
