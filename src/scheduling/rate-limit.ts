/**
 * How many may come per second: a bucket that holds `burst` and is filled evenly. Kept as the time at which the bucket
 * is full again, so that neither a long idle time nor a fractional rate loses anything. Time is passed in, monotonic
 * milliseconds; where it does not move, the burst is all there is.
 */
export class RateLimit {
  readonly #interval_ms: number;
  /** How far ahead of now the bucket may become full while there is still one in it. */
  readonly #tolerance_ms: number;
  #full_at = -Infinity;

  /**
   * @param per_second above 0; fractions are fine: 0.1 is one in ten seconds
   * @param burst how many may come at once after a pause; at least 1. Default: those of one second, rounded up
   */
  constructor(per_second: number, burst: number = Math.max(1, Math.ceil(per_second))) {
    this.#interval_ms = 1000 / per_second;
    this.#tolerance_ms = (burst - 1) * this.#interval_ms;
  }

  /** @returns whole milliseconds until one more may come; 0 means now */
  waitFor(now: number): number {
    return Math.max(0, Math.ceil(this.#full_at - this.#tolerance_ms - now));
  }

  /**
   * Counts one that came.
   * @returns whether it was allowed; where it was not, nothing is counted
   */
  take(now: number): boolean {
    if (this.waitFor(now) > 0) return false;
    this.#full_at = Math.max(this.#full_at, now) + this.#interval_ms;
    return true;
  }
}
