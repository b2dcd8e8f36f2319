import { ERROR_KINDS, failure, TaskchartError, type ErrorKind, type Failure } from '../errors.ts';
import { ClientError } from './client-error.ts';

/** Parts of a response that a refusal is made of. */
export interface Refused {
  status: number;
  headers: { get(name: string): string | null };
  body: string;
  /** Names the request in a message; never holds a token or a query. */
  where: string;
}

/** What a proxy's status says where there is no envelope; other statuses are INTERNAL. */
const BY_STATUS: Partial<Record<number, ErrorKind>> = {
  400: 'INVALID_PARAMS',
  404: 'NOT_FOUND',
  413: 'INVALID_PARAMS',
  429: 'ADMISSION_REJECT',
  502: 'POOL_UNAVAILABLE',
  503: 'POOL_UNAVAILABLE',
  504: 'POOL_UNAVAILABLE',
};

/** An answer that is not 2xx as the error it stands for. */
export function refusalOf({ status, headers, body, where }: Refused): TaskchartError {
  const said = parsed(body);
  const wait_ms = waitOf(headers);
  if (typeof said?.['code'] === 'string') {
    const cause = failureOf(said);
    return new TaskchartError(wait_ms === undefined ? cause : { ...cause, retry_after_ms: wait_ms }, status);
  }
  if (typeof said?.['code'] === 'number' || status === 401 || status === 403) {
    const hint = typeof said?.['hint'] === 'string' ? `. ${said['hint']}` : '';
    const name = typeof said?.['message'] === 'string' ? said['message'] : String(status);
    return new ClientError('unauthorized', failure('INVALID_PARAMS', `token: refused, ${name}${hint}`), {
      status,
      ...(typeof said?.['code'] === 'number' ? { auth_code: said['code'] } : {}),
    });
  }
  const code = BY_STATUS[status] ?? 'INTERNAL';
  return new ClientError(
    'bad_answer',
    failure(code, `${where} answered ${status}`, wait_ms === undefined ? {} : { retry_after_ms: wait_ms }),
    { status },
  );
}

/** An envelope or the data of an `error` event; a code of a later version becomes INTERNAL and keeps its name. */
export function failureOf(said: Readonly<Record<string, unknown>>): Failure {
  const name = String(said['code']);
  const isKnown = Object.hasOwn(ERROR_KINDS, name);
  const code = isKnown ? (name as ErrorKind) : 'INTERNAL';
  const text = typeof said['message'] === 'string' ? said['message'] : 'no reason given';
  return {
    ...said,
    code,
    message: isKnown ? text : `${name}: ${text}`,
    retriable: typeof said['retriable'] === 'boolean' ? said['retriable'] : ERROR_KINDS[code].retriable,
  };
}

/** How long the server asks to wait, in milliseconds: `X-Backoff-Ms`, or else `Retry-After` in either of its forms. */
function waitOf(headers: Refused['headers']): number | undefined {
  const backoff = headers.get('X-Backoff-Ms');
  if (backoff !== null && /^\d+$/.test(backoff)) return Number(backoff);
  const after = headers.get('Retry-After');
  if (after === null) return undefined;
  if (/^\d+$/.test(after)) return Number(after) * 1000;
  const date = Date.parse(after);
  return Number.isNaN(date) ? undefined : Math.max(0, date - Date.now());
}

function parsed(body: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(body);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
