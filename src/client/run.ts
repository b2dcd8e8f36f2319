import type { AdmissionResponse, TaskRequest } from '../contract/generated/types.ts';
import { TaskchartError } from '../errors.ts';
import { failureOf } from './refusal.ts';
import { recordOf, type RecordOptions, type RunRecord } from './run-record.ts';
import type { TaskEvent } from './task-event.ts';

/** A task that was posted and is followed: `for await` gives its events, `text()` what it wrote. */
export interface Run extends AsyncIterable<TaskEvent> {
  /** The answer to the post. @throws as `submit` */
  readonly admission: Promise<AdmissionResponse>;
  /**
   * The whole output, once the task is over; of a cancelled task, what it wrote until then.
   * @throws TaskchartError the failure with which the task ended, and whatever `submit` and `stream` throw
   */
  text(): Promise<string>;
  /** Follows the task to its end and gives all that is to be known of it, to be kept. @throws as the events do */
  record<V = unknown>(options?: RecordOptions<V>): Promise<RunRecord<V>>;
  /** Resolves when no token can follow any more. */
  cancel(): Promise<void>;
}

/** @param follow the task's events from the first; called once for each reader */
export function runOf(
  request: TaskRequest,
  admission: Promise<AdmissionResponse>,
  follow: (task_id: string) => AsyncIterable<TaskEvent>,
  cancel: (task_id: string) => Promise<void>,
): Run {
  // Whoever reads the events or the text hears of a refusal there.
  admission.catch(() => undefined);
  const events = async function* (): AsyncGenerator<TaskEvent, void, undefined> {
    yield* follow((await admission).task_id);
  };
  return {
    admission,
    [Symbol.asyncIterator]: events,
    async text() {
      let text = '';
      for await (const event of events()) {
        if (event.type === 'token') text += event.data.t;
        if (event.type === 'error') throw new TaskchartError(failureOf({ ...event.data }));
      }
      return text;
    },
    record: (options = {}) => recordOf(request, admission, events(), options),
    cancel: async () => cancel((await admission).task_id),
  };
}
