import { FENCED, LiveLog, START } from './live-log.ts';
import { noteTime, toTimes } from './log-times.ts';
import type { AppendResult, Cursor, LogBatch, LogTime, NewLogEvent, TaskLog } from './task-log.ts';

export interface MemoryTaskLogOptions {
  /** Epoch milliseconds, for the times of events. @default Date.now */
  wall?: () => number;
}

/** The log of a single process. Bounded by its tasks' own output and by the retention of whoever owns it. */
export class MemoryTaskLog implements TaskLog {
  readonly isDurable = false;
  readonly #logs = new Map<string, LiveLog>();
  readonly #wall: () => number;

  constructor({ wall = Date.now }: MemoryTaskLogOptions = {}) {
    this.#wall = wall;
  }

  append(task_id: string, cursor: Cursor, events: readonly NewLogEvent[]): AppendResult {
    let log = this.#logs.get(task_id);
    if (log) {
      const result = log.append(cursor, events, this.#wall());
      log.show(log.length);
      return result;
    }
    if (cursor !== START) return FENCED;
    log = new LiveLog(
      LiveLog.begin(events),
      events.length > 1 ? noteTime(undefined, 1, this.#wall()) : undefined,
    );
    this.#logs.set(task_id, log);
    log.show(log.length);
    return { kind: 'ok', cursor: log.length as Cursor };
  }

  tail(task_id: string): Cursor {
    return (this.#logs.get(task_id)?.length ?? START) as Cursor;
  }

  isClosed(task_id: string): boolean {
    return this.#logs.get(task_id)?.isClosed ?? false;
  }

  read(task_id: string, after: number | undefined, signal: AbortSignal): AsyncIterable<LogBatch> {
    return this.#logs.get(task_id)?.read(after, signal) ?? nothing();
  }

  times(task_id: string): readonly LogTime[] {
    return toTimes(this.#logs.get(task_id)?.times ?? []);
  }

  drop(task_id: string): void {
    const log = this.#logs.get(task_id);
    this.#logs.delete(task_id);
    log?.drop();
  }

  /** What is there can still be read: everybody was told the end of every task before. */
  async close(): Promise<void> {}
}

async function* nothing(): AsyncGenerator<LogBatch, void, undefined> {}
