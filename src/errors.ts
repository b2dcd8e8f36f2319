/**
 * The closed family of failures a caller can see. Codes are stable: match on `code`, never on the class or
 * the message. `status` is the HTTP status where the failure is known before a stream has started; in a
 * stream the same code arrives as an `error` event.
 */
export const ERROR_KINDS = {
  INVALID_PARAMS: { status: 400, retriable: false },
  DEADLINE_UNMET: { status: 400, retriable: false },
  UNTRUSTED_ARTIFACT: { status: 400, retriable: false },
  MODEL_DEPRECATED: { status: 403, retriable: false },
  NOT_FOUND: { status: 404, retriable: false },
  ADMISSION_REJECT: { status: 429, retriable: true },
  QUEUE_FULL_DROP_LRU: { status: 429, retriable: true },
  POOL_UNREADY: { status: 503, retriable: true },
  POOL_UNAVAILABLE: { status: 503, retriable: true },
  REPLICA_EXHAUSTED: { status: 503, retriable: true },
  DECODE_TIMEOUT: { status: 500, retriable: true },
  WORKER_RESET: { status: 500, retriable: true },
  INTERNAL: { status: 500, retriable: false },
  NOT_IMPLEMENTED: { status: 501, retriable: false },
} as const;

export type ErrorKind = keyof typeof ERROR_KINDS;

/** A failure as plain data: what the envelope, the `error` event and the machines carry. */
export interface Failure {
  code: ErrorKind;
  /** Short and actionable; never a secret, a prompt or a path the caller did not send. */
  message: string;
  /** Whether the same request may succeed later. */
  retriable: boolean;
  /** When to try again, in milliseconds. */
  retry_after_ms?: number;
  engine?: string;
  pool_id?: string;
  /** Which policy refused; always present with status 429. */
  policy_label?: string;
}

export function failure(
  code: ErrorKind,
  message: string,
  extra: Partial<Omit<Failure, 'code'>> = {},
): Failure {
  return { code, message, retriable: ERROR_KINDS[code].retriable, ...extra };
}

/** A {@link Failure} that is thrown: by the library's calls and inside the HTTP face, which has one exit for it. */
export class TaskchartError extends Error {
  readonly failure: Failure;
  /** HTTP status; the code's own unless the place of the failure asks for a narrower one (409, 413). */
  readonly status: number;

  constructor(cause: Failure, status: number = ERROR_KINDS[cause.code].status) {
    super(cause.message);
    this.name = 'TaskchartError';
    this.failure = cause;
    this.status = status;
  }

  get code(): ErrorKind {
    return this.failure.code;
  }
}

/** The one place where an unknown thrown value becomes a member of the family. */
export function toFailure(thrown: unknown, fallback: ErrorKind = 'INTERNAL'): Failure {
  if (thrown instanceof TaskchartError) return thrown.failure;
  return failure(fallback, thrown instanceof Error ? thrown.message : String(thrown));
}
