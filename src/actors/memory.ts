import type { Clock } from '../clock.ts';
import { failure } from '../errors.ts';
import { passedBy } from '../scheduling/passes.ts';
import { predictLoad } from '../scheduling/predict-load.ts';
import { SwapLedger } from '../scheduling/swap-ledger.ts';
import type { SwapPlan } from '../scheduling/swap-plan.ts';
import { planSwaps } from '../scheduling/swap-planner.ts';
import {
  neverFits,
  type SwapDevice,
  type SwapPool,
  type SwapRules,
  type SwapView,
} from '../scheduling/swap-view.ts';
import { HOST, memoryOf, MemoryView } from './memory-view.ts';
import type { Observers } from './observation.ts';
import type { Pool } from './pool.ts';
import type { TaskRecord } from './task-record.ts';

/** What pools may take together, and how they take turns. */
export interface MemoryBudget {
  /** For engines without an accelerator, in bytes; undefined: as much as there is. */
  host_bytes: number | undefined;
  /** What engines may take of each accelerator. */
  devices: readonly { id: number; bytes: number }[];
}

export interface MemoryOptions {
  clock: Clock;
  pools: ReadonlyMap<string, Pool>;
  budget: MemoryBudget;
  rules: SwapRules;
  observers: Observers;
}

/** Why a pool with work is not loaded. */
export interface MemoryWait {
  reason: string;
  human: string;
}

/** Who is in memory: does what the swap planner says, which is asked whenever something may have changed. */
export class Memory {
  readonly #options: MemoryOptions;
  readonly #devices: SwapDevice[];
  readonly #views = new Map<Pool, MemoryView>();
  readonly #waits = new Map<string, MemoryWait>();
  #plan: SwapPlan | undefined;
  #timer: unknown;
  #isLooking = false;
  #isDirty = false;

