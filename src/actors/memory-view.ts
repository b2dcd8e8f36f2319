import type { PreparedModel } from '../machines/provisioner.ts';
import { workTime } from '../scheduling/estimate.ts';
import { Passes } from '../scheduling/passes.ts';
import type { SwapPool, SwapState } from '../scheduling/swap-view.ts';
import type { Pool } from './pool.ts';
import type { PoolSpec } from './pool-options.ts';

/** Of engines without an accelerator. */
export const HOST = 'host';

/** What a process takes beside its model, in bytes; until it was measured. */
const PROCESS_BYTES = 150e6;

/** A pool as the swap planner sees it, and what has to be remembered of it for that. */
export class MemoryView {
  readonly pool: Pool;
  readonly passes = new Passes();
  #state: SwapState = 'cold';
  #since: number;
  #idleSince: number | undefined;
  /** What its pool was told and has not begun yet. */
  #order: 'load' | 'unload' | undefined;
  /** When its replicas began to let go, and how long that took last, in milliseconds. */
  #unloadMs: number | undefined;

  constructor(pool: Pool, now: number) {
    this.pool = pool;
    this.#since = now;
  }

  /** It does so from now on, whenever its pool gets around to it. @returns false where it was told already */
  order(what: 'load' | 'unload'): boolean {
    if (this.#order === what) return false;
    this.#order = what;
    return true;
  }

  /** To be called whenever something may have changed. */
  look(now: number): SwapPool {
    const { pool, passes } = this;
    const { spec, queue, rates } = pool;
    this.#note(this.#stateOf(), now);
    const { oldest: record, length: waiting } = queue;
    // What is reloaded has to come back, also where nobody waits for it.
    const isOwed = pool.engines.wantsMemory && pool.phase === 'reloading' && waiting === 0;
    const oldest = record
      ? { sequence: record.sequence, accepted_at: record.context.times.admitted }
      : isOwed
        ? { sequence: 0, accepted_at: this.#since }
        : undefined;
    return {
      id: spec.id,
      state: this.#state,
      since: this.#since,
      memory_bytes: memoryOf(pool),
      load_ms: rates.load_ms,
      unload_ms: this.#unloadMs,
      waiting: isOwed ? 1 : waiting,
      oldest,
      waiting_work_ms: workTime(rates, queue.work) / Math.max(1, pool.slots_total),
      leases: pool.leases,
      running_ms: Math.max(0, ...pool.remaining(now)),
      passed_over_since: passes.since(oldest),
      idle_since: this.#idleSince,
      // What is being reloaded is nobody's to unload.
      pinned: spec.pinned || pool.phase === 'reloading',
      can_load: this.#state !== 'cold' || pool.engines.wantsMemory,
      ...(spec.idle_ttl_ms === undefined ? {} : { idle_ttl_ms: spec.idle_ttl_ms }),
    };
  }

  #stateOf(): SwapState {
    const { snapshot, holdsMemory, wantsMemory } = this.pool.engines;
    if (this.#order === 'load' && !wantsMemory) this.#order = undefined;
    if (this.#order === 'unload' && snapshot.value !== 'ready') this.#order = undefined;
    if (this.#order === 'load' || snapshot.hasTag('loading')) return 'loading';
    if (!holdsMemory) return 'cold';
    return snapshot.hasTag('ready') && this.#order === undefined ? 'loaded' : 'unloading';
  }

  #note(state: SwapState, now: number): void {
    if (state !== this.#state) {
      if (this.#state === 'unloading' && state === 'cold') this.#unloadMs = now - this.#since;
      this.#state = state;
      this.#since = now;
      this.#idleSince = undefined;
    }
    const isIdle = state === 'loaded' && this.pool.leases === 0 && this.pool.queue_depth === 0;
    this.#idleSince = isIdle ? (this.#idleSince ?? now) : undefined;
  }
}

/** As it was configured, else as it was measured, else as large as its file and its context. */
export function memoryOf({ spec, properties, engines }: Pool): Record<string, number> {
  const of_one =
    spec.memory_bytes ??
    properties?.memory_bytes ??
    (engines.model.prepared ? estimateOf(spec, engines.model.prepared) : 0);
  const devices = spec.devices.length === 0 ? [HOST] : spec.devices.map(String);
  // What was measured or read from a file is of all devices together.
  const whole = spec.memory_bytes === undefined ? 1 : Math.max(...spec.shares);
  return Object.fromEntries(
    devices.map((id, i) => [id, Math.ceil((of_one * spec.replicas * (spec.shares[i] ?? 0)) / whole)]),
  );
}

function estimateOf({ ctx, slots, kv_scale }: PoolSpec, model: PreparedModel): number {
  const { size_bytes, kv_bytes_per_token = 0, context_length = 0 } = model;
  return size_bytes + PROCESS_BYTES + kv_bytes_per_token * kv_scale * (ctx ?? context_length) * slots;
}
