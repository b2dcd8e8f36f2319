import type { FinishReason, TaskUsage } from '../contract/generated/types.ts';
import type { Failure } from '../errors.ts';

/** Who ended a task that was not allowed to finish. Label values of `tasks_canceled_total`. */
export type CancelReason = 'client' | 'disconnect' | 'deadline' | 'watchdog' | 'drain';

/** What ran out of time: the task's own deadline, or its engine's (the watchdog). */
export type Overdue = 'deadline' | 'wall' | 'first token' | 'idle';

/** The rules of a pool for its tasks, shared by all of them. Durations in milliseconds. */
export interface TaskRules {
  /** Runs of a task that dies before its first token, the first one included. */
  max_attempts: number;
  /** Times a task that has written tokens may go on with another run. */
  max_continuations: number;
  metrics_period_ms: number;
  /** Longest silence of the engine before the first token. */
  first_token_ms: number;
  /** Longest silence between two tokens. */
  idle_ms: number;
  /** Longest run; undefined where only the deadline ends it. */
  wall_ms: number | undefined;
}

export interface TaskInput {
  id: string;
  /** Monotonic milliseconds at which the task was accepted. */
  at: number;
  queue_position: number;
  predicted_start_ms: number;
  /** Milliseconds after `at` from which on the answer is no longer useful. */
  deadline_ms: number;
  rules: TaskRules;
}

export interface TaskContext {
  id: string;
  queue_position: number;
  predicted_start_ms: number;
  deadline_ms: number;
  rules: TaskRules;
  /** Runs started so far. */
  attempts: number;
  /** Runs that went on where another one had been lost. */
  continuations: number;
  /** The slot lease of the current run; undefined while waiting. */
  lease: number | undefined;
  replica_id: string | undefined;
  /** Whether another run can go on after this one's tokens. */
  continuable: boolean;
  usage: TaskUsage;
  /** Monotonic milliseconds of each first entry; the differences are what a client is told. */
  times: {
    admitted: number;
    provisioning?: number;
    placed?: number;
    /** When an engine would not take it, the first time since one did. */
    declined?: number;
    first_token?: number;
    /** Milliseconds after the first token in which no process had it. */
    away_ms?: number;
    ended?: number;
  };
  outcome: TaskOutcome | undefined;
}

/** Milliseconds of a task that is over since its first token, without the time in which no process had it. */
export function decodeTime({ first_token, away_ms = 0, ended = 0 }: TaskContext['times']): number {
  return first_token === undefined ? 0 : Math.max(0, Math.round(ended - first_token - away_ms));
}

export type TaskOutcome =
  | { kind: 'finished'; reason: FinishReason }
  | { kind: 'canceled'; reason: CancelReason }
  /** `overdue` says what ran out, where that was the reason. */
  | { kind: 'failed'; failure: Failure; overdue?: Overdue };

/** Commands are imperative, facts are in the past tense; `at` is monotonic milliseconds. */
export type TaskEvent =
  | { type: 'task.provision'; at: number }
  | { type: 'task.wait' }
  | { type: 'task.place'; at: number; lease: number; replica_id: string; continuable: boolean }
  | { type: 'task.cancel'; at: number; reason: CancelReason; usage?: TaskUsage }
  | { type: 'task.fail'; at: number; failure: Failure; usage?: TaskUsage }
  | { type: 'task.expire'; at: number; overdue: Overdue; usage?: TaskUsage }
  /** The process stops and keeps what it has accepted for the next one. */
  | { type: 'task.suspend'; usage?: TaskUsage }
  | { type: 'engine.streamed'; at: number }
  | { type: 'engine.finished'; at: number; reason: FinishReason; usage: TaskUsage }
  | { type: 'engine.failed'; at: number; failure: Failure; usage: TaskUsage }
  /** The engine has not begun with the run, and takes none now. */
  | { type: 'engine.declined'; at: number; failure: Failure; usage: TaskUsage }
  /** The answer to `run.check`: for how long the engine has given no sign of life. */
  | { type: 'engine.quiet'; at: number; quiet_ms: number; usage: TaskUsage }
  | { type: 'metrics.due' }
  | { type: 'check.due' }
  | { type: 'overdue.due' };

export const TASK_EVENTS = [
  'task.provision',
  'task.wait',
  'task.place',
  'task.cancel',
  'task.fail',
  'task.expire',
  'task.suspend',
  'engine.streamed',
  'engine.finished',
  'engine.failed',
  'engine.declined',
  'engine.quiet',
  'metrics.due',
  'check.due',
  'overdue.due',
] as const satisfies readonly TaskEvent['type'][];

/** What the task's owner has to do or to tell. The log's lifecycle events have no other source. */
export type TaskFact =
  | { type: 'log.started' }
  | { type: 'log.resumed' }
  | { type: 'log.metrics' }
  | { type: 'log.end' }
  | { type: 'log.error'; failure: Failure }
  | { type: 'engine.start'; lease: number; replica_id: string }
  | { type: 'engine.abort'; lease: number; replica_id: string }
  /** Answer with `engine.quiet`. */
  | { type: 'run.check' }
  /** Answer with `task.expire`. */
  | { type: 'run.overdue'; overdue: Overdue }
  | { type: 'task.requeued' }
  | { type: 'task.suspended' }
  | { type: 'task.closed' };
