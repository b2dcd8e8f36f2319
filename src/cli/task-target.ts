import type { TaskInfo } from '../contract/generated/types.ts';
import type { NewLogEvent } from '../streams/task-log.ts';

/** One submitted task, in this process or behind a URL. */
export interface RunningTask {
  events: AsyncIterable<NewLogEvent>;
  info(): Promise<TaskInfo>;
  cancel(): Promise<void>;
  /** Tells of each new state, where the events do not. */
  onMoved?(listener: () => void): void;
}

/** Where `run` sends its task. */
export interface TaskTarget {
  submit(request: {
    prompt: string;
    model: string | undefined;
    max_tokens: number | undefined;
  }): Promise<RunningTask>;
  close(): Promise<void>;
}
