import type { Clock } from '../clock.ts';
import { unavailable } from './failures.ts';

/** How often and how patiently something is tried again. */
export interface RetryRules {
  /** Longest wait before the second try, in milliseconds. */
  base_ms: number;
  multiplier: number;
  /** Longest wait before any try, in milliseconds; a server that asks for a longer one is given it. */
  cap_ms: number;
  /** Tries in a row without progress, the first one included. */
  max_attempts: number;
}

export const FETCH_RETRY: RetryRules = { base_ms: 100, multiplier: 2, cap_ms: 2000, max_attempts: 4 };

/** A server that asks for more patience than this is asked again by whoever wants the model then. */
const MAX_RETRY_AFTER_MS = 120_000;

/** Something that may go well the next time. */
export class TransientError extends Error {
  readonly retry_after_ms: number | undefined;

  constructor(message: string, retry_after_ms?: number) {
    super(message);
    this.name = 'TransientError';
    this.retry_after_ms = retry_after_ms;
  }
}

export interface RetryPorts {
  clock: Clock;
  random: () => number;
  rules: RetryRules;
}

/**
 * Tries until it goes well or fails for good, with full jitter between the tries.
 * @param attempt may call `progressed`, after which its failures count from the first again
 * @throws TaskchartError POOL_UNAVAILABLE once the tries are used up
 */
export async function retrying<T>(
  { clock, random, rules }: RetryPorts,
  signal: AbortSignal,
  attempt: (progressed: () => void) => Promise<T>,
): Promise<T> {
  for (let failed = 0; ;) {
    try {
      return await attempt(() => (failed = 0));
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof TransientError)) throw error;
      const asked = error.retry_after_ms ?? 0;
      if (++failed >= rules.max_attempts || asked > MAX_RETRY_AFTER_MS)
        throw unavailable(error.message, error.retry_after_ms);
      const backoff = random() * Math.min(rules.cap_ms, rules.base_ms * rules.multiplier ** (failed - 1));
      await pause(clock, Math.max(asked, backoff), signal);
    }
  }
}

/** @throws the signal's reason */
export function pause(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const over = () => {
      clock.clearTimeout(timer);
      signal.removeEventListener('abort', over);
      if (signal.aborted) reject(signal.reason as Error);
      else resolve();
    };
    const timer = clock.setTimeout(over, ms);
    signal.addEventListener('abort', over);
    if (signal.aborted) over();
  });
}
