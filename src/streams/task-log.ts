import type { EndEvent, MetricsEvent, StartedEvent, Token } from '../contract/generated/types.ts';
import type { Failure } from '../errors.ts';

/** Places in a log are opaque outside it. */
export type Cursor = number & { readonly cursor: unique symbol };

/** What a writer appends. `i` of a token is the number of tokens before it. */
export type NewLogEvent =
  | { type: 'started'; data: StartedEvent }
  | { type: 'token'; data: Token }
  | { type: 'embedding'; data: { i: number; vector: readonly number[] } }
  | { type: 'rerank'; data: { i: number; index: number; score: number } }
  | { type: 'metrics'; data: MetricsEvent }
  | { type: 'end'; data: EndEvent }
  | { type: 'error'; data: Failure };

/** What a reader gets: `id` counts events from 0 without gaps and is the resume point. */
export type LogEvent = NewLogEvent & { readonly id: number };

/**
 * Events that a reader is given together. Its wire form is made once and shared by all readers that stand at the same
 * place; a log on disk has that form already and makes events only where somebody asks for them.
 */
export interface LogBatch {
  readonly events: readonly LogEvent[];
  /** The same as server-sent events, as text or as UTF-8. */
  readonly frames: string | Uint8Array;
  /** Whether its last event is a terminal one. */
  readonly isLast: boolean;
}

/** When events were appended: those from `from` on, up to the next of these, at `at_ms` (epoch milliseconds). */
export interface LogTime {
  from: number;
  at_ms: number;
}

export type AppendResult =
  | { kind: 'ok'; cursor: Cursor }
  /** Somebody else has written since this cursor, or the log is closed: stop writing. */
  | { kind: 'fenced' }
  /** No answer; the append may or may not have happened. */
  | { kind: 'unknown' };

/**
 * One log a task. The writer holds the cursor and has one append in flight; whoever appends with a cursor that
 * is not the tail is fenced, so a run that was given up cannot add a token behind the new owner's back.
 * Nothing can follow a terminal event. Readers have cursors of their own and never slow the writer down.
 *
 * A log in this process answers at once; one that lives elsewhere answers with a promise.
 */
export interface TaskLog {
  /** Whether what readers have seen outlives the process. */
  readonly isDurable: boolean;
  append(
    task_id: string,
    cursor: Cursor,
    events: readonly NewLogEvent[],
  ): AppendResult | Promise<AppendResult>;
  /** Where the next event goes; the start for a task without a log. */
  tail(task_id: string): Cursor | Promise<Cursor>;
  /** Whether the log has its terminal event. */
  isClosed(task_id: string): boolean | Promise<boolean>;
  /**
   * Events after `after` (undefined: from the first), in batches, waiting for more until the terminal event was
   * delivered or the signal aborted. A log that has not begun by then is empty.
   */
  read(task_id: string, after: number | undefined, signal: AbortSignal): AsyncIterable<LogBatch>;
  /**
   * When its events were appended, in order; one entry for each millisecond in which some were. The first event has
   * none: a log that only begins is to cost nothing more. Nor have events that were kept by a version that did not
   * know. A log that never knows leaves this out.
   */
  times?(task_id: string): readonly LogTime[] | Promise<readonly LogTime[]>;
  /** Forgets a log; who reads it gets what is there, and its end. */
  drop(task_id: string): void | Promise<void>;
  /** Drops the logs of tasks that nobody knows: a process may have died between forgetting a task and its log. */
  dropUnknown?(isKnown: (task_id: string) => boolean): void | Promise<void>;
  /** Ends its readers, and gives back what it holds. Safe to repeat. */
  close(): Promise<void>;
}

export function isTerminal(event: NewLogEvent | undefined): boolean {
  return event?.type === 'end' || event?.type === 'error';
}
