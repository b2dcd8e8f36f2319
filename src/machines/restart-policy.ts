/** When a child that failed is started again, and when not any more. */
export interface RestartRule {
  /** First wait in milliseconds. */
  initial_ms: number;
  /** Growth of the wait with each failure in a row. */
  factor: number;
  max_ms: number;
  /** Share of the wait by which it varies, 0 to 1. */
  jitter: number;
  /** Restarts in a row; one more failure and the child is given up. */
  max_restarts: number;
  /** A child that worked for so long, in milliseconds, has its failures forgiven. */
  stable_ms: number;
}

/**
 * Failures are counted in a row and not within a window: a load that takes long before it fails would slide out of any
 * window and be tried for ever.
 * @param restarts restarts since the child was last stable
 * @param random 0 to 1, spread evenly
 * @returns the wait in milliseconds before the next start, or undefined where the budget is spent
 */
export function restartDelay(rule: RestartRule, restarts: number, random: number): number | undefined {
  if (restarts >= rule.max_restarts) return undefined;
  const wait = Math.min(rule.max_ms, rule.initial_ms * rule.factor ** restarts);
  return Math.round(wait * (1 + rule.jitter * (2 * random - 1)));
}
