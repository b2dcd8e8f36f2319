/** When a child that failed is started again, and when not any more. */
export interface RestartRule {
  /** First wait in milliseconds. */
  initial_ms: number;
  /** Growth per restart inside the window. */
  factor: number;
  max_ms: number;
  /** Share of the wait by which it varies, 0 to 1. */
  jitter: number;
  /** Restarts allowed inside the window; one more and the child is given up. */
  max_restarts: number;
  window_ms: number;
}

/**
 * @param restarts monotonic milliseconds of earlier restarts
 * @param random 0 to 1, spread evenly
 * @returns the wait in milliseconds before the next start, or undefined where the budget is spent
 */
export function restartDelay(
  rule: RestartRule,
  restarts: readonly number[],
  now: number,
  random: number,
): number | undefined {
  const recent = restarts.filter((at) => now - at < rule.window_ms).length;
  if (recent >= rule.max_restarts) return undefined;
  const wait = Math.min(rule.max_ms, rule.initial_ms * rule.factor ** recent);
  return Math.round(wait * (1 + rule.jitter * (2 * random - 1)));
}
