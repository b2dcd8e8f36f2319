import type { TaskRequest, TaskUsage } from '../contract/generated/types.ts';
import type { TaskContext, TaskOutcome } from '../machines/task-protocol.ts';
import type { Fact } from '../store/store.ts';
import type { TaskDraft, TaskRecord } from './task-record.ts';

const PREFIX = 'task/';
const KEY_PREFIX = 'key/';

/** An Idempotency-Key with which a task was posted again; the one that it came with is in its own fact. */
export interface LaterKeyFact {
  key: string;
  data: { task_id: string; used_wall_ms: number };
}

/** A task as the store keeps it: written at its admission, and once more, without its texts, when it is over. */
export interface StoredTask {
  id: string;
  sequence: number;
  session_id: string;
  pool_id: string;
  correlation_id: string;
  identity?: string;
  idempotency_key?: string;
  seed: number;
  admitted_wall_ms: number;
  tokens_in?: number;
  queue_position: number;
  predicted_start_ms: number;
  request: TaskRequest;
  over?: StoredEnd;
}

export interface StoredEnd {
  outcome: TaskOutcome;
  usage: TaskUsage;
  replica_id?: string;
  /** Milliseconds after the admission. */
  times: { provisioning?: number; placed?: number; first_token?: number; ended: number };
  digest: string;
}

export function taskKey(id: string): string {
  return PREFIX + id;
}

/** Where the store has a {@link LaterKeyFact}. */
export function laterKey(idempotency_key: string): string {
  return KEY_PREFIX + idempotency_key;
}

export function isLaterKey(fact: Fact): fact is LaterKeyFact {
  return fact.key.startsWith(KEY_PREFIX);
}

/** The Idempotency-Key of a {@link LaterKeyFact}. */
export function keyOf(key: string): string {
  return key.slice(KEY_PREFIX.length);
}

export function isTaskFact(fact: Fact): fact is { key: string; data: StoredTask } {
  return fact.key.startsWith(PREFIX);
}

export function admissionFact(
  draft: TaskDraft,
  { queue_position, predicted_start_ms }: { queue_position: number; predicted_start_ms: number },
): Fact {
  const data: StoredTask = {
    id: draft.id,
    sequence: draft.sequence,
    session_id: draft.session_id,
    pool_id: draft.pool_id,
    correlation_id: draft.correlation_id,
    ...(draft.identity === undefined ? {} : { identity: draft.identity }),
    ...(draft.idempotency_key === undefined ? {} : { idempotency_key: draft.idempotency_key }),
    seed: draft.seed,
    admitted_wall_ms: draft.admitted_wall_ms,
    ...(draft.tokens_in === undefined ? {} : { tokens_in: draft.tokens_in }),
    queue_position,
    predicted_start_ms,
    request: draft.request,
  };
  return { key: taskKey(draft.id), data };
}

/** Of a task that is over, once its texts are gone. */
export function endFact(record: TaskRecord): Fact {
  const { context, digest } = record;
  const { times, outcome, usage, replica_id } = context;
  const since = (at: number | undefined): number | undefined =>
    at === undefined ? undefined : at - times.admitted;
  const over = {
    outcome,
    usage,
    replica_id,
    times: {
      provisioning: since(times.provisioning),
      placed: since(times.placed),
      first_token: since(times.first_token),
      ended: since(times.ended) ?? 0,
    },
    digest: digest ?? '',
  };
  const fact = admissionFact(record, context);
  return { key: fact.key, data: { ...(fact.data as StoredTask), over } };
}

/**
 * What a stored task was, as a draft of this process: its monotonic times begin in the past.
 * @param pool_id of the pool that it has now
 * @param epoch_at the beginning of wall time, in monotonic milliseconds
 */
export function draftOf(stored: StoredTask, pool_id: string, epoch_at: number): TaskDraft {
  const admitted = epoch_at + stored.admitted_wall_ms;
  const { request } = stored;
  return {
    id: stored.id,
    sequence: stored.sequence,
    session_id: stored.session_id,
    priority: request.priority,
    pool_id,
    correlation_id: stored.correlation_id,
    identity: stored.identity,
    idempotency_key: stored.idempotency_key,
    seed: stored.seed,
    admitted_wall_ms: stored.admitted_wall_ms,
    tokens_in: stored.tokens_in,
    expected_tokens: Math.min(request.expected_tokens ?? request.max_tokens, request.max_tokens),
    is_restored: true,
    due_at: admitted + request.deadline_ms,
    request,
    digest: stored.over?.digest,
    queue_links: undefined,
    state: undefined,
    context: undefined,
  };
}

/** The snapshot in which a stored task ended. */
export function endOf(
  context: TaskContext,
  { outcome, usage, replica_id, times }: StoredEnd,
): Pick<TaskRecord, 'state' | 'context'> {
  const { admitted } = context.times;
  const at = (name: keyof StoredEnd['times']): Partial<TaskContext['times']> => {
    const ms = times[name];
    return ms === undefined ? {} : { [name]: admitted + ms };
  };
  return {
    state: outcome.kind === 'failed' ? 'error' : 'ended',
    context: {
      ...context,
      outcome,
      usage,
      replica_id,
      times: { admitted, ...at('provisioning'), ...at('placed'), ...at('first_token'), ...at('ended') },
    },
  };
}
