import { failure, TaskchartError, type Failure } from '../errors.ts';

/**
 * What went wrong where the server did not say so itself:
 * `bad_request`: an option of a call is wrong, nothing was sent;
 * `unauthorized`: the server does not serve this token (401, 403);
 * `unreachable`: nobody answers, or the connection broke;
 * `timeout`: no answer within `timeout_ms`, or a stream that was silent for `idle_ms`;
 * `bad_answer`: something answered that does not speak taskchart, such as a proxy with a page of its own;
 * `stream_gap`: an event is missing in a stream;
 * `stream_lost`: a stream broke and could not be taken up again within `reconnect_ms`.
 */
export type ClientErrorReason =
  'bad_request' | 'unauthorized' | 'unreachable' | 'timeout' | 'bad_answer' | 'stream_gap' | 'stream_lost';

/** A failure between the caller and the server. Those of the server itself are a plain {@link TaskchartError}. */
export class ClientError extends TaskchartError {
  readonly reason: ClientErrorReason;
  /** Number of a refused token, such as 40101; only with reason `unauthorized`, and only where the server gave one. */
  readonly auth_code: number | undefined;

  constructor(
    reason: ClientErrorReason,
    cause: Failure,
    { status, auth_code, from }: { status?: number; auth_code?: number; from?: unknown } = {},
  ) {
    super(cause, status);
    this.name = 'ClientError';
    this.reason = reason;
    this.auth_code = auth_code;
    if (from !== undefined) this.cause = from;
  }
}

/** A call that cannot be made as it was asked for. */
export function badRequest(message: string): ClientError {
  return new ClientError('bad_request', failure('INVALID_PARAMS', message));
}

/** An answer that is no taskchart's. */
export function badAnswer(message: string, status?: number): ClientError {
  return new ClientError(
    'bad_answer',
    failure('INTERNAL', message),
    status === undefined || status < 400 ? {} : { status },
  );
}

/** A request that took too long. */
export function timedOut(message: string): ClientError {
  return new ClientError('timeout', failure('POOL_UNAVAILABLE', message, { retriable: true }));
}