  constructor(options: MemoryOptions) {
    const { host_bytes = Infinity, devices } = options.budget;
    this.#options = options;
    this.#devices = [
      { id: HOST, budget_bytes: host_bytes },
      ...devices.map(({ id, bytes }) => ({ id: String(id), budget_bytes: bytes })),
    ];
  }

  /** Whether anybody may ever have to wait for memory, or to give it back. */
  get isShared(): boolean {
    if (this.#isLimited) return true;
    return [...this.#options.pools.values()].some(({ spec }) => spec.idle_ttl_ms !== undefined);
  }

  /** Whether any memory has a budget. */
  get #isLimited(): boolean {
    const { host_bytes, devices } = this.#options.budget;
    return host_bytes !== undefined || devices.length > 0;
  }

  /** Why this pool is not loaded, where it waits for that. */
  waitOf(pool_id: string): MemoryWait | undefined {
    return this.#waits.get(pool_id);
  }

  /**
   * Of the devices of a pool, the one with the least to spare: nothing that is spread over them can be larger there.
   * Undefined where a device has no budget.
   */
  roomOf(pool: Pool): { free_bytes: number; total_bytes: number } | undefined {
    // Asked at each admission: mostly nothing has a limit.
    if (!this.#isLimited) return undefined;
    const { pools } = this.#view();
    const devices = Object.keys(memoryOf(pool)).map((id) => this.#devices.find((device) => device.id === id));
    const rooms = devices.map((device) => {
      const total_bytes = device?.budget_bytes ?? Infinity;
      const held = pools
        .filter(({ state }) => state !== 'cold')
        .reduce((sum, { memory_bytes }) => sum + (memory_bytes[device?.id ?? ''] ?? 0), 0);
      return { free_bytes: Math.max(0, total_bytes - held), total_bytes };
    });
    const [least] = rooms.toSorted((a, b) => a.free_bytes - b.free_bytes);
    return least && Number.isFinite(least.total_bytes) ? least : undefined;
  }

  /** Tasks that come after this place in the order of all admissions get no lease of the pool now. */
  lastCallOf(pool_id: string): number | undefined {
    return this.#plan?.last_calls.find((call) => call.pool_id === pool_id)?.before_sequence;
  }

  /** Milliseconds until a pool is expected to be loaded; undefined where nobody shares memory, or nothing can be said. */
  untilLoaded(pool: Pool): number | undefined {
    return this.isShared ? predictLoad(this.#view(), this.#options.rules, pool.spec.id) : undefined;
  }

  /** A task got a lease: it passes those of other pools that were accepted before it. */
  granted(pool: Pool, { sequence }: TaskRecord): void {
    if (!this.isShared) return;
    const { now, pools } = this.#view();
    const granting = pools.find(({ id }) => id === pool.spec.id);
    if (!granting) return;
    for (const { id } of passedBy(pools, granting, sequence))
      this.#viewOf(this.#options.pools.get(id) as Pool).passes.note(now, sequence);
  }

  /** Something may have changed: to be called before leases are given, and after. */
  look(): void {
    if (!this.isShared) {
      for (const pool of this.#options.pools.values())
        if (pool.engines.wantsMemory) pool.engines.grantMemory();
      return;
    }
    this.#isDirty = true;
    if (this.#isLooking) return;
    this.#isLooking = true;
    try {
      // What is done here changes what was looked at.
      while (this.#isDirty) {
        this.#isDirty = false;
        this.#act();
      }
    } finally {
      this.#isLooking = false;
    }
  }

  close(): void {
    this.#options.clock.clearTimeout(this.#timer);
  }

  #act(): void {
    const { pools, rules, observers, clock } = this.#options;
    const view = this.#view();
    const plan = (this.#plan = planSwaps(view, rules));
    this.#waits.clear();
    for (const { pool_id, reason, human } of plan.waiting) this.#waits.set(pool_id, { reason, human });
    clock.clearTimeout(this.#timer);
    if (plan.look_again_in_ms !== undefined)
      this.#timer = clock.setTimeout(
        () => this.look(),
        Math.min(LONGEST_TIMER_MS, Math.max(1, Math.ceil(plan.look_again_in_ms))),
      );
    for (const step of plan.steps) {
      const pool = pools.get(step.pool_id) as Pool;
      if (!this.#viewOf(pool).order(step.do)) continue;
      observers.tell({
        type: 'memory.planned',
        pool_id: step.pool_id,
        do: step.do,
        reason: step.reason,
        human: step.human,
      });
      if (step.do === 'load') pool.engines.grantMemory();
      else pool.engines.unload(step.reason);
    }
    for (const pool of view.pools) this.#admit(pool, view, plan);
  }

  /** One that nobody waits for is loaded where there is room to spare; one that never fits is told. */
  #admit(pool: SwapPool, view: SwapView, plan: SwapPlan): void {
    const one = this.#options.pools.get(pool.id) as Pool;
    const { engines, spec } = one;
    if (!engines.wantsMemory || pool.state !== 'cold') return;
    const device = neverFits(view, pool);
    if (device !== undefined) {
      const need = pool.memory_bytes[device] ?? 0;
      return engines.refuseMemory(
        failure(
          'POOL_UNAVAILABLE',
          `pool ${spec.id} takes ${need} bytes of ${device === HOST ? 'this machine' : `device ${device}`}, more than pools may have there`,
          { retriable: false, pool_id: spec.id },
        ),
      );
    }
    const isContended = plan.waiting.some(({ pool_id }) => pool_id !== pool.id);
    if (pool.waiting > 0 || isContended || plan.steps.length > 0) return;
    const ledger = new SwapLedger(view, this.#options.rules);
    if (!ledger.fitsNow(pool) || !ledger.mayLoad(pool) || !this.#viewOf(one).order('load')) return;
    engines.grantMemory();
    // The next one has less to spare.
    this.#isDirty = true;
  }

  #view(): SwapView {
    const { clock, pools } = this.#options;
    const now = clock.now();
    return {
      now,
      devices: this.#devices,
      pools: Array.from(pools.values(), (pool) => this.#viewOf(pool).look(now)),
    };
  }

  #viewOf(pool: Pool): MemoryView {
    let view = this.#views.get(pool);
    if (!view) this.#views.set(pool, (view = new MemoryView(pool, this.#options.clock.now())));
    return view;
  }
}

const LONGEST_TIMER_MS = 2 ** 31 - 1;
