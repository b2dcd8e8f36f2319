/** Where a pool stands as to memory. Memory is taken in every state but `cold`. */
export type SwapState =
  /** Nothing of it is in memory. */
  | 'cold'
  /** On its way into memory; cannot be called back. */
  | 'loading'
  /** Takes leases. */
  | 'loaded'
  /** Takes no new leases: its running tasks end, then its memory is freed. */
  | 'unloading';

/** A pool as the swap planner sees it: one model, its replicas loaded and unloaded together. */
export interface SwapPool {
  id: string;
  state: SwapState;
  /** When it entered its state, in milliseconds on the clock of {@link SwapView.now}. */
  since: number;
  /** Bytes that all its replicas take on each device, by device id: as measured, else as configured. */
  memory_bytes: Readonly<Record<string, number>>;
  /** Milliseconds that a load takes; undefined where none was measured. */
  load_ms: number | undefined;
  /** Milliseconds from the end of the last lease until the memory is free; undefined where none was measured. */
  unload_ms: number | undefined;
  /** Tasks that wait for a slot. */
  waiting: number;
  /** When the task that has waited longest was accepted, on the same clock; undefined where none waits. */
  oldest_accepted_at: number | undefined;
  /** Milliseconds that its slots would be busy with what waits. */
  waiting_work_ms: number;
  /** Running tasks. */
  leases: number;
  /** Milliseconds until the last of the running tasks is expected to end; 0 where none runs. Only `predictLoad` asks. */
  running_ms: number;
  /**
   * Since when others pass its waiting tasks, on the same clock: the first lease that {@link passedOverBy} named it
   * for. Undefined again as soon as it is given a lease itself, or nobody waits.
   */
  passed_over_since: number | undefined;
  /** When its last lease ended with nobody waiting, or its load did, on the same clock; undefined while it is in use. */
  idle_since: number | undefined;
  /** It is never unloaded by the planner, neither for others nor for idling. */
  pinned: boolean;
  /** False while it must not be loaded: drained by an operator, or its breaker is open. */
  can_load: boolean;
  /** Overrides {@link SwapRules.idle_ttl_ms}; 0: never. */
  idle_ttl_ms?: number | undefined;
}

export interface SwapDevice {
  id: string;
  /** Bytes that all pools together may take. */
  budget_bytes: number;
}

export interface SwapView {
  /** Milliseconds on any clock that the times of the pools are on too. */
  now: number;
  devices: readonly SwapDevice[];
  /** All that may ever take memory of these devices. The order does not matter. */
  pools: readonly SwapPool[];
}

export interface SwapRules {
  /** Milliseconds without work after which a pool is unloaded though nobody wants its memory; 0: never. */
  idle_ttl_ms: number;
  /** Milliseconds that a pool with waiting tasks stays loaded at least, unless another is overdue. */
  min_residency_ms: number;
  /** Milliseconds for which a pool that is not loaded may be passed over; then it is overdue. */
  max_overtaken_ms: number;
  /** Loads at the same time on one device, at least 1. */
  max_parallel_loads: number;
  /** Milliseconds of work that a millisecond of waiting counts as; 0: only work counts. */
  ageing: number;
}

export const DEFAULT_SWAP_RULES: SwapRules = {
  idle_ttl_ms: 0,
  min_residency_ms: 5000,
  max_overtaken_ms: 60_000,
  max_parallel_loads: 1,
  ageing: 1,
};

/** Stand in for what was not measured: a process that starts, and a file that is read at 2 GB/s. */
const UNMEASURED = { start_ms: 1000, bytes_per_ms: 2e6, unload_ms: 500 };

/** Milliseconds. */
export function loadTime(pool: SwapPool): number {
  if (pool.load_ms !== undefined) return pool.load_ms;
  const bytes = Object.values(pool.memory_bytes).reduce((sum, part) => sum + part, 0);
  return UNMEASURED.start_ms + bytes / UNMEASURED.bytes_per_ms;
}

/** Milliseconds, after the last lease. */
export function unloadTime(pool: SwapPool): number {
  return pool.unload_ms ?? UNMEASURED.unload_ms;
}

/** Milliseconds for which its oldest task has waited; 0 where none waits. */
export function waited(pool: SwapPool, now: number): number {
  return pool.oldest_accepted_at === undefined ? 0 : Math.max(0, now - pool.oldest_accepted_at);
}

/**
 * How much a pool wants its turn, in milliseconds: the work that waits, and the wait of its oldest task times the
 * ageing factor.
 */
export function urge(pool: SwapPool, now: number, { ageing }: SwapRules): number {
  return pool.waiting === 0 ? 0 : pool.waiting_work_ms + ageing * waited(pool, now);
}

/** Since when it waits for its turn though the bound is over; undefined where it is not overdue. */
export function overdueSince(pool: SwapPool, now: number, rules: SwapRules): number | undefined {
  if (pool.waiting === 0 || pool.passed_over_since === undefined) return undefined;
  const due_at = pool.passed_over_since + rules.max_overtaken_ms;
  return now >= due_at ? due_at : undefined;
}

/** Whether both take memory of the same device. */
export function compete(one: SwapPool, other: SwapPool): boolean {
  return Object.entries(one.memory_bytes).some(
    ([device, bytes]) => bytes > 0 && (other.memory_bytes[device] ?? 0) > 0,
  );
}

/**
 * The pools that a lease passes over: not loaded, on a device of the pool that gives it, and with a task that was
 * accepted before the one that gets it. Their `passed_over_since` begins now, where it has not begun before.
 * @param accepted_at of the task that gets the lease
 */
export function passedOverBy(pools: readonly SwapPool[], pool_id: string, accepted_at: number): string[] {
  const granting = pools.find(({ id }) => id === pool_id);
  if (!granting) return [];
  return pools
    .filter(
      (pool) =>
        pool.state !== 'loaded' &&
        pool.oldest_accepted_at !== undefined &&
        pool.oldest_accepted_at < accepted_at &&
        pool.id !== pool_id &&
        compete(pool, granting),
    )
    .map(({ id }) => id);
}

/**
 * The device on which a pool can never be loaded, whatever is unloaded: it takes more there than the budget less what
 * the other pinned pools take, or the device does not exist. Undefined where it can be loaded.
 */
export function neverFits({ devices, pools }: Pick<SwapView, 'devices' | 'pools'>, pool: SwapPool): string | undefined {
  const pinned = pools.filter((other) => other.pinned && other.id !== pool.id);
  return Object.keys(pool.memory_bytes)
    .toSorted()
    .find((device) => {
      const need = pool.memory_bytes[device] ?? 0;
      const budget = devices.find(({ id }) => id === device)?.budget_bytes ?? 0;
      const taken = pinned.reduce((sum, other) => sum + (other.memory_bytes[device] ?? 0), 0);
      return need > 0 && need > budget - taken;
    });
}
