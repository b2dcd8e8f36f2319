import { hash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { isLoopback } from '../config/model.ts';
import type { AuthError } from '../contract/generated/types.ts';
import { fingerprint } from '../observe/redact.ts';

/** Who may call; the `auth` part of the configuration. */
export interface AuthOptions {
  /** What callers send as `Authorization: Bearer`. @default none: only callers on this machine are served */
  readonly token?: string;
  /** Whether callers on this machine may leave the token out. @default false */
  readonly optional?: boolean;
  /** Whether any `Authorization` that comes over loopback counts as checked by a proxy there. @default false */
  readonly trust_proxy?: boolean;
  /** Token of engines that register themselves, and of nothing else. @default token */
  readonly worker_token?: string;
}

/** Somebody who may call. */
export interface Caller {
  /** For the log: `localhost`, `token:` and its fingerprint, or `anyone` for what is open to all. */
  readonly identity: string;
  /** Whether it has shown the token of engines that register themselves. */
  readonly is_worker: boolean;
}

/** Why a caller is turned away. */
export type Refusal = AuthError & { status: 401 | 403 };

/** @returns what tells of a request who sends it, or why it is turned away */
export function judgeOf(
  options: AuthOptions,
  prefix: string,
): (request: IncomingMessage, method: string, path: string) => Caller | Refusal {
  const { optional: isOptional = false, trust_proxy: trustsProxy = false } = options;
  const token = options.token === undefined ? undefined : secretOf(options.token, false);
  const workerToken = options.worker_token ?? options.token;
  const worker = workerToken === undefined ? undefined : secretOf(workerToken, true);
  // As the router takes paths: in any case, and with a slash at the end.
  const special = new RegExp(
    `^${prefix.replaceAll('.', String.raw`\.`)}/(?:(healthz)|(metrics)|(v1/workers/register))/?$`,
    'i',
  );

  return (request, method, path) => {
    // A browser asks what is allowed before it may send a token, and the answer is in the contract for all to read.
    if (method === 'OPTIONS') return ANYONE;
    const [, isHealth, isMetrics, isRegistration] = special.exec(path) ?? [];
    if (isHealth) return ANYONE;
    const credential = request.headers.authorization;
    if (isRegistration && method === 'POST')
      return worker ? compare(credential, worker) : NO_TOKEN_FOR_WORKERS;
    const isPeer = isLoopbackAddress(request.socket.remoteAddress);
    if (trustsProxy && isPeer && credential)
      return { identity: `token:${fingerprint(withoutScheme(credential))}`, is_worker: false };
    if (!token) return isPeer ? (distanceOf(request) ?? LOCALHOST) : NOT_LOCAL;
    if (credential !== undefined || !(isOptional || isMetrics)) return compare(credential, token);
    return isPeer && distanceOf(request) === undefined ? LOCALHOST : MISSING;
  };
}

const ANYONE: Caller = { identity: 'anyone', is_worker: false };
const LOCALHOST: Caller = { identity: 'localhost', is_worker: false };

interface Secret {
  digest: Buffer;
  caller: Caller;
}

function secretOf(token: string, is_worker: boolean): Secret {
  return {
    digest: hash('sha256', token, 'buffer'),
    caller: { identity: `token:${fingerprint(token)}`, is_worker },
  };
}

/** Digests are compared, in a time that says neither how long the token is nor how much of it was right. */
function compare(credential: string | undefined, { digest, caller }: Secret): Caller | Refusal {
  if (credential === undefined) return MISSING;
  const given = /^bearer +(\S+)$/i.exec(credential)?.[1];
  if (given === undefined) return BAD;
  return timingSafeEqual(hash('sha256', given, 'buffer'), digest) ? caller : BAD;
}

function withoutScheme(credential: string): string {
  return credential.replace(/^\w+ +/, '');
}

/**
 * Why a connection from this machine does not speak for it. A page of anywhere in a browser here connects from here as
 * well: it is known by the name under which it thinks it calls, or by its own origin. And what a proxy passes on
 * comes from where the proxy says.
 */
function distanceOf({ headers }: IncomingMessage): Refusal | undefined {
  const host = headers.host ?? headers[':authority'];
  if (typeof host === 'string' && !isLoopbackHost(host)) return FOREIGN_HOST;
  const { origin, forwarded, 'x-forwarded-for': via } = headers;
  if (origin !== undefined && !isLoopback(URL.parse(origin)?.hostname ?? '')) return FOREIGN_ORIGIN;
  if (forwarded !== undefined) return PASSED_ON;
  if (via === undefined) return undefined;
  return String(via)
    .split(',')
    .every((address) => isLoopbackAddress(address.trim()))
    ? undefined
    : PASSED_ON;
}

/** Nearly every request calls the name that the one before it did. */
let localHost = 'localhost';

function isLoopbackHost(host: string): boolean {
  if (host === localHost) return true;
  if (!isLoopback(host.replace(/:\d+$/, ''))) return false;
  localHost = host;
  return true;
}

function isLoopbackAddress(address: string | undefined): boolean {
  if (address === undefined) return false;
  return address === '::1' || address.startsWith('127.') || address.startsWith('::ffff:127.');
}

const MISSING = refusal(40101, 'send the header Authorization: Bearer and the token (auth.token)');
const BAD = refusal(40102, 'Authorization must be Bearer and the token (auth.token)');

const NOT_LOCAL = withoutToken('without a token this server serves its own machine only');
const FOREIGN_HOST = withoutToken(
  'without a token this server is called as localhost or 127.0.0.1, and by no other name',
);
const FOREIGN_ORIGIN = withoutToken(
  'without a token this server takes no requests from pages of other origins',
);
const PASSED_ON = withoutToken('without a token this server takes nothing that a proxy passes on for others');
/** Whoever puts an engine in place has to show a token, and there is none to show. */
export const NO_TOKEN_FOR_WORKERS: Refusal = refusal(
  40301,
  'engines register with a token, and none is configured; set auth.worker_token or auth.token',
);

function withoutToken(why: string): Refusal {
  return refusal(40301, `${why}; set auth.token to open it to others`);
}

function refusal(code: AuthError['code'], hint: string): Refusal {
  const message = (
    { 40101: 'MISSING_TOKEN', 40102: 'BAD_TOKEN', 40301: 'NON_LOOPBACK_WITHOUT_TOKEN' } as const
  )[code];
  return { status: code === 40301 ? 403 : 401, code, message, hint };
}
