import {
  isTerminal,
  type AppendResult,
  type Cursor,
  type LogBatch,
  type LogEvent,
  type NewLogEvent,
  type TaskLog,
} from './task-log.ts';
import { EventBatch } from './frames.ts';

interface Log {
  events: LogEvent[];
  /** Readers that have seen everything and wait for more. */
  waiting: Set<() => void> | undefined;
  /** What the last reader was given: the next one mostly stands at the same place. */
  last: { from: number; next: number; batch: LogBatch } | undefined;
}

const START = 0 as Cursor;
const FENCED: AppendResult = { kind: 'fenced' };

/** The log of a single process. Bounded by its tasks' own output and by the retention of whoever owns it. */
export class MemoryTaskLog implements TaskLog {
  readonly #logs = new Map<string, Log>();

  append(task_id: string, cursor: Cursor, events: readonly NewLogEvent[]): AppendResult {
    const log = this.#logs.get(task_id);
    if (!log) {
      if (cursor !== START) return FENCED;
      // Made at its size: a list that grows by its first event takes room for seventeen, and most logs wait with one.
      const [only] = events;
      const first = only && events.length === 1 ? [stamped(only, 0)] : upToTerminal(events).map(stamped);
      this.#logs.set(task_id, { events: first, waiting: undefined, last: undefined });
      return { kind: 'ok', cursor: first.length as Cursor };
    }
    const stored = log.events;
    if (cursor !== stored.length || isTerminal(stored.at(-1))) return FENCED;
    for (const event of events) {
      stored.push(stamped(event, stored.length));
      if (isTerminal(event)) break;
    }
    wake(log);
    return { kind: 'ok', cursor: stored.length as Cursor };
  }

  tail(task_id: string): Cursor {
    return (this.#logs.get(task_id)?.events.length ?? START) as Cursor;
  }

  async *read(
    task_id: string,
    after: number | undefined,
    signal: AbortSignal,
  ): AsyncGenerator<LogBatch, void, undefined> {
    const log = this.#logs.get(task_id);
    if (!log) return;
    let next = after === undefined ? 0 : after + 1;
    // One listener for the whole read: one per wait costs more than the wait.
    let resume: (() => void) | undefined;
    const leave = (): void => {
      if (resume) log.waiting?.delete(resume);
      resume?.();
    };
    signal.addEventListener('abort', leave, { once: true });
    try {
      while (!signal.aborted) {
        const { events } = log;
        if (next < events.length) {
          const from = next;
          next = events.length;
          if (log.last?.from !== from || log.last.next !== next)
            log.last = {
              from,
              next,
              batch: new EventBatch(from === 0 && isTerminal(events.at(-1)) ? events : events.slice(from)),
            };
          yield log.last.batch;
        } else if (isTerminal(events.at(-1)) || this.#logs.get(task_id) !== log) return;
        else
          await new Promise<void>((resolve) => {
            resume = resolve;
            log.waiting ??= new Set();
            log.waiting.add(resolve);
          });
      }
    } finally {
      signal.removeEventListener('abort', leave);
    }
  }

  drop(task_id: string): void {
    const log = this.#logs.get(task_id);
    this.#logs.delete(task_id);
    if (log) wake(log);
  }
}

function stamped({ type, data }: NewLogEvent, id: number): LogEvent {
  return { id, type, data } as LogEvent;
}

function upToTerminal(events: readonly NewLogEvent[]): readonly NewLogEvent[] {
  const end = events.findIndex(isTerminal);
  return end === -1 ? events : events.slice(0, end + 1);
}

function wake(log: Log): void {
  const { waiting } = log;
  if (!waiting) return;
  log.waiting = undefined;
  for (const resume of waiting) resume();
}
