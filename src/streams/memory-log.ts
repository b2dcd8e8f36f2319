import { FENCED, LiveLog, START } from './live-log.ts';
import type { AppendResult, Cursor, LogBatch, NewLogEvent, TaskLog } from './task-log.ts';

/** The log of a single process. Bounded by its tasks' own output and by the retention of whoever owns it. */
export class MemoryTaskLog implements TaskLog {
  readonly isDurable = false;
  readonly #logs = new Map<string, LiveLog>();

  append(task_id: string, cursor: Cursor, events: readonly NewLogEvent[]): AppendResult {
    let log = this.#logs.get(task_id);
    if (log) {
      const result = log.append(cursor, events);
      log.show(log.length);
      return result;
    }
    if (cursor !== START) return FENCED;
    log = new LiveLog(LiveLog.begin(events));
    this.#logs.set(task_id, log);
    log.show(log.length);
    return { kind: 'ok', cursor: log.length as Cursor };
  }

  tail(task_id: string): Cursor {
    return (this.#logs.get(task_id)?.length ?? START) as Cursor;
  }

  read(task_id: string, after: number | undefined, signal: AbortSignal): AsyncIterable<LogBatch> {
    return this.#logs.get(task_id)?.read(after, signal) ?? nothing();
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
