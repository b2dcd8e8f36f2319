import { Agent, type Dispatcher, errors, request } from 'undici';
import { type Failure, TaskchartError, failure } from '../../errors.ts';
import { redact } from '../../observe/redact.ts';
import type { EngineOutcome, Usage } from '../engine.ts';
import { Declined, declined, failed } from '../outcome.ts';

const CONNECT_TIMEOUT_MS = 5000;

/** For calls that are answered at once; work has no timeout here, its owner has a watchdog. */
const UNARY_TIMEOUT_MS = 30_000;

/** Our code for an answer that is not HTTP; undici gives it none. */
const NOT_HTTP = 'not HTTP';

export type UpstreamAnswer =
  | { kind: 'answer'; status: number; headers: Dispatcher.ResponseData['headers']; body: unknown }
  | { kind: 'unreachable'; error: unknown };

/**
 * One HTTP engine: where it is, how to authenticate, and connections of its own. No connection is used twice:
 * llama-server promises `Keep-Alive` and closes all the same, so a pooled one would be met dead now and then.
 */
export class Upstream {
  readonly agent: Agent;
  readonly origin: string;
  readonly #base: string;
  readonly #headers: Record<string, string>;

  /** @throws TypeError for a URL that is none. */
  constructor(url: string, apiKey: string | undefined) {
    const parsed = new URL(url);
    this.origin = parsed.origin;
    this.#base = parsed.pathname.replace(/\/+$/u, '');
    this.#headers = {
      'content-type': 'application/json',
      ...(apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }),
    };
    this.agent = new Agent({ headersTimeout: 0, bodyTimeout: 0, connect: { timeout: CONNECT_TIMEOUT_MS } });
  }

  path(path: string): string {
    return this.#base + path;
  }

  headers(extra: Record<string, string> = {}): Record<string, string> {
    return { ...this.#headers, ...extra };
  }

  get(path: string, signal: AbortSignal): Promise<UpstreamAnswer> {
    return this.#unary('GET', path, null, signal, UNARY_TIMEOUT_MS);
  }

  post(path: string, body: object, signal: AbortSignal): Promise<UpstreamAnswer> {
    return this.#unary('POST', path, JSON.stringify(body), signal, UNARY_TIMEOUT_MS);
  }

  /** As `post`, for what takes a slot and as long as it takes. */
  work(
    path: string,
    body: object,
    signal: AbortSignal,
    headers?: Record<string, string>,
  ): Promise<UpstreamAnswer> {
    return this.#unary('POST', path, JSON.stringify(body), signal, 0, headers);
  }

  async #unary(
    method: 'GET' | 'POST',
    path: string,
    body: string | null,
    signal: AbortSignal,
    timeout_ms: number,
    headers?: Record<string, string>,
  ): Promise<UpstreamAnswer> {
    try {
      const response = await request(this.origin + this.path(path), {
        dispatcher: this.agent,
        method,
        headers: this.headers(headers),
        body,
        signal,
        reset: true,
        headersTimeout: timeout_ms,
        bodyTimeout: timeout_ms,
      });
      const text = await response.body.text();
      return {
        kind: 'answer',
        status: response.statusCode,
        headers: response.headers,
        body: parseOrText(text),
      };
    } catch (error) {
      return { kind: 'unreachable', error };
    }
  }
}

/** @throws TaskchartError for anything but a success; `Declined` where another try may do. */
export function answered(answer: UpstreamAnswer): unknown {
  if (answer.kind === 'unreachable') throw unreachable(answer.error, false);
  if (answer.status === 200) return answer.body;
  throw refused(answer.status, refusal(answer.status, answer.body, answer.headers['retry-after']));
}

/** What to throw for a call that was not answered. @param started whether the engine had begun with it */
export function unreachable(error: unknown, started: boolean): TaskchartError {
  const cause = connectionFailure(error, started);
  return !started && isRefused(error) ? new Declined(cause) : new TaskchartError(cause);
}

/** What to throw for a call that was answered with another status than 200. */
export function refused(status: number, cause: Failure): TaskchartError {
  return isBusy(status) ? new Declined(cause) : new TaskchartError(cause);
}

