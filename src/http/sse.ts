import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import type { Clock } from '../clock.ts';
import type { LogBatch } from '../streams/task-log.ts';
import { gather } from './gather.ts';

/** `Connection` is Node’s to set: a client that asks for `close` gets it. */
export const SSE_HEADERS = {
  'Content-Type': 'text/event-stream',
  'Cache-Control': 'no-cache',
  'X-Accel-Buffering': 'no',
} as const;

const HEARTBEAT = ': keep-alive\n\n';

/**
 * Writes a task's log to a response until the terminal event was sent or the reader left. A reader that does not keep
 * up makes this wait, and with it nobody else: what it has not read stays in the log.
 */
export async function writeEvents(
  response: ServerResponse,
  batches: AsyncIterable<LogBatch>,
  signal: AbortSignal,
): Promise<void> {
  for await (const { frames } of batches) {
    await gather();
    if (signal.aborted) return;
    if (!response.write(frames)) await drained(response, signal);
  }
  if (!signal.aborted) response.end();
}

async function drained(response: ServerResponse, signal: AbortSignal): Promise<void> {
  try {
    await once(response, 'drain', { signal });
  } catch {
    // The reader left; the caller sees it in the signal.
  }
}

/** Comment lines that keep idle connections open: one timer for all streams of a server. */
export class Heartbeats {
  readonly #streams = new Set<ServerResponse>();
  readonly #clock: Clock;
  readonly #period_ms: number;
  #timer: unknown;

  /** @param period_ms 0 sends none */
  constructor(clock: Clock, period_ms: number) {
    this.#clock = clock;
    this.#period_ms = period_ms;
  }

  add(stream: ServerResponse): void {
    if (this.#period_ms <= 0) return;
    this.#streams.add(stream);
    stream.once('close', () => this.#streams.delete(stream));
    this.#timer ??= this.#clock.setTimeout(() => this.#beat(), this.#period_ms);
  }

  close(): void {
    this.#clock.clearTimeout(this.#timer);
    this.#streams.clear();
  }

  #beat(): void {
    this.#timer = undefined;
    for (const stream of this.#streams) {
      // A reader that lags has unsent bytes anyway: a comment would only make its backlog longer. A stream stays here
      // until its last byte has left, which is later than its end.
      if (!stream.writableEnded && !stream.writableNeedDrain) stream.write(HEARTBEAT);
    }
    if (this.#streams.size > 0) this.#timer = this.#clock.setTimeout(() => this.#beat(), this.#period_ms);
  }
}
