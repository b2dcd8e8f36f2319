import { extname } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { DatabaseThread } from '../sqlite/database-thread.ts';
import { OneAtATime } from '../sqlite/one-at-a-time.ts';
import { reasonOf, StoreError } from '../sqlite/store-error.ts';
import { decodeEvents, framesFrom, StoredBatch, type EventBatch } from './frames.ts';
import { FENCED, LiveLog, START } from './live-log.ts';
import { emptyFlush, type LogFlush } from './log-flush.ts';
import { noteTime, packTimes, toTimes, unpackTimes, type PlainTimes } from './log-times.ts';
import type { AppendResult, Cursor, LogBatch, LogEvent, LogTime, NewLogEvent, TaskLog } from './task-log.ts';

export interface SqliteTaskLogOptions {
  /**
   * Told each time events could not be written. Readers get them all the same, and the next flush tries again; what
   * is not on disk by then ends with the process.
   */
  onError?: (error: StoreError) => void;
  /** Most bytes that the file may take, its write-ahead log not included. No default: as much as the disk has. */
  max_bytes?: number;
  /** Epoch milliseconds, for the times of events. @default Date.now */
  wall?: () => number;
}

type Thread = DatabaseThread<LogFlush, undefined>;

/** A log without its end, or with one that is not on disk yet. */
class UnfinishedLog extends LiveLog {
  /** Events on disk. */
  written = 0;
}

interface Written {
  task_id: string;
  log: UnfinishedLog;
  first: number;
  next: number;
  isLast: boolean;
  batch: EventBatch;
}

/**
 * A token that comes alone is written at once. Of those that come in a stream several go together: each write costs two
 * messages between threads and a transaction, which took more than half of the time of a token.
 */
const FLUSH_GAP_MS = 4;

const PROGRAM = new URL(`log-thread${extname(import.meta.url)}`, import.meta.url);

/**
 * Opens the logs in a file, which is made where it is missing, for this process alone. Logs without an end are read
 * into memory and go on where they were.
 * @throws StoreError where the file is in use, not a taskchart log, of a newer version, or cannot be opened
 */
export async function openSqliteTaskLog(
  path: string,
  options: SqliteTaskLogOptions = {},
): Promise<SqliteTaskLog> {
  const { max_bytes } = options;
  const thread: Thread = await DatabaseThread.open(PROGRAM, { path, max_bytes });
  try {
    return new SqliteTaskLog(path, thread, options);
  } catch (error) {
    await thread.close();
    throw new StoreError('unusable', `cannot read ${path}: ${reasonOf(error)}`, { cause: error });
  }
}

/**
 * Logs in an SQLite file. An append is answered at once, and a reader sees it once it is written: what a reader has
 * seen is there after the process was killed. (A loss of power may take the last moments.) A log whose end is written
 * leaves memory, but for its id and its length.
 *
 * The first event, where it is `started`, is different: it is seen at once, and written with the second one. A task
 * that only waits costs no write; after a restart its log is not there, and its owner begins it with the same event.
 */
export class SqliteTaskLog implements TaskLog {
  readonly isDurable = true;
  readonly #path: string;
  readonly #thread: Thread;
  readonly #onError: SqliteTaskLogOptions['onError'];
  readonly #flushes = new OneAtATime(() => this.#flush(), FLUSH_GAP_MS);
  readonly #live = new Map<string, UnfinishedLog>();
  /** Logs on disk with their end, and the id of that. */
  readonly #finished = new Map<string, number>();
  readonly #disk: DatabaseSync;
  readonly #framesOf: StatementSync;
  readonly #timesOf: StatementSync;
  readonly #wall: () => number;
  #unwritten = new Map<string, UnfinishedLog>();
  #dropped: string[] = [];
  #closed: Promise<void> | undefined;

  /** For {@link openSqliteTaskLog}. */
  constructor(path: string, thread: Thread, { onError, wall = Date.now }: SqliteTaskLogOptions) {
    this.#path = path;
    this.#thread = thread;
    this.#onError = onError;
    this.#wall = wall;
    this.#disk = new DatabaseSync(path, { readOnly: true });
    this.#framesOf = this.#disk.prepare('SELECT frames FROM closed WHERE task = ?');
    this.#timesOf = this.#disk.prepare('SELECT times FROM closed WHERE task = ?');
    this.#load();
  }

