import type { EndEvent, StartedEvent } from '../contract/generated/types.ts';
import type { Failure } from '../errors.ts';
import { decodeTime } from '../machines/task-protocol.ts';
import type { NewLogEvent } from '../streams/task-log.ts';
import type { TaskRecord } from './task-record.ts';

export function startedEvent(record: TaskRecord): NewLogEvent {
  const data: StartedEvent = {
    queue_position: record.context.queue_position,
    predicted_start_ms: record.context.predicted_start_ms,
    engine: record.request.engine,
    pool_id: record.pool_id,
    seed: record.seed,
    correlation_id: record.correlation_id,
    ...(record.tokens_in === undefined ? {} : { tokens_in: record.tokens_in }),
  };
  return { type: 'started', data };
}

export function endEvent(record: TaskRecord): NewLogEvent {
  const { outcome, usage, times } = record.context;
  const decode = decodeTime(times);
  const data: EndEvent = {
    tokens_out: usage.tokens_out,
    decode_ms: decode,
    decode_time_ms: decode,
    ...(outcome?.kind === 'finished' ? { finish_reason: outcome.reason } : {}),
    // A task that never ran has read nothing, and says nothing of it.
    ...(outcome?.kind === 'finished' || usage.tokens_in > 0 ? { tokens_in: usage.tokens_in } : {}),
    ...(outcome?.kind === 'canceled' ? { canceled: true as const, cancel_reason: outcome.reason } : {}),
  };
  return { type: 'end', data };
}

export function errorEvent(record: TaskRecord, failure: Failure): NewLogEvent {
  return { type: 'error', data: { engine: record.request.engine, pool_id: record.pool_id, ...failure } };
}

/** The last event of a task that is over. */
export function terminalEvent(record: TaskRecord): NewLogEvent {
  const { outcome } = record.context;
  return outcome?.kind === 'failed' ? errorEvent(record, outcome.failure) : endEvent(record);
}
