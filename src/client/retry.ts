import { TaskchartError } from '../errors.ts';

/** What tests replace. */
export interface ClientPorts {
  /**
   * Waits between two attempts; an abort rejects with the signal's reason.
   * @default setTimeout
   */
  sleep?: (ms: number, signal?: AbortSignal) => Promise<void>;
  /** Milliseconds from an arbitrary origin. @default Date.now */
  now?: () => number;
  /** 0 to 1; the jitter of waits that the server did not ask for. @default Math.random */
  random?: () => number;
}

const BASE_MS = 100;
const FACTOR = 2;
const CAP_MS = 2000;

/**
 * How long to wait before another attempt, in milliseconds: what the server asked for, or else 100 ms, doubled each
 * time up to 2 s, between half and all of it. Never 0, so that nobody is asked again in the same instant.
 * @param failed attempts in a row that failed, at least 1
 */
export function waitBefore(error: unknown, failed: number, random: () => number): number {
  const asked = error instanceof TaskchartError ? error.failure.retry_after_ms : undefined;
  if (asked !== undefined && asked > 0) return asked;
  const most = Math.min(CAP_MS, BASE_MS * FACTOR ** (failed - 1));
  return most / 2 + (most / 2) * random();
}

/** Whether the same request may succeed later. */
export function isRetriable(error: unknown): error is TaskchartError {
  return error instanceof TaskchartError && error.failure.retriable;
}

/** Resolves after `ms`; an abort rejects with the signal's reason and leaves no timer. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason as Error);
      return;
    }
    const stop = (): void => {
      clearTimeout(timer);
      reject(signal?.reason as Error);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop);
      resolve();
    }, ms);
    signal?.addEventListener('abort', stop, { once: true });
  });
}