  append(task_id: string, cursor: Cursor, events: readonly NewLogEvent[]): AppendResult {
    if (this.#closed) return FENCED;
    const log = this.#live.get(task_id);
    if (log) {
      const result = log.append(cursor, events, this.#wall());
      if (result.kind === 'ok') this.#write(task_id, log);
      return result;
    }
    if (cursor !== START || this.#finished.has(task_id)) return FENCED;
    const times = events.length > 1 ? noteTime(undefined, 1, this.#wall()) : undefined;
    const begun = new UnfinishedLog(LiveLog.begin(events), times);
    this.#live.set(task_id, begun);
    const isStarted = events[0]?.type === 'started';
    if (isStarted) begun.show(1);
    if (begun.length > 1 || !isStarted) this.#write(task_id, begun);
    return { kind: 'ok', cursor: begun.length as Cursor };
  }

  tail(task_id: string): Cursor {
    const log = this.#live.get(task_id);
    return (log ? log.length : (this.#finished.get(task_id) ?? -1) + 1) as Cursor;
  }

  isClosed(task_id: string): boolean {
    return this.#finished.has(task_id) || (this.#live.get(task_id)?.isClosed ?? false);
  }

  /** @throws StoreError where the file cannot be read */
  read(task_id: string, after: number | undefined, signal: AbortSignal): AsyncIterable<LogBatch> {
    return this.#live.get(task_id)?.read(after, signal) ?? this.#readFinished(task_id, after, signal);
  }

  /** @throws StoreError where the file cannot be read */
  times(task_id: string): readonly LogTime[] {
    const log = this.#live.get(task_id);
    if (log) return toTimes(log.times);
    if (!this.#finished.has(task_id) || !this.#disk.isOpen) return [];
    try {
      return toTimes(unpackTimes(this.#timesOf.get(task_id)?.['times'] as string));
    } catch (error) {
      throw new StoreError('unusable', `cannot read ${this.#path}: ${reasonOf(error)}`, { cause: error });
    }
  }

  drop(task_id: string): void {
    const log = this.#live.get(task_id);
    if (!log && !this.#finished.delete(task_id)) return;
    this.#live.delete(task_id);
    this.#unwritten.delete(task_id);
    log?.drop();
    if (this.#closed) return;
    this.#dropped.push(task_id);
    this.#flushes.want();
  }

  dropUnknown(isKnown: (task_id: string) => boolean): void {
    for (const task_id of [...this.#live.keys(), ...this.#finished.keys()])
      if (!isKnown(task_id)) this.drop(task_id);
  }

  /** Writes what was appended, then closes the file and ends the readers. Safe to repeat. */
  close(): Promise<void> {
    this.#closed ??= this.#end();
    return this.#closed;
  }

  async #end(): Promise<void> {
    if (this.#unwritten.size > 0 || this.#dropped.length > 0) this.#flushes.want();
    await this.#flushes.idle();
    // Before the one that writes: only that may empty the `-wal`, and only as the last that closes.
    this.#disk.close();
    await this.#thread.close();
    for (const log of this.#live.values()) log.drop();
  }

  #load(): void {
    const open = this.#disk.prepare('SELECT task, frames, times FROM open ORDER BY task, first');
    const logs = new Map<string, { events: LogEvent[]; times: PlainTimes }>();
    type Row = { task: string; frames: string; times: string };
    for (const { task, frames, times } of open.iterate() as Iterable<unknown> as Iterable<Row>) {
      const known = logs.get(task);
      if (known) {
        known.events.push(...decodeEvents(frames));
        known.times.push(...unpackTimes(times));
      } else logs.set(task, { events: decodeEvents(frames), times: unpackTimes(times) });
    }
    for (const [task_id, { events, times }] of logs) {
      const log = new UnfinishedLog(events, times);
      log.written = events.length;
      log.show(events.length);
      this.#live.set(task_id, log);
    }
    const closed = this.#disk.prepare('SELECT task, last FROM closed');
    closed.setReturnArrays(true);
    for (const [task_id, last] of closed.iterate() as Iterable<unknown> as Iterable<[string, number]>)
      this.#finished.set(task_id, last);
  }

  #write(task_id: string, log: UnfinishedLog): void {
    this.#unwritten.set(task_id, log);
    this.#flushes.want();
  }

  async #flush(): Promise<void> {
    const flush = emptyFlush();
    flush.dropped = this.#dropped;
    this.#dropped = [];
    const written: Written[] = [];
    for (const [task_id, log] of this.#unwritten) {
      const first = log.written;
      if (first === log.length) continue;
      const batch = log.batchFrom(first);
      const { isLast } = batch;
      flush.tasks.push(task_id);
      flush.places.push(first, log.length - 1);
      flush.ends.push(isLast);
      flush.frames.push(batch.frames);
      flush.times.push(packTimes(log.times, isLast ? 0 : first));
      written.push({ task_id, log, first, next: log.length, isLast, batch });
    }
    this.#unwritten = new Map();
    try {
      await this.#thread.write(flush);
      for (const each of written) this.#wrote(each);
    } catch (error) {
      this.#dropped.push(...flush.dropped);
      for (const { task_id, log } of written)
        if (this.#live.get(task_id) === log) this.#unwritten.set(task_id, log);
      this.#onError?.(
        new StoreError('unusable', `cannot write ${this.#path}: ${reasonOf(error)}`, { cause: error }),
      );
    }
    for (const { log, next, first, batch } of written) log.show(next, { from: first, batch });
  }

  #wrote({ task_id, log, next, isLast }: Written): void {
    log.written = next;
    // It may have been dropped meanwhile, and even begun anew.
    if (!isLast || this.#live.get(task_id) !== log) return;
    this.#live.delete(task_id);
    this.#finished.set(task_id, next - 1);
  }

  async *#readFinished(
    task_id: string,
    after: number | undefined,
    signal: AbortSignal,
  ): AsyncGenerator<LogBatch, void, undefined> {
    const last = this.#finished.get(task_id);
    const first = after === undefined ? 0 : after + 1;
    if (last === undefined || first > last || signal.aborted || !this.#disk.isOpen) return;
    try {
      const frames = this.#framesOf.get(task_id)?.['frames'] as Uint8Array;
      yield new StoredBatch(framesFrom(frames, first));
    } catch (error) {
      throw new StoreError('unusable', `cannot read ${this.#path}: ${reasonOf(error)}`, { cause: error });
    }
  }
}
