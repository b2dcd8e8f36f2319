import { failure, TaskchartError } from '../errors.ts';

/** What a pool needs cannot be had now; later it may be. */
export function unavailable(message: string, retry_after_ms?: number): TaskchartError {
  return new TaskchartError(
    failure('POOL_UNAVAILABLE', message, retry_after_ms === undefined ? {} : { retry_after_ms }),
  );
}

/** What a pool needs cannot be had as long as nobody changes something. */
export function unobtainable(message: string): TaskchartError {
  return new TaskchartError(failure('POOL_UNAVAILABLE', message, { retriable: false }));
}

/** A setting forbids to fetch it. */
export function forbidden(message: string): TaskchartError {
  return new TaskchartError(failure('POOL_UNREADY', message, { retriable: false }));
}

/** What came, or was offered, is not what was asked for. */
export function untrusted(message: string): TaskchartError {
  return new TaskchartError(failure('UNTRUSTED_ARTIFACT', message));
}
