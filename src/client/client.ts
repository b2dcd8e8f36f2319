import type {
  AdmissionResponse,
  Capabilities,
  SessionInfo,
  TaskInfo,
  TaskPage,
  TaskPreview,
  TaskRequest,
  TaskState,
  TaskSummary,
  TokenizeRequest,
  TokenizeResponse,
} from '../contract/generated/types.ts';
import { badAnswer, badRequest } from './client-error.ts';
import { isRetriable, sleep, waitBefore, type ClientPorts } from './retry.ts';
import { runOf, type Run } from './run.ts';
import type { TaskEvent } from './task-event.ts';
import { followTask, type StreamOptions } from './task-stream.ts';
import { headerValue, newId, Transport, type CallOptions, type Fetch } from './transport.ts';

export interface ClientOptions extends ClientPorts {
  /** Where the daemon is; in a browser also a path, such as `/taskchart`. @default http://127.0.0.1:8080 */
  base_url?: string;
  /** Sent as a bearer token; never part of a message. */
  token?: string;
  /** @default the global one */
  fetch?: Fetch;
  /** Longest time for an answer, and until the headers of a stream. Milliseconds. @default 30000 */
  timeout_ms?: number;
  /** How often a task is posted while it is refused with something that may pass, the first post included. @default 4 */
  attempts?: number;
  /** Longest time to wait between the posts of one task, all waits together. Milliseconds. @default 60000 */
  retry_wait_ms?: number;
  /** Longest silence of a stream's connection; the daemon breaks it every 15 s. Milliseconds. @default 60000 */
  idle_ms?: number;
  /** How long a broken stream is tried to be taken up again. Milliseconds; 0 gives it up at once. @default 60000 */
  reconnect_ms?: number;
  /** Sent with every call that does not bring its own. @default a new UUID each */
  correlation_id?: string;
}

export interface SubmitOptions extends CallOptions {
  /**
   * Posts with the same key are one task for as long as the server remembers the key: 1 to 128 printable characters.
   * A request with a key and without a `task_id` is sent as it is, so that it is the same from everywhere.
   */
  idempotency_key?: string;
}

export interface RunOptions extends SubmitOptions {
  /** Adds `narration` events. @default false */
  verbose?: boolean;
}

export interface TaskFilter extends CallOptions {
  state?: TaskState;
  pool_id?: string;
  session_id?: string;
  /** Tasks per page, 1 to 1000. @default the server's 100 */
  limit?: number;
  /** Where to begin: `next_cursor` of an earlier page. @default the newest task */
  cursor?: string;
}

/** What consecutive tasks of one conversation share. */
export interface Session {
  readonly id: string;
  info(options?: CallOptions): Promise<SessionInfo>;
  /** Starts its time to live again from now. @throws TaskchartError NOT_FOUND */
  touch(options?: CallOptions): Promise<void>;
  /** Ends it and gives its cache back. Safe to repeat. */
  remove(options?: CallOptions): Promise<void>;
}

/**
 * A daemon's data plane. Every call rejects with the signal's reason when it is aborted, with a TaskchartError that has
 * the code, the message and the status of a refusal, or with a ClientError where the server was not reached or
 * something else answered.
 */
export interface Client {
  /**
   * Posts a task. Refusals that may pass (429, 503) and broken connections are tried again, after the time that the
   * server asks for; the task has an id from the start, so a post whose answer was lost makes no second task.
   */
  submit(request: TaskRequest, options?: SubmitOptions): Promise<AdmissionResponse>;
  /**
   * A task's events in order, until it is over: after a broken connection or a restart of the daemon it goes on where
   * it was. An `error` event ends it like `end` does. Leaving the loop closes the connection and cancels nothing.
   * @throws ClientError `stream_lost` when the daemon stays away, `stream_gap` when an event is missing
   */
  stream(task_id: string, options?: StreamOptions): AsyncGenerator<TaskEvent, void, undefined>;
  /** Posts a task and follows it; begins at once. */
  run(request: TaskRequest, options?: RunOptions): Run;
  /** Resolves when no token can follow any more. Safe to repeat. */
  cancel(task_id: string, options?: CallOptions): Promise<void>;
  /** A task as it is now. @throws TaskchartError NOT_FOUND */
  task(task_id: string, options?: CallOptions): Promise<TaskInfo>;
  /** Tasks, newest first, asked for page by page as the loop goes on. */
  tasks(filter?: TaskFilter): AsyncGenerator<TaskSummary, void, undefined>;
  /** Forgets a finished task. @throws TaskchartError with status 409 while it is not finished */
  remove(task_id: string, options?: CallOptions): Promise<void>;
  /** What posting this task would be answered with; nothing is queued. */
  preview(request: TaskRequest, options?: CallOptions): Promise<TaskPreview>;
  session(session_id: string): Session;
  capabilities(options?: CallOptions): Promise<Capabilities>;
  /** Counts the tokens of a text or a chat with the model's own tokenizer. */
  tokenize(request: TokenizeRequest, options?: CallOptions): Promise<TokenizeResponse>;
}

