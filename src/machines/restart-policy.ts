/** When a child that failed is started again, and when not any more. */
export interface RestartRule {
  /** First wait in milliseconds. */
  initial_ms: number;
  /** Growth of the wait with each failure in a row. */
  factor: number;
  max_ms: number;
  /** No wait is shorter, in milliseconds. */
  min_ms: number;
  /** Share of the wait by which it varies, 0 to 1. */
  jitter: number;
  /** By how much longer the wait is after a fault of the device (a CUDA error). */
  device_factor: number;
  /** A child that worked for so long, in milliseconds, has its failures forgiven. */
  stable_ms: number;
  /** Failures in a row that open the breaker; faults of the device are counted for themselves. */
  breaker_threshold: number;
  /** How long the breaker stays open the first time, in milliseconds; twice as long after each failed trial. */
  breaker_open_ms: number;
  /** A trial that worked for so long, in milliseconds, closes the breaker. */
  trial_stable_ms: number;
  /** Restarts within `window_ms`; one more opens the breaker. */
  max_restarts: number;
  window_ms: number;
}

/** What a child has gone through. Times are monotonic milliseconds. */
export interface RestartHistory {
  /** Failures in a row that were not the device's. */
  failures: number;
  /** Faults of the device in a row. */
  device_failures: number;
  /** Last fault was the device's. */
  is_device: boolean;
  restarts_at: readonly number[];
}

export const NO_HISTORY: RestartHistory = {
  failures: 0,
  device_failures: 0,
  is_device: false,
  restarts_at: [],
};

/** The history after one more failure. */
export function noteFailed(history: RestartHistory, isDevice: boolean): RestartHistory {
  return {
    ...history,
    failures: history.failures + (isDevice ? 0 : 1),
    device_failures: history.device_failures + (isDevice ? 1 : 0),
    is_device: isDevice,
  };
}

/** The history after one more restart; what is older than the window is forgotten. */
export function noteRestarted(rule: RestartRule, history: RestartHistory, now: number): RestartHistory {
  return { ...history, restarts_at: [...recentRestarts(rule, history, now), now] };
}

/**
 * Two limits open the breaker: failures in a row, because a load that takes long before it fails would slide out of
 * any window; and restarts within a window, because an engine may well come up each time before it dies.
 * @param random 0 to 1, spread evenly
 * @returns the wait in milliseconds before the next start, or undefined where the breaker opens
 */
export function restartDelay(
  rule: RestartRule,
  history: RestartHistory,
  now: number,
  random: number,
): number | undefined {
  const { failures, device_failures, is_device } = history;
  if (failures >= rule.breaker_threshold || device_failures >= rule.breaker_threshold) return undefined;
  if (recentRestarts(rule, history, now).length >= rule.max_restarts) return undefined;
  const inRow = Math.max(1, is_device ? device_failures : failures);
  const wait =
    Math.min(rule.max_ms, rule.initial_ms * rule.factor ** (inRow - 1)) *
    (is_device ? rule.device_factor : 1);
  return Math.max(rule.min_ms, Math.round(wait * (1 + rule.jitter * (2 * random - 1))));
}

/** How long the breaker stays open, in milliseconds. @param trials failed ones in a row */
export function breakerOpenFor(rule: RestartRule, trials: number): number {
  return Math.min(LONGEST_TIMER_MS, rule.breaker_open_ms * 2 ** trials);
}

const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** When it was restarted within the window that ends now. */
export function recentRestarts(
  { window_ms }: RestartRule,
  { restarts_at }: RestartHistory,
  now: number,
): readonly number[] {
  return restarts_at.filter((at) => now - at < window_ms);
}
