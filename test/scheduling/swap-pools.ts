import { planSwaps } from '../../src/scheduling/swap-planner.ts';
import type { SwapPlan } from '../../src/scheduling/swap-plan.ts';
import {
  DEFAULT_SWAP_RULES,
  type SwapPool,
  type SwapRules,
  type SwapView,
} from '../../src/scheduling/swap-view.ts';

/** The time of {@link view}. */
export const NOW = 1_000_000;

/** A pool that fills the device, is cold, and has no work. */
export function swapPool(id: string, changes: Partial<SwapPool> = {}): SwapPool {
  return {
    id,
    state: 'cold',
    since: NOW - 600_000,
    memory_bytes: { gpu0: 100 },
    load_ms: 4000,
    unload_ms: 500,
    waiting: 0,
    oldest: undefined,
    waiting_work_ms: 0,
    leases: 0,
    running_ms: 0,
    passed_over_since: undefined,
    idle_since: undefined,
    pinned: false,
    can_load: true,
    ...changes,
  };
}

/** Tasks that wait: so many, the oldest for so long, each of a second. */
export function queue(waiting: number, waited_ms: number): Partial<SwapPool> {
  return {
    waiting,
    waiting_work_ms: waiting * 1000,
    oldest: { sequence: NOW - waited_ms, accepted_at: NOW - waited_ms },
  };
}

/** Loaded a while ago, without work for so long. */
export function idle(for_ms: number): Partial<SwapPool> {
  return { state: 'loaded', idle_since: NOW - for_ms };
}

/** Loaded, with a task that runs for another second. */
export function busy(): Partial<SwapPool> {
  return { state: 'loaded', leases: 1, running_ms: 1000 };
}

/** One device of 100 bytes. */
export function viewOf(...pools: SwapPool[]): SwapView {
  return { now: NOW, devices: [{ id: 'gpu0', budget_bytes: 100 }], pools };
}

/** What is planned for these pools, in short. */
export function plan(
  pools: SwapPool[],
  rules: Partial<SwapRules> = {},
  view: SwapView = viewOf(...pools),
): SwapPlan & { does: string[]; waits: string[] } {
  const answer = planSwaps(view, { ...DEFAULT_SWAP_RULES, ...rules });
  return {
    ...answer,
    does: answer.steps.map((step) =>
      [step.do, step.pool_id, step.reason, ...(step.do === 'unload' ? [step.turn_over] : [])].join(' '),
    ),
    waits: answer.waiting.map(({ pool_id, reason }) => `${pool_id} ${reason}`),
  };
}
