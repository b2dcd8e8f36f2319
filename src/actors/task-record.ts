import type { TaskRequest } from '../contract/generated/types.ts';
import { createRecordStepper } from '../machines/record-step.ts';
import type { TaskContext, TaskFact, TaskRules } from '../machines/task-protocol.ts';
import { taskMachine, type TaskState } from '../machines/task.ts';
import type { Priority, Queued } from '../scheduling/queue.ts';

/** What is known of a task from its admission on. */
export interface TaskDraft extends Queued {
  /** Given by the machine when it is admitted; there from the start, as are all fields: what is added later costs more. */
  state: TaskState | undefined;
  context: TaskContext | undefined;
  queue_links: Queued['queue_links'];
  readonly id: string;
  /** Place in the order of all admissions of this store; also the cursor of lists. */
  readonly sequence: number;
  readonly session_id: string;
  readonly priority: Priority;
  readonly pool_id: string;
  readonly correlation_id: string;
  /** Who posted it, as the log says it; undefined where nobody asked. */
  readonly identity: string | undefined;
  readonly idempotency_key: string | undefined;
  readonly seed: number;
  /** Epoch milliseconds, for people. */
  readonly admitted_wall_ms: number;
  /** Counted at admission, where counting was needed to decide. */
  readonly tokens_in: number | undefined;
  /** The caller's guess of its output, for estimates. */
  readonly expected_tokens: number;
  /** Whether an earlier process admitted it. */
  readonly is_restored: boolean;
  /** Monotonic milliseconds of its deadline. */
  readonly due_at: number;
  /** As it was posted while the task is unfinished, without its texts afterwards. */
  request: TaskRequest;
  /** Of the request as it was posted; only once its texts are gone. */
  digest: string | undefined;
}

/**
 * A task as data: under the task machine's definition, but without an actor unless it is in flight.
 * `state` and `context` are written by the machine only.
 */
export interface TaskRecord extends TaskDraft {
  state: TaskState;
  context: TaskContext;
}

/** Tokens that a task may write, and its session's budget has to have: vectors and rankings are none. */
export function mostTokensOut({ workload, max_tokens }: TaskRequest): number {
  return workload === 'completion' ? max_tokens : 0;
}

const sampleRules: TaskRules = {
  max_attempts: 1,
  max_continuations: 0,
  metrics_period_ms: 1000,
  first_token_ms: 1000,
  idle_ms: 1000,
  wall_ms: undefined,
};

/** Steps records through the task machine; one for the process. */
export const taskStepper = createRecordStepper<typeof taskMachine, TaskFact>(taskMachine, {
  id: '',
  at: 0,
  queue_position: 0,
  predicted_start_ms: 0,
  deadline_ms: 1000,
  rules: sampleRules,
});

/** Sampling seed of a task that names none: FNV-1a of its id, so that a retry under the same id repeats it. */
export function seedOf(task_id: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < task_id.length; i++) hash = Math.imul(hash ^ task_id.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}