/** Opens nothing: connections are made by calls. @throws ClientError bad_request naming the option */
export function createClient(options: ClientOptions = {}): Client {
  const limits = {
    timeout_ms: atLeast(1, 'timeout_ms', options.timeout_ms ?? 30_000),
    attempts: atLeast(1, 'attempts', options.attempts ?? 4),
    retry_wait_ms: atLeast(0, 'retry_wait_ms', options.retry_wait_ms ?? 60_000),
    idle_ms: atLeast(1, 'idle_ms', options.idle_ms ?? 60_000),
    reconnect_ms: atLeast(0, 'reconnect_ms', options.reconnect_ms ?? 60_000),
  };
  const ports = {
    sleep: options.sleep ?? sleep,
    now: options.now ?? Date.now,
    random: options.random ?? Math.random,
  };
  const transport = new Transport({
    base_url: options.base_url ?? 'http://127.0.0.1:8080',
    token: options.token,
    correlation_id: options.correlation_id,
    fetch: options.fetch,
    timeout_ms: limits.timeout_ms,
  });

  const client: Client = {
    async submit(request, { idempotency_key, ...call } = {}) {
      const isNamed = request.task_id !== undefined || idempotency_key !== undefined;
      const body = JSON.stringify(isNamed ? request : { ...request, task_id: newId() });
      const headers: Record<string, string> =
        idempotency_key === undefined
          ? {}
          : { 'Idempotency-Key': headerValue('idempotency_key', idempotency_key) };
      let waited_ms = 0;
      for (let failed = 1; ; failed++) {
        try {
          return await transport.ask<AdmissionResponse>('/v1/tasks', {
            ...call,
            method: 'POST',
            headers,
            body,
          });
        } catch (error) {
          if (failed >= limits.attempts || !isRetriable(error)) throw error;
          const wait_ms = waitBefore(error, failed, ports.random);
          // Asked again earlier, the server would only refuse again.
          if (waited_ms + wait_ms > limits.retry_wait_ms) throw error;
          await ports.sleep(wait_ms, call.signal);
          waited_ms += wait_ms;
        }
      }
    },

    stream: (task_id, stream = {}) => followTask(transport, task_id, stream, limits, ports),

    run(request, { verbose = false, idempotency_key, ...call } = {}) {
      const named = { correlation_id: options.correlation_id ?? newId(), ...call };
      return runOf(
        request,
        client.submit(request, idempotency_key === undefined ? named : { ...named, idempotency_key }),
        (task_id) => client.stream(task_id, { ...named, verbose }),
        // The caller's signal ends the reading, and must not keep it from cancelling afterwards.
        (task_id) => client.cancel(task_id, { correlation_id: named.correlation_id }),
      );
    },

    cancel: (task_id, call) => transport.tell(`${taskPath(task_id)}/cancel`, { ...call, method: 'POST' }),

    task: (task_id, call) => transport.ask<TaskInfo>(taskPath(task_id), call),

    async *tasks({ signal, correlation_id, ...filter } = {}) {
      const call = {
        ...(signal === undefined ? {} : { signal }),
        ...(correlation_id === undefined ? {} : { correlation_id }),
      };
      let { cursor } = filter;
      for (;;) {
        const page = await transport.ask<TaskPage>(`/v1/tasks${queryOf({ ...filter, cursor })}`, call);
        yield* page.tasks;
        if (page.next_cursor === undefined) return;
        if (page.next_cursor === cursor) throw badAnswer('tasks: the next page must not be the same page');
        cursor = page.next_cursor;
      }
    },

    remove: (task_id, call) => transport.tell(taskPath(task_id), { ...call, method: 'DELETE' }),

    preview: (request, call) =>
      transport.ask<TaskPreview>('/v1/tasks/preview', { ...call, ...post(request) }),

    session(id) {
      const path = `/v1/sessions/${encodeURIComponent(id)}`;
      return {
        id,
        info: (call) => transport.ask<SessionInfo>(path, call),
        touch: (call) => transport.tell(path, { ...call, method: 'POST' }),
        remove: (call) => transport.tell(path, { ...call, method: 'DELETE' }),
      };
    },

    capabilities: (call) => transport.ask<Capabilities>('/v1/capabilities', call),

    tokenize: (request, call) =>
      transport.ask<TokenizeResponse>('/v1/tokenize', { ...call, ...post(request) }),
  };
  return client;
}

function taskPath(task_id: string): string {
  return `/v1/tasks/${encodeURIComponent(task_id)}`;
}

function post(body: object): { method: 'POST'; body: string } {
  return { method: 'POST', body: JSON.stringify(body) };
}

function queryOf(fields: Readonly<Record<string, string | number | undefined>>): string {
  const pairs = Object.entries(fields).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}=${encodeURIComponent(value)}`],
  );
  return pairs.length === 0 ? '' : `?${pairs.join('&')}`;
}

function atLeast(least: number, name: string, value: number): number {
  // Timers cannot wait longer than this, and Infinity would fire at once.
  if (value >= least && value <= 2 ** 31 - 1) return value;
  throw badRequest(`${name}: must be a number from ${least} to 2147483647, got ${value}`);
}
