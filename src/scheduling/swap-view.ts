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

export interface OldestTask {
  /** Place in the order of all admissions; no two tasks have the same. */
  sequence: number;
  /** When it was accepted, in milliseconds on the clock of {@link SwapView.now}. */
  accepted_at: number;
}

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
  /** The task among them that was accepted first; undefined where none waits. */
  oldest: OldestTask | undefined;
  /** Milliseconds that its slots would be busy with what waits. */
  waiting_work_ms: number;
  /** Running tasks. */
  leases: number;
  /** Milliseconds until the last of the running tasks is expected to end; 0 where none runs. Only `predictLoad` asks. */
  running_ms: number;
  /**
   * Since when others pass its oldest waiting task, on the same clock; undefined where nobody does. `Passes` keeps it.
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
  /** Milliseconds without work after which a pool is unloaded though nobody wants its memory; 0: never. @default 0 */
  idle_ttl_ms: number;
  /**
   * Milliseconds that a pool with waiting tasks stays loaded at least, unless another is overdue. A pool without work
   * makes room at once. @default 5000
   */
  min_residency_ms: number;
  /**
   * Milliseconds, above 0, for which a waiting task may be passed by tasks that were accepted after it, of pools that
   * cannot be loaded beside its own; then its pool is overdue. Where queues are always full each pool loads once or
   * twice in that time, so less than ten times the load times of all that share a device costs throughput. Infinity: no
   * bound. @default 180000
   */
  max_overtaken_ms: number;
  /** Loads at the same time on one device, at least 1. @default 1 */
  max_parallel_loads: number;
  /** Milliseconds of waiting work that a millisecond of waiting counts as; 0: only work counts. @default 1 */
  ageing: number;
  /**
   * How many times more the urge of a pool must be than all that its swap costs others, before a pool that still has
   * a queue makes room for it; at least 1. Infinity: it never does before the other is overdue. @default 8
   */
  payback: number;
}

/** What a row of simulated traces was best served with; `npm run bench -- swap` shows it. */
export const DEFAULT_SWAP_RULES: SwapRules = {
  idle_ttl_ms: 0,
  min_residency_ms: 5000,
  max_overtaken_ms: 180_000,
  max_parallel_loads: 1,
  ageing: 1,
  payback: 8,
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
  return pool.oldest ? Math.max(0, now - pool.oldest.accepted_at) : 0;
}

/**
 * How much a pool wants its turn, in milliseconds: the work that waits, and the wait of its oldest task times the
 * ageing factor.
 */
export function urge(pool: SwapPool, now: number, { ageing }: SwapRules): number {
  return pool.waiting === 0 ? 0 : pool.waiting_work_ms + ageing * waited(pool, now);
}

/** Milliseconds until it is overdue; 0 when it is, undefined while nobody has passed its oldest task. */
export function overdueIn(pool: SwapPool, now: number, { max_overtaken_ms }: SwapRules): number | undefined {
  if (pool.waiting === 0 || pool.passed_over_since === undefined) return undefined;
  return Math.max(0, pool.passed_over_since + max_overtaken_ms - now);
}

type Holder = Pick<SwapPool, 'memory_bytes'>;

/** Whether both take memory of the same device. */
export function compete(one: Holder, other: Holder): boolean {
  return Object.entries(one.memory_bytes).some(
    ([device, bytes]) => bytes > 0 && (other.memory_bytes[device] ?? 0) > 0,
  );
}

/**
 * The device on which a pool can never be loaded, whatever is unloaded: it takes more there than the budget less what
 * the other pinned pools take, or the device does not exist. Undefined where it can be loaded.
 */
export function neverFits(
  { devices, pools }: Pick<SwapView, 'devices' | 'pools'>,
  pool: SwapPool,
): string | undefined {
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
