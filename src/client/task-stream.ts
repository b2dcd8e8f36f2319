import { failure, TaskchartError } from '../errors.ts';
import type { TaskInfo } from '../contract/generated/types.ts';
import { badAnswer, badRequest, ClientError, timedOut } from './client-error.ts';
import { EventStreamReader } from './event-stream.ts';
import { isRetriable, waitBefore, type ClientPorts } from './retry.ts';
import { eventsOf, isTerminal, type FrameEvents, type TaskEvent } from './task-event.ts';
import type { CallOptions, Transport } from './transport.ts';

export interface StreamOptions extends CallOptions {
  /** Id of the last event that the caller has; the stream goes on after it. @default from the first event */
  after?: number;
  /** Adds `narration` events, and to `metrics` what is being prepared. @default false */
  verbose?: boolean;
}

export interface FollowLimits {
  /** Longest silence of a connection, in milliseconds; the server's own comments break it. */
  idle_ms: number;
  /** Longest time without a connection that delivers something, in milliseconds. */
  reconnect_ms: number;
}

/**
 * A task's events, each once and none left out, across as many connections as it takes.
 * @throws TaskchartError what the server refuses; ClientError `stream_gap`, `stream_lost` or `bad_answer`
 */
export async function* followTask(
  transport: Transport,
  task_id: string,
  options: StreamOptions,
  { idle_ms, reconnect_ms }: FollowLimits,
  { sleep, now, random }: Required<ClientPorts>,
): AsyncGenerator<TaskEvent, void, undefined> {
  const { signal } = options;
  const place = new Place(options.after);
  // Time without a connection and failed connections, both since something arrived the last time.
  let down_ms = 0;
  let failed = 0;
  for (;;) {
    const tried_at = now();
    let cause: unknown;
    let isConnected = false;
    try {
      for await (const frames of connect(transport, task_id, place.last, options, idle_ms)) {
        if (!isConnected) down_ms += now() - tried_at;
        isConnected = true;
        // The first piece only says that the server answered.
        if (frames === undefined) continue;
        down_ms = 0;
        failed = 0;
        for (const frame of frames) {
          for (const event of place.next(frame)) {
            yield event;
            if (isTerminal(event)) return;
          }
        }
      }
      if (await isOver(transport, task_id, place.last, options)) return;
    } catch (error) {
      signal?.throwIfAborted();
      if (!isRetriable(error) && (isConnected || !isServerTrouble(error))) throw error;
      cause = error;
    }
    if (!isConnected) down_ms += now() - tried_at;
    failed += 1;
    const wait_ms = waitBefore(cause, failed, random);
    if (!place.isResumable || down_ms + wait_ms > reconnect_ms)
      throw lost(task_id, reconnect_ms, place, cause);
    await sleep(wait_ms, signal);
    down_ms += wait_ms;
  }
}

/** Where a reader is in a task's log. */
class Place {
  /** Id of the last event that was delivered. */
  last: number | undefined;
  /** False once something was delivered to which no connection can return. */
  isResumable = true;

  constructor(after: number | undefined) {
    if (after !== undefined && !(Number.isInteger(after) && after >= 0))
      throw badRequest(`after: must be the id of an event (a whole number from 0), got ${after}`);
    this.last = after;
  }

  /** @returns the events that were not delivered before. @throws ClientError stream_gap */
  next({ ids, events }: FrameEvents): TaskEvent[] {
    if (ids === undefined) {
      this.isResumable &&= events.every(({ type }) => type === 'metrics' || type === 'narration');
      return events;
    }
    const [first, last] = ids;
    const due = this.last === undefined ? 0 : this.last + 1;
    if (first > due)
      throw new ClientError(
        'stream_gap',
        failure('INTERNAL', `stream: event ${due} is missing, the next one is ${first}`),
      );
    if (last < due) return [];
    this.last = last;
    return events.filter(({ id }) => id !== undefined && id >= due);
  }
}

/** One connection: undefined once the server has answered, then the frames of each piece that arrives. */
async function* connect(
  transport: Transport,
  task_id: string,
  last: number | undefined,
  { signal, verbose = false, correlation_id }: StreamOptions,
  idle_ms: number,
): AsyncGenerator<FrameEvents[] | undefined, void, undefined> {
  const { response, limit } = await transport.open(
    `/v1/tasks/${encodeURIComponent(task_id)}/stream?verbose=${verbose}`,
    {
      headers: {
        Accept: 'text/event-stream',
        ...(last === undefined ? {} : { 'Last-Event-ID': String(last) }),
      },
      ...(signal === undefined ? {} : { signal }),
      ...(correlation_id === undefined ? {} : { correlation_id }),
    },
  );
  const silent = (): Error => timedOut(`stream: nothing has arrived for ${idle_ms} ms (idle_ms)`);
  try {
    limit.restart(idle_ms, silent);
    yield undefined;
    const type = response.headers.get('Content-Type');
    if (type !== null && !type.startsWith('text/event-stream'))
      throw badAnswer(`stream: must be text/event-stream, got ${type.slice(0, 60)}`);
    const reader = response.body?.getReader();
    const events = new EventStreamReader();
    for (;;) {
      const piece = await reader?.read().catch((error: unknown) => {
        throw transport.broken(error, limit, signal);
      });
      if (piece === undefined || piece.done) return;
      limit.restart(idle_ms, silent);
      yield events.push(piece.value as Uint8Array).map(eventsOf);
    }
  } finally {
    limit.release();
    limit.abort();
  }
}

/** A task outlives the trouble of its server, whatever the server says of the request. */
function isServerTrouble(error: unknown): boolean {
  return error instanceof TaskchartError && error.status >= 500 && error.code !== 'NOT_IMPLEMENTED';
}

/** A stream that ends without a last event is whole if the caller has that one already. */
async function isOver(
  transport: Transport,
  task_id: string,
  last: number | undefined,
  { signal, correlation_id }: StreamOptions,
): Promise<boolean> {
  if (last === undefined) return false;
  const { state, last_event_id } = await transport.ask<TaskInfo>(`/v1/tasks/${encodeURIComponent(task_id)}`, {
    ...(signal === undefined ? {} : { signal }),
    ...(correlation_id === undefined ? {} : { correlation_id }),
  });
  return (state === 'ended' || state === 'error') && last_event_id !== undefined && last_event_id <= last;
}

function lost(task_id: string, reconnect_ms: number, place: Place, cause: unknown): ClientError {
  const why = cause instanceof TaskchartError ? `: ${cause.message}` : '';
  const how = place.isResumable
    ? `could not be taken up again within ${reconnect_ms} ms (reconnect_ms)`
    : 'cannot be taken up again, its events have no ids';
  return new ClientError(
    'stream_lost',
    failure('POOL_UNAVAILABLE', `stream: the one of task ${task_id} broke and ${how}${why}`),
    { from: cause },
  );
}
