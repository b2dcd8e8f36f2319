import { setTimeout as sleep } from 'node:timers/promises';
import { createClient } from '../../src/client/index.ts';
import type { Daemon } from './daemon.ts';
import type { Reading, Seen } from './ledger.ts';

export interface ReaderHabits {
  via: Reading['via'];
  /** Leaves after so many events each time, and comes back. */
  leaves_after?: number;
  /** Asks for what follows this event, instead of for all. */
  after?: number;
}

/** Stops readers that would wait for ever. */
export interface Patience {
  signal: AbortSignal;
}

const TERMINAL: ReadonlySet<string> = new Set(['end', 'error']);

/** Reads a task to its end, however often the daemon goes away meanwhile. */
export async function follow(
  daemon: Daemon,
  task_id: string,
  habits: ReaderHabits,
  reading: Reading,
  patience: Patience,
): Promise<void> {
  try {
    await (habits.via === 'wire'
      ? followWire(daemon, task_id, habits, reading, patience)
      : followClient(daemon, task_id, habits, reading, patience));
  } catch (error) {
    reading.mishaps.push(`gave up: ${String(error)}`);
  }
}

async function followWire(
  daemon: Daemon,
  task_id: string,
  { leaves_after, after }: ReaderHabits,
  reading: Reading,
  { signal }: Patience,
): Promise<void> {
  for (;;) {
    signal.throwIfAborted();
    const leave = new AbortController();
    let left = leaves_after ?? Infinity;
    try {
      const last = reading.seen.at(-1)?.id ?? after;
      reading.connections++;
      const response = await fetch(`${daemon.url}/v1/tasks/${task_id}/stream`, {
        headers: last === undefined ? {} : { 'Last-Event-ID': String(last) },
        signal: AbortSignal.any([signal, leave.signal]),
      });
      // While it stops, it says so.
      if (response.status === 503) throw new Error(await response.text());
      if (response.status !== 200) {
        reading.mishaps.push(`the stream of an accepted task was refused: ${await response.text()}`);
        return;
      }
      for await (const event of eventsOf(response, reading)) {
        reading.seen.push(event);
        if (--left <= 0 && !TERMINAL.has(event.type)) {
          leave.abort();
          break;
        }
      }
    } catch {
      // The daemon was killed or stops, or we have left.
    }
    if (TERMINAL.has(reading.seen.at(-1)?.type ?? '')) return;
    await back(daemon, signal);
  }
}

/** Whole frames only: what a broken connection has cut off was not received. */
async function* eventsOf(response: Response, reading: Reading): AsyncGenerator<Seen> {
  let text = '';
  for await (const part of (response.body as ReadableStream<Uint8Array>).pipeThrough(
    new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>,
  )) {
    text += part;
    const frames = text.split('\n\n');
    text = frames.pop() ?? '';
    for (const frame of frames) {
      // What has no id is of the moment: it is made for who listens, and not kept.
      if (frame.startsWith(':') || frame.startsWith('event: narration\n')) continue;
      const match = /^id: (\d+)\nevent: (\w+)\ndata: (.*)$/.exec(frame);
      if (match) yield { id: Number(match[1]), type: match[2] ?? '', data: match[3] ?? '' };
      else reading.mishaps.push(`a frame that nobody can read: ${frame}`);
    }
  }
}

async function followClient(
  daemon: Daemon,
  task_id: string,
  { after }: ReaderHabits,
  reading: Reading,
  { signal }: Patience,
): Promise<void> {
  const client = createClient({
    base_url: daemon.url,
    // Waits are counted, and here they are shorter than it thinks.
    reconnect_ms: 2 ** 31 - 1,
    // Its own waits are for daemons that are away for longer.
    sleep: () => back(daemon, signal),
    fetch: (url, init) => {
      reading.connections++;
      return fetch(url, init);
    },
  });
  for await (const { id, type, data } of client.stream(task_id, {
    signal,
    ...(after === undefined ? {} : { after }),
  }))
    reading.seen.push({ id: id ?? -1, type, data: JSON.stringify(data) });
}

/** Some time later, when the daemon may be there again. */
async function back(daemon: Daemon, signal: AbortSignal): Promise<void> {
  do await sleep(20, undefined, { signal });
  while (!daemon.isUp);
}

/** The log of a task that is over. @throws Error where it has no end */
export async function wholeLog(url: string, task_id: string): Promise<Seen[]> {
  const reading: Reading = { via: 'wire', first: 0, seen: [], connections: 1, mishaps: [] };
  const signal = AbortSignal.timeout(10_000);
  try {
    const response = await fetch(`${url}/v1/tasks/${task_id}/stream`, { signal });
    for await (const event of eventsOf(response, reading)) reading.seen.push(event);
  } catch (error) {
    reading.mishaps.push(`its stream goes on after event ${reading.seen.at(-1)?.id}: ${String(error)}`);
  }
  const [mishap] = reading.mishaps;
  if (mishap !== undefined) throw new Error(`task ${task_id} is over: ${mishap}`);
  return reading.seen;
}
