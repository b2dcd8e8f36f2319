import { Agent, request, type Dispatcher } from 'undici';
import { isLoopback } from '../config/model.ts';
import { forbidden, unobtainable } from './failures.ts';
import { retrying, TransientError, type RetryPorts } from './retry.ts';

type Headers = Record<string, string | string[] | undefined>;

/** A secret, and the one origin that may see it. */
export interface Credential {
  origin: string;
  /** Value of the `authorization` header now. */
  header(): string | undefined;
  /** Gets a new secret after a 401. @returns whether it is worth another try */
  renew?(challenge: string, signal: AbortSignal): Promise<boolean>;
}

export interface WebRequest {
  headers?: Record<string, string>;
  credential?: Credential | undefined;
  signal: AbortSignal;
}

export interface WebAnswer {
  status: number;
  headers: Headers;
  /** Whoever does not read it to its end destroys it. */
  body: Dispatcher.ResponseData['body'];
  /** Who answered in the end. */
  url: URL;
  /** Headers of the redirects on the way. */
  hops: Headers[];
}

export interface WebOptions {
  retry: RetryPorts;
  /** Hosts that may be asked, their subdomains too; every host where it is empty. */
  allowlist: readonly string[];
  /** Silence after which a connection counts as dead, in milliseconds. */
  stall_ms: number;
}

const CONNECT_TIMEOUT_MS = 5000;
const MAX_REDIRECTS = 5;
/** A listing or a manifest that is larger is none. */
const MAX_TEXT_BYTES = 32 * 1024 * 1024;

/** HTTP as model registries need it: redirects by hand, so that no secret goes to where it does not belong. */
export class Web {
  readonly #agent: Agent;
  readonly #options: WebOptions;

  constructor(options: WebOptions) {
    this.#options = options;
    this.#agent = new Agent({
      connect: { timeout: CONNECT_TIMEOUT_MS },
      headersTimeout: options.stall_ms,
      bodyTimeout: options.stall_ms,
    });
  }

  get retry(): RetryPorts {
    return this.#options.retry;
  }

  /** @throws TaskchartError POOL_UNREADY naming the key that forbids it */
  check(url: URL): void {
    const { allowlist } = this.#options;
    if (allowlist.length === 0 || allowlist.some((entry) => allows(entry, url))) return;
    throw forbidden(`policy.allowlist does not have the host ${url.host}; add it there to fetch from it`);
  }

  /**
   * One try, redirects followed.
   * @throws TransientError where another one may go well; TaskchartError
   */
  async open(method: 'GET' | 'HEAD', from: URL, asked: WebRequest): Promise<WebAnswer> {
    const hops: Headers[] = [];
    let renewed = false;
    for (let url = from; ;) {
      this.check(url);
      const mine = asked.credential?.origin === url.origin ? asked.credential : undefined;
      const { statusCode: status, headers, body } = await this.#ask(method, url, asked, mine);
      const location = headers.location;
      if ([301, 302, 303, 307, 308].includes(status) && typeof location === 'string') {
        discard(body);
        hops.push(headers);
        if (hops.length > MAX_REDIRECTS)
          throw unobtainable(`${from.host} redirects more than ${MAX_REDIRECTS} times`);
        url = follow(url, location);
        continue;
      }
      if (status === 401 && mine?.renew && !renewed) {
        discard(body);
        renewed = true;
        if (await mine.renew(text(headers, 'www-authenticate') ?? '', asked.signal)) continue;
      }
      if (status === 408 || status === 425 || status === 429 || status >= 500) {
        discard(body);
        throw new TransientError(
          status === 429 ? `${url.host} limits its rate (429)` : `${url.host} answered ${status}`,
          retryAfter(headers, this.#options.retry.clock.wall()),
        );
      }
      return { status, headers, body, url, hops };
    }
  }

  /**
   * The body of an answer as text, whatever its status below 500 is, with retries.
   * @throws TaskchartError
   */
  read(url: URL, asked: WebRequest): Promise<WebAnswer & { text: string }> {
    return retrying(this.retry, asked.signal, async () => {
      const answer = await this.open('GET', url, asked);
      const parts: Buffer[] = [];
      let size = 0;
      try {
        for await (const part of answer.body as AsyncIterable<Buffer>) {
          parts.push(part);
          size += part.length;
          if (size > MAX_TEXT_BYTES) throw unobtainable(`${url.host} sends an answer without end`);
        }
      } catch (error) {
        throw transient(error, url, asked.signal);
      }
      return { ...answer, text: Buffer.concat(parts).toString('utf8') };
    });
  }

  close(): Promise<void> {
    return this.#agent.destroy();
  }

  async #ask(
    method: 'GET' | 'HEAD',
    url: URL,
    { headers, signal }: WebRequest,
    credential: Credential | undefined,
  ): Promise<Dispatcher.ResponseData> {
    const authorization = credential?.header();
    try {
      return await request(url, {
        method,
        dispatcher: this.#agent,
        signal,
        headers: {
          'user-agent': 'taskchart',
          // A compressed body has other bytes than the file, and ranges of it are worth nothing.
          'accept-encoding': 'identity',
          ...headers,
          ...(authorization === undefined ? {} : { authorization }),
        },
      });
    } catch (error) {
      throw transient(error, url, signal);
    }
  }
}

