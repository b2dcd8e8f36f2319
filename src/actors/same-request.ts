import type { TaskRequest } from '../contract/generated/types.ts';
import { digestOf } from '../contract/request-digest.ts';
import type { TaskRecord } from './task-record.ts';

/**
 * Ids that the server made are no part of what the caller has posted. What is kept is compared as JSON: a store gives
 * back what JSON can say, which is less than a number can be.
 */
export function isSameRequest(record: TaskRecord, request: TaskRequest): boolean {
  const { task_id, session_id, ...rest } = request;
  const { request: before } = record;
  const isMadeHere = before.task_id === undefined && task_id === record.id;
  const isSessionMadeHere = before.session_id === undefined && session_id === record.session_id;
  const posted = {
    ...rest,
    ...(isMadeHere ? {} : { task_id }),
    ...(isSessionMadeHere ? {} : { session_id }),
  } as TaskRequest;
  return (record.digest ?? digestOf(before)) === digestOf(posted);
}
