import { spec, validateEvent, validateResponse, validateSchema } from '../helpers/contract.ts';
import type { TestServer } from '../helpers/server.ts';

export interface Answer {
  status: number;
  headers: Headers;
  /** What the JSON says; undefined where there is none. */
  body: Record<string, unknown>;
}

const OPERATIONS = spec.operations.map(({ operationId, method, path }) => ({
  operationId,
  method: method.toUpperCase(),
  // A literal path is asked before one with an id: /v1/tasks/preview is no task.
  rank: path.includes('{') ? 1 : 0,
  pattern: new RegExp(`^${path.replaceAll(/\{\w+\}/g, '[^/]+')}$`),
}));

/**
 * Sends a request and checks the answer against the contract: its status and body, the headers that its status asks
 * for, and that the numbers of a refusal agree.
 */
export async function call(
  server: Pick<TestServer, 'fetch'>,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const response = await server.fetch(path, {
    method,
    headers: { 'Content-Type': 'application/json', ...headers },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  });
  const answer = await read(response);
  const [operation] = OPERATIONS.filter(
    (candidate) => candidate.method === method && candidate.pattern.test(path.split('?')[0] ?? ''),
  ).toSorted((a, b) => a.rank - b.rank);
  if (operation) validateResponse(operation.operationId, answer.status, answer.body);
  else if (answer.status >= 400) validateSchema('Error', answer.body);
  return answer;
}

async function read(response: Response): Promise<Answer> {
  const text = await response.text();
  const answer = { status: response.status, headers: response.headers } as Answer;
  if (text !== '') answer.body = JSON.parse(text) as Answer['body'];
  checkHeaders(answer);
  return answer;
}

function checkHeaders({ status, headers, body }: Answer): void {
  const wrong = (what: string): Error => new Error(`${status} ${JSON.stringify(body)}: ${what}`);
  if (!headers.get('x-correlation-id')) throw wrong('no X-Correlation-Id');
  if (status !== 429) return;
  if (!body['policy_label']) throw wrong('no policy_label');
  if (!body['engine']) throw wrong('no engine');
  const backoff_ms = body['retry_after_ms'];
  if (typeof backoff_ms !== 'number' || headers.get('x-backoff-ms') !== String(backoff_ms))
    throw wrong('X-Backoff-Ms does not agree');
  if (headers.get('retry-after') !== String(Math.max(1, Math.ceil(backoff_ms / 1000))))
    throw wrong('Retry-After does not agree');
}

export interface Frame {
  /** Undefined where the frame is no resume point. */
  id: number | undefined;
  event: string;
  data: Record<string, unknown>;
}

/** The frames of a stream, each checked against the contract; comments are left out. */
export function framesOf(text: string): Frame[] {
  return text
    .split('\n\n')
    .filter((frame) => frame !== '' && !frame.startsWith(':'))
    .map((frame) => {
      const match = /^(?:id: (\d+)\n)?event: (\w+)\ndata: (\{.*\})$/.exec(frame);
      if (!match) throw new Error(`not a frame: ${JSON.stringify(frame)}`);
      const [, id, event = '', data = ''] = match;
      const parsed = JSON.parse(data) as Frame['data'];
      validateEvent(event, parsed);
      return { id: id === undefined ? undefined : Number(id), event, data: parsed };
    });
}

export function names(frames: readonly { event: string }[]): string[] {
  return frames.map(({ event }) => event);
}

export interface Reader {
  status: number;
  headers: Headers;
  /** What has arrived so far. */
  text: () => string;
  frames: () => Frame[];
  /** Closes the connection, as a reader that is gone does. */
  leave(): void;
  /** Resolves once the stream is over, also by {@link leave}. */
  over: Promise<void>;
}

/** Follows a stream on a connection of its own; `path` is what comes after the task's id. */
export async function follow(
  server: Pick<TestServer, 'fetch'>,
  id: string,
  query = '',
  headers: Record<string, string> = {},
): Promise<Reader> {
  const gone = new AbortController();
  const response = await server.fetch(`/v1/tasks/${id}/stream${query}`, { headers, signal: gone.signal });
  if (!response.headers.get('x-correlation-id')) throw new Error('no X-Correlation-Id on the stream');
  let text = '';
  const over = (async () => {
    try {
      // With 204 nothing follows.
      for await (const part of response.body?.pipeThrough(new TextDecoderStream()) ?? []) text += part;
    } catch (error) {
      if (!gone.signal.aborted) throw error;
    }
  })();
  over.catch(() => undefined);
  return {
    status: response.status,
    headers: response.headers,
    text: () => text,
    frames: () => framesOf(text.slice(0, text.lastIndexOf('\n\n') + 2)),
    leave: () => gone.abort(),
    over,
  };
}

/** The `n`-th id of a file's own series: ids that a test can name. */
export function idOf(n: number): string {
  return `0198c0de-0000-7000-8000-${n.toString(16).padStart(12, '0')}`;
}