/** JSON where it is, else the text itself. */
export function parseOrText(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** An engine's own refusal before it produced anything, as a member of the family. */
export function refusal(status: number, body: unknown, retryAfter?: unknown): Failure {
  const error = errorOf(body);
  if (error.type === 'exceed_context_size_error') {
    const { n_prompt_tokens: tokens, n_ctx: ctx } = error;
    return failure('INVALID_PARAMS', `The input is ${tokens} tokens and the context holds ${ctx}.`);
  }
  if (status === 400 || status === 413 || status === 422) {
    return failure('INVALID_PARAMS', `The engine refused the request: ${error.message ?? `HTTP ${status}`}`);
  }
  if (status === 401 || status === 403) return failure('INTERNAL', 'The engine refused our credentials.');
  if (status === 404) return failure('POOL_UNAVAILABLE', 'The engine does not offer this call.');
  if (status === 409 || status === 425 || status === 429) {
    return failure('ADMISSION_REJECT', 'The engine is overloaded.', {
      policy_label: 'engine',
      ...waitOf(retryAfter),
    });
  }
  if (status === 501) return failure('INVALID_PARAMS', 'The engine was started without this feature.');
  return failure('POOL_UNAVAILABLE', `The engine answered with HTTP ${status}.`, waitOf(retryAfter));
}

/** A `Retry-After` in seconds; a date is not read. */
function waitOf(retryAfter: unknown): { retry_after_ms?: number } {
  const seconds = Number(retryAfter ?? Number.NaN);
  return Number.isFinite(seconds) ? { retry_after_ms: Math.round(seconds * 1000) } : {};
}

/** Whether a server, or what stands before it, is overloaded or loading, and has not begun with the call. */
export function isBusy(status: number): boolean {
  return [409, 425, 429, 502, 503].includes(status);
}

/** An engine that could not be reached, or that went away: before its first token and after it. */
export function connectionFailure(error: unknown, started: boolean): Failure {
  const code = errorCode(error) ?? 'connection error';
  // A body that ends inside a chunk is a parser error too, but what it means is a closed connection.
  const reason = started && code === NOT_HTTP ? 'closed' : code;
  return started
    ? failure('WORKER_RESET', `The connection to the engine broke during the stream (${reason}).`)
    : failure('POOL_UNAVAILABLE', `The engine cannot be reached (${reason}).`);
}

/** A run whose connection was never made has not begun. @param started whether output came before it broke */
export function brokenRun(error: unknown, started: boolean, usage: Usage): EngineOutcome {
  const cause = connectionFailure(error, started);
  return !started && isRefused(error) ? declined(cause) : failed(cause, usage);
}

/** A run that was refused before it began. */
export function refusedRun(status: number, cause: Failure, usage: Usage): EngineOutcome {
  return isBusy(status) ? declined(cause) : failed(cause, usage);
}

/** The `error` object of a body without credentials that are quoted in it, or nothing known about it. */
export function errorOf(body: unknown): {
  message?: string;
  type?: string;
  n_prompt_tokens?: number;
  n_ctx?: number;
} {
  const error = typeof body === 'object' && body !== null && 'error' in body ? body.error : undefined;
  if (typeof error === 'string') return { message: redact(error) };
  if (typeof error !== 'object' || error === null) return {};
  return 'message' in error && typeof error.message === 'string'
    ? { ...error, message: redact(error.message) }
    : error;
}

function errorCode(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null) return undefined;
  if ('code' in error && typeof error.code === 'string') return error.code;
  if (error instanceof errors.HTTPParserError) return NOT_HTTP;
  return 'cause' in error ? errorCode(error.cause) : undefined;
}

/** Nobody listens there (any more), as opposed to an answer that was lost on the way. */
export function isRefused(error: unknown): boolean {
  return ['ECONNREFUSED', 'ENOENT', 'EHOSTUNREACH', 'ENETUNREACH'].includes(errorCode(error) ?? '');
}

/** Whether to go on asking: a name that does not exist or an answer that is no HTTP will not get better. */
export function mayComeUp(error: unknown): boolean {
  const code = errorCode(error) ?? '';
  return code !== 'ENOTFOUND' && code !== NOT_HTTP && !code.startsWith('ERR_TLS');
}
