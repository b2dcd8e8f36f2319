import type { AdmissionResponse, TaskRequest } from '../contract/generated/types.ts';
import type { TaskEvent } from './task-event.ts';

/** What was asked, what came of it and when: plain data, to be kept as evidence of a run. */
export interface RunRecord<Verification = unknown> {
  request: TaskRequest;
  admission: AdmissionResponse;
  /** In order; `ts_ms` is when each event arrived here, in epoch milliseconds. */
  transcript: { type: TaskEvent['type']; data: TaskEvent['data']; ts_ms: number }[];
  /** The lines of `logs` that are about this task. */
  logs: string[];
  /** What `verify` said of its output. */
  verification?: Verification;
}

export interface RecordOptions<Verification = unknown> {
  /** JSON lines of the server's log, where the caller has them; those with the task's correlation id are kept. */
  logs?: Iterable<string>;
  /** Looks at the output once the task is over. */
  verify?: (text: string) => Verification;
}

/** Follows a task to its end and keeps everything. @throws whatever `submit` and `stream` throw */
export async function recordOf<V>(
  request: TaskRequest,
  admission: Promise<AdmissionResponse>,
  events: AsyncIterable<TaskEvent>,
  { logs = [], verify }: RecordOptions<V>,
): Promise<RunRecord<V>> {
  const transcript: RunRecord['transcript'] = [];
  let text = '';
  let correlation_id: string | undefined;
  for await (const event of events) {
    const { type, data } = event;
    transcript.push({ type, data, ts_ms: Date.now() });
    if (type === 'token') text += data.t;
    if (type === 'started') correlation_id = data.correlation_id;
  }
  const id = JSON.stringify(correlation_id);
  const own = [...logs].filter((line) => id !== undefined && line.includes(id));
  return {
    request,
    admission: await admission,
    transcript,
    logs: own,
    ...(verify === undefined ? {} : { verification: verify(text) }),
  };
}
