import type { Cursor, LogBatch, LogEvent, NewLogEvent, TaskLog } from '../../src/streams/task-log.ts';

export const START = 0 as Cursor;
export const STARTED: NewLogEvent = { type: 'started', data: { queue_position: 0, predicted_start_ms: 0 } };
export const END: NewLogEvent = { type: 'end', data: { tokens_out: 2, decode_ms: 1, decode_time_ms: 1 } };

/** Has what the wire form has to escape. */
export const token = (i: number): NewLogEvent => ({ type: 'token', data: { t: ` é\n\n"🎈${i}`, i } });

export const never = (): AbortSignal => new AbortController().signal;

/** Appends at the end, as whoever holds the tail. */
export async function push(log: TaskLog, task_id: string, ...events: NewLogEvent[]): Promise<string> {
  return (await log.append(task_id, await log.tail(task_id), events)).kind;
}

/** What a reader is given to the end of a log. */
export async function batchesOf(log: TaskLog, after?: number, task_id = 't'): Promise<LogBatch[]> {
  const batches: LogBatch[] = [];
  for await (const batch of log.read(task_id, after, never())) batches.push(batch);
  return batches;
}

/** Reads a log to its end. */
export async function all(log: TaskLog, after?: number, task_id = 't'): Promise<LogEvent[]> {
  return (await batchesOf(log, after, task_id)).flatMap(({ events }) => events);
}

/** The wire form of a log to its end. */
export async function framesOf(log: TaskLog, after?: number, task_id = 't'): Promise<string> {
  const batches = await batchesOf(log, after, task_id);
  return batches.map(({ frames }) => textOf(frames)).join('');
}

export function textOf(frames: string | Uint8Array): string {
  return typeof frames === 'string' ? frames : Buffer.from(frames).toString();
}

/** The next batch of a reader that comes now and stays. */
export function follow(log: TaskLog, signal = never(), task_id = 't'): () => Promise<LogBatch | undefined> {
  const reader = log.read(task_id, undefined, signal)[Symbol.asyncIterator]();
  return async () => {
    const { done, value } = await reader.next();
    return done ? undefined : value;
  };
}
