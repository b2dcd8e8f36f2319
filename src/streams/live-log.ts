import { EventBatch } from './frames.ts';
import { noteTime, type PlainTimes } from './log-times.ts';
import {
  isTerminal,
  type AppendResult,
  type Cursor,
  type LogBatch,
  type LogEvent,
  type NewLogEvent,
} from './task-log.ts';

/** Those who read a log now. Most logs have nobody, so they have none of this. */
interface Audience {
  readers: number;
  /** Readers that have seen everything and wait for more. */
  waiting: Set<() => void>;
  /** What the last reader was given: the next one mostly stands at the same place. */
  last: { from: number; next: number; batch: LogBatch } | undefined;
  isDropped: boolean;
}

export const START = 0 as Cursor;
export const FENCED: AppendResult = { kind: 'fenced' };

/** The events of one log that are in memory, and the readers that follow it. */
export class LiveLog {
  readonly #events: LogEvent[];
  #visible = 0;
  #audience: Audience | undefined;
  #times: PlainTimes | undefined;

  /** @param times when the events after the first one came, as far as that is known */
  constructor(events: LogEvent[], times?: PlainTimes) {
    this.#events = events;
    this.#times = times;
  }

  /** The events of a log that begins, as {@link LiveLog} takes them. */
  static begin(events: readonly NewLogEvent[]): LogEvent[] {
    // Made at its size: a list that grows by its first event takes room for seventeen, and most logs wait with one.
    const [only] = events;
    return only && events.length === 1 ? [stamped(only, 0)] : upToTerminal(events).map(stamped);
  }

  /** Events so far, those included that no reader sees yet. */
  get length(): number {
    return this.#events.length;
  }

  /** Whether it has its terminal event. */
  get isClosed(): boolean {
    return isTerminal(this.#events.at(-1));
  }

  /** When its events came, the first one left out. */
  get times(): readonly number[] {
    return this.#times ?? [];
  }

  append(cursor: Cursor, events: readonly NewLogEvent[], at_ms: number): AppendResult {
    const stored = this.#events;
    if (cursor !== stored.length || this.isClosed) return FENCED;
    this.#times = noteTime(this.#times, stored.length, at_ms);
    for (const event of events) {
      stored.push(stamped(event, stored.length));
      if (isTerminal(event)) break;
    }
    return { kind: 'ok', cursor: stored.length as Cursor };
  }

  /** The events from one on, to be encoded once. */
  batchFrom(from: number): EventBatch {
    return this.#batch(from, this.#events.length);
  }

  /** Lets readers see the events before `next`. `batch` has those from `from` on, where somebody has it already. */
  show(next: number, batch?: { from: number; batch: LogBatch }): void {
    const audience = this.#audience;
    const from = this.#visible;
    if (next <= from) return;
    this.#visible = next;
    if (!audience) return;
    if (batch?.from === from) audience.last = { from, next, batch: batch.batch };
    wake(audience);
  }

  /** Ends the readers, once they have seen what is there. */
  drop(): void {
    this.#audience ??= newAudience();
    this.#audience.isDropped = true;
    wake(this.#audience);
  }

  async *read(after: number | undefined, signal: AbortSignal): AsyncGenerator<LogBatch, void, undefined> {
    const audience = (this.#audience ??= newAudience());
    audience.readers++;
    let next = after === undefined ? 0 : after + 1;
    // One listener for the whole read: one per wait costs more than the wait.
    let resume: (() => void) | undefined;
    const leave = (): void => {
      if (resume) audience.waiting.delete(resume);
      resume?.();
    };
    signal.addEventListener('abort', leave, { once: true });
    try {
      while (!signal.aborted) {
        const visible = this.#visible;
        if (next < visible) {
          const from = next;
          next = visible;
          if (audience.last?.from !== from || audience.last.next !== next)
            audience.last = { from, next, batch: this.#batch(from, next) };
          yield audience.last.batch;
        } else if (audience.isDropped || isTerminal(this.#events[visible - 1])) return;
        else
          await new Promise<void>((resolve) => {
            resume = resolve;
            audience.waiting.add(resolve);
          });
      }
    } finally {
      signal.removeEventListener('abort', leave);
      // With the last reader goes the text that readers shared.
      if (--audience.readers === 0 && !audience.isDropped) this.#audience = undefined;
    }
  }

  #batch(from: number, next: number): EventBatch {
    const events = this.#events;
    return new EventBatch(
      from === 0 && next === events.length && this.isClosed ? events : events.slice(from, next),
    );
  }
}

function newAudience(): Audience {
  return { readers: 0, waiting: new Set(), last: undefined, isDropped: false };
}

function wake({ waiting }: Audience): void {
  for (const resume of waiting) resume();
  waiting.clear();
}

function stamped({ type, data }: NewLogEvent, id: number): LogEvent {
  return { id, type, data } as LogEvent;
}

function upToTerminal(events: readonly NewLogEvent[]): readonly NewLogEvent[] {
  const end = events.findIndex(isTerminal);
  return end === -1 ? events : events.slice(0, end + 1);
}
