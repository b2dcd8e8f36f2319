import { failure, TaskchartError } from '../errors.ts';
import { badAnswer, badRequest, ClientError, timedOut } from './client-error.ts';
import { refusalOf } from './refusal.ts';
import { timeLimit, type TimeLimit } from './time-limit.ts';

/** The part of the standard `fetch` that is used. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/** What every call takes. */
export interface CallOptions {
  /** Gives the call up; it then rejects with the signal's reason. */
  signal?: AbortSignal;
  /** Name of the call in the server's logs, 1 to 128 printable characters. @default the client's, or a new UUID */
  correlation_id?: string;
}

export interface TransportOptions {
  base_url: string;
  token: string | undefined;
  correlation_id: string | undefined;
  fetch: Fetch | undefined;
  timeout_ms: number;
}

export interface Call extends CallOptions {
  method?: 'GET' | 'POST' | 'DELETE';
  /** Sent as it is: JSON. */
  body?: string;
  headers?: Readonly<Record<string, string>>;
}

/** A response whose body is read by the caller, who releases the limit when done with it. */
export interface OpenResponse {
  response: Response;
  limit: TimeLimit;
}

const HEADER_VALUE = /^[\x21-\x7e]{1,128}$/;

/** Requests to one server, and what can go wrong with them. */
export class Transport {
  readonly #base: string;
  readonly #options: TransportOptions;

  /** @throws ClientError bad_request naming the option */
  constructor(options: TransportOptions) {
    const { base_url, token } = options;
    if (!base_url.startsWith('/') && !isPlainHttp(base_url))
      throw badRequest(
        'base_url: must be an http or https URL without user name and password, such as http://127.0.0.1:8080',
      );
    if (token !== undefined && !/^[\x21-\x7e]+$/.test(token))
      throw badRequest('token: must be printable ASCII without spaces');
    this.#base = base_url.replace(/\/+$/, '');
    this.#options = options;
  }

  /** Asks for JSON. @throws TaskchartError the server's refusal; ClientError everything else */
  async ask<T extends object>(path: string, call: Call = {}): Promise<T> {
    const text = await this.#whole(path, call);
    try {
      const value: unknown = JSON.parse(text);
      if (typeof value === 'object' && value !== null) return value as T;
    } catch {
      // The same mistake as JSON that is no object.
    }
    throw badAnswer(`${this.#where(path)} must answer with a JSON object`);
  }

  /** Asks for something to be done that has no answer but success. @throws as {@link ask} */
  async tell(path: string, call: Call): Promise<void> {
    await this.#whole(path, call);
  }

  async #whole(path: string, call: Call): Promise<string> {
    const { response, limit } = await this.open(path, call);
    try {
      return await response.text();
    } catch (error) {
      throw this.broken(error, limit, call.signal);
    } finally {
      limit.release();
    }
  }

  /**
   * Resolves with the headers of a 2xx answer. The time limit goes on until the caller restarts or releases it.
   * @throws as {@link ask}
   */
  async open(path: string, call: Call): Promise<OpenResponse> {
    const { signal } = call;
    const headers = this.#headers(call);
    const limit = timeLimit(this.#options.timeout_ms, () => this.#tooSlow(path), signal);
    try {
      limit.signal.throwIfAborted();
      // Looked up for each call: what stands in for the global one may come later than the client.
      const request = this.#options.fetch ?? globalThis.fetch;
      const response = await request(this.#base + path, {
        method: call.method ?? 'GET',
        headers,
        signal: limit.signal,
        cache: 'no-store',
        ...(call.body === undefined ? {} : { body: call.body }),
      });
      if (response.ok) return { response, limit };
      const { status } = response;
      const body = await response.text();
      throw refusalOf({ status, headers: response.headers, body, where: this.#where(path) });
    } catch (error) {
      limit.release();
      throw this.broken(error, limit, signal);
    }
  }

  /** What an error while reading stands for: the caller's abort, a time limit, or a connection that broke. */
  broken(error: unknown, limit: TimeLimit, signal: AbortSignal | undefined): unknown {
    if (signal?.aborted) return signal.reason;
    if (limit.signal.aborted) return limit.signal.reason;
    if (error instanceof TaskchartError) return error;
    const inner = (error as { cause?: { code?: unknown } } | undefined)?.cause?.code;
    const why = this.#redacted(typeof inner === 'string' ? inner : messageOf(error));
    return new ClientError(
      'unreachable',
      failure('POOL_UNAVAILABLE', `nobody answers at ${this.#base} (${why})`),
      { from: error },
    );
  }

  #tooSlow(path: string): ClientError {
    return timedOut(
      `${this.#where(path)} has not answered within ${this.#options.timeout_ms} ms (timeout_ms)`,
    );
  }

  #headers(call: Call): Record<string, string> {
    const correlation_id = call.correlation_id ?? this.#options.correlation_id ?? newId();
    const { token } = this.#options;
    return {
      Accept: 'application/json',
      ...(call.body === undefined ? {} : { 'Content-Type': 'application/json' }),
      ...(token === undefined ? {} : { Authorization: `Bearer ${token}` }),
      'X-Correlation-Id': headerValue('correlation_id', correlation_id),
      ...call.headers,
    };
  }

  /** Without the query, which can hold a text to tokenize. */
  #where(path: string): string {
    return this.#base + path.replace(/\?.*$/, '');
  }

  #redacted(text: string): string {
    const { token } = this.#options;
    return token === undefined ? text : text.replaceAll(token, '…');
  }
}

/** @throws ClientError bad_request naming the option, before `fetch` would quote the value */
export function headerValue(name: string, value: string): string {
  if (HEADER_VALUE.test(value)) return value;
  throw badRequest(`${name}: must be 1 to 128 printable ASCII characters without spaces`);
}

/** A UUIDv4; browsers have `randomUUID` only on pages that came by https. */
export function newId(): string {
  if (typeof crypto.randomUUID === 'function') return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const digits = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

function isPlainHttp(url: string): boolean {
  if (!URL.canParse(url)) return false;
  const { protocol, username, password } = new URL(url);
  return (protocol === 'http:' || protocol === 'https:') && username === '' && password === '';
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