/** @returns the header's value, the first one where it came several times */
export function text(headers: Headers, name: string): string | undefined {
  const value = headers[name];
  return Array.isArray(value) ? value[0] : value;
}

/** The connection is of no more use; nothing that still arrives on it may be heard of. */
export function discard(body: Dispatcher.ResponseData['body']): void {
  body.on('error', () => undefined).destroy();
}

/** What a broken connection means: another try, unless the caller gave up or the certificate is wrong. */
export function transient(error: unknown, url: URL, signal: AbortSignal): unknown {
  if (signal.aborted) return signal.reason;
  if (!(error instanceof Error) || 'failure' in error) return error;
  const code = String((error as NodeJS.ErrnoException).code ?? error.name);
  if (/CERT|SIGNED|TLS|SSL/.test(code)) return unobtainable(`${url.host} cannot prove who it is (${code})`);
  return new TransientError(`${url.host} ${WORDS[code] ?? `could not be read (${code})`}`);
}

const WORDS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'refuses connections',
  ENOTFOUND: 'is not known by that name',
  EAI_AGAIN: 'cannot be looked up now',
  ECONNRESET: 'broke the connection off',
  UND_ERR_SOCKET: 'broke the connection off',
  UND_ERR_CONNECT_TIMEOUT: 'does not answer',
  UND_ERR_HEADERS_TIMEOUT: 'does not answer',
  UND_ERR_BODY_TIMEOUT: 'fell silent in the middle',
};

function follow(from: URL, location: string): URL {
  if (!URL.canParse(location, from.href))
    throw unobtainable(`${from.host} redirects to what is not an address`);
  const to = new URL(location, from.href);
  if (to.protocol === 'https:') return to;
  if (to.protocol !== 'http:' || from.protocol === 'https:' || !isLoopback(to.hostname))
    throw unobtainable(`${from.host} redirects from https to ${to.protocol}//, which is refused`);
  return to;
}

/** The hub keeps its files under a second name of its own. */
const ALIASES: Readonly<Record<string, readonly string[]>> = { 'huggingface.co': ['hf.co'] };

function allows(entry: string, { hostname, host }: URL): boolean {
  const name = entry.toLowerCase();
  return [name, ...(ALIASES[name] ?? [])].some(
    (known) => known === hostname || known === host || hostname.endsWith(`.${known}`),
  );
}

/** Seconds or a date; the hub tells it as `t=` in a header of its own. */
function retryAfter(headers: Headers, now: number): number | undefined {
  const after = text(headers, 'retry-after');
  const seconds = Number(after ?? /\bt=(\d+)/.exec(text(headers, 'ratelimit') ?? '')?.[1]);
  if (Number.isFinite(seconds)) return Math.max(0, seconds * 1000);
  const date = Date.parse(after ?? '');
  return Number.isFinite(date) ? Math.max(0, date - now) : undefined;
}
