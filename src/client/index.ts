/**
 * taskchart's client: posts tasks to a daemon and follows their streams. Runs in Node 20 and later, in browsers, and
 * wherever else there is a standard `fetch`.
 */
export { createClient } from './client.ts';
export type { Client, ClientOptions, RunOptions, Session, SubmitOptions, TaskFilter } from './client.ts';
export { ClientError } from './client-error.ts';
export type { ClientErrorReason } from './client-error.ts';
export type { ClientPorts } from './retry.ts';
export type { Run } from './run.ts';
export type { RecordOptions, RunRecord } from './run-record.ts';
export type { TaskEvent, TaskEventData } from './task-event.ts';
export type { StreamOptions } from './task-stream.ts';
export type { CallOptions, Fetch } from './transport.ts';
export { ERROR_KINDS, TaskchartError } from '../errors.ts';
export type { ErrorKind, Failure } from '../errors.ts';
export type {
  AdmissionResponse,
  Capabilities,
  SessionInfo,
  TaskInfo,
  TaskPreview,
  TaskRequest,
  TaskState,
  TaskSummary,
  TokenizeRequest,
  TokenizeResponse,
} from '../contract/generated/types.ts';
