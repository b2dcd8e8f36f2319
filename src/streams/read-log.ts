import { failure, TaskchartError } from '../errors.ts';
import { isTerminal, type LogEvent, type TaskLog } from './task-log.ts';

/** What a task has written, as its log has it. */
export interface TaskOutput {
  text: string;
  /** Tokens that the text stands for. */
  tokens: number;
  embeddings: { i: number; vector: readonly number[] }[];
  ranking: { i: number; index: number; score: number }[];
  /** Whether any of it came from a run. */
  isAny: boolean;
  /** Its `end` or `error`, once there is one. */
  terminal: Extract<LogEvent, { type: 'end' | 'error' }> | undefined;
  last_event_id: number | undefined;
}

const NEVER = new AbortController().signal;

/** What the log holds now, without waiting for more. */
export async function eventsSoFar(log: TaskLog, task_id: string): Promise<readonly LogEvent[]> {
  const tail = await log.tail(task_id);
  const events: LogEvent[] = [];
  if (tail === 0) return events;
  for await (const batch of log.read(task_id, undefined, NEVER)) {
    events.push(...batch.events);
    if (events.length >= tail) break;
  }
  return events;
}

/**
 * Whether a reader that has the event `after` has all there will be.
 * @throws TaskchartError INVALID_PARAMS where the log has no such event
 */
export async function hasAll(log: TaskLog, task_id: string, after: number): Promise<boolean> {
  const last = (await log.tail(task_id)) - 1;
  if (after > last)
    throw new TaskchartError(
      failure(
        'INVALID_PARAMS',
        `Last-Event-ID, after: must be at most ${last}, the id of this task’s last event, got ${after}`,
      ),
    );
  return after === last && (await log.isClosed(task_id));
}

export function outputOf(events: readonly LogEvent[]): TaskOutput {
  const output: TaskOutput = {
    text: '',
    tokens: 0,
    embeddings: [],
    ranking: [],
    isAny: false,
    terminal: undefined,
    last_event_id: events.at(-1)?.id,
  };
  for (const event of events) {
    if (event.type === 'token') {
      output.text += event.data.t;
      output.tokens = event.data.i + 1;
    } else if (event.type === 'embedding') output.embeddings.push(event.data);
    else if (event.type === 'rerank') output.ranking.push(event.data);
    else if (isTerminal(event)) output.terminal = event as NonNullable<TaskOutput['terminal']>;
  }
  output.isAny = output.tokens > 0 || output.embeddings.length > 0 || output.ranking.length > 0;
  return output;
}
