/** What a pool has measured of itself; undefined where nothing was measured yet. */
export interface Rates {
  /** Milliseconds from grant to first token. */
  first_token_ms: number | undefined;
  /** Milliseconds a task holds its slot. */
  service_ms: number | undefined;
  /** Milliseconds from asking for the pool until it is ready. */
  load_ms: number | undefined;
}

export interface EstimateView {
  rates: Rates;
  /** Tasks that go before this one. */
  ahead: number;
  slots_total: number;
  slots_free: number;
  /** Milliseconds the pool still needs to be ready; 0 when it is. */
  until_ready_ms: number;
  /** Milliseconds for which the running tasks have held their slots; asked for only where no slot is free. */
  held_ms: () => readonly number[];
}

/** Stands in for a rate until the first task has been measured. */
const UNMEASURED_SERVICE_MS = 500;

/**
 * When a task at this place is expected to get a slot, in milliseconds from now: readiness, then the remaining time
 * of the lease that ends first if no slot is free, then one service time per full round of tasks ahead.
 * Monotone in `ahead`.
 */
export function predictStart(view: EstimateView): number {
  const service = view.rates.service_ms ?? UNMEASURED_SERVICE_MS;
  const slots = Math.max(1, view.slots_total);
  if (view.ahead < view.slots_free) return Math.round(view.until_ready_ms);
  const turn = view.ahead - view.slots_free;
  const remaining = view
    .held_ms()
    .map((held) => Math.max(0, service - held))
    .toSorted((a, b) => a - b);
  const freed = remaining[Math.min(turn % slots, remaining.length - 1)] ?? 0;
  return Math.round(view.until_ready_ms + freed + service * Math.floor(turn / slots));
}

/** Probability that the answer is complete before the deadline; 1 far inside, 0 when missed, falling between. */
export function onTimeProbability(predicted_end_ms: number, deadline_ms: number): number {
  if (deadline_ms <= 0) return 0;
  const slack = (deadline_ms - predicted_end_ms) / deadline_ms;
  return Math.round(Math.min(1, Math.max(0, 0.5 + slack)) * 100) / 100;
}

/** Exponentially weighted mean that starts at its first sample. */
export function smooth(mean: number | undefined, sample: number, weight = 0.2): number {
  return mean === undefined ? sample : mean + weight * (sample - mean);
}
