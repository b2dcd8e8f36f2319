import type { TaskRequest } from '../contract/generated/types.ts';
import { createRecordStepper } from '../machines/record-step.ts';
import { taskMachine, type TaskContext, type TaskFact, type TaskState } from '../machines/task.ts';
import type { Priority, Queued } from '../scheduling/queue.ts';

/**
 * A task as data: under the task machine's definition, but without an actor unless it is in flight.
 * `state` and `context` are written by the machine only.
 */
export interface TaskRecord extends Queued {
  readonly id: string;
  readonly session_id: string;
  readonly request: TaskRequest;
  readonly priority: Priority;
  readonly pool_id: string;
  readonly correlation_id: string;
  readonly seed: number;
  /** Epoch milliseconds, for people. */
  readonly admitted_wall_ms: number;
  /** Counted at admission, where counting was needed to decide. */
  readonly tokens_in: number | undefined;
  state: TaskState;
  context: TaskContext;
}

/** Steps records through the task machine; one for the process. */
export const taskStepper = createRecordStepper<typeof taskMachine, TaskFact>(taskMachine, {
  id: '',
  at: 0,
  queue_position: 0,
  predicted_start_ms: 0,
  max_attempts: 1,
  metrics_period_ms: 1000,
});

/** Sampling seed of a task that names none: FNV-1a of its id, so that a retry under the same id repeats it. */
export function seedOf(task_id: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < task_id.length; i++) hash = Math.imul(hash ^ task_id.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}
