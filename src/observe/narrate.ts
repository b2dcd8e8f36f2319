import type { Logger } from 'pino';
import type { Observation, RefusedPlacement } from '../actors/observation.ts';
import type { Orchestrator } from '../actors/orchestrator.ts';
import type { TaskRecord } from '../actors/task-record.ts';

/** Writes one log line for each thing that matters: what happened, to whom, in one sentence. */
export function narrate(orchestrator: Orchestrator, logger: Logger): () => void {
  return orchestrator.observers.add((observation) => {
    switch (observation.type) {
      case 'task.admitted': {
        const { record, decision } = observation;
        return logger.info({
          actor: 'orchestrator',
          action: 'admit',
          target: 'task',
          ...fieldsOf(orchestrator, record),
          queue_position: record.context.queue_position,
          predicted_start_ms: record.context.predicted_start_ms,
          ctx: record.request.ctx,
          seed: record.seed,
          decision_reason: decision.reason,
          pinned: decision.pinned,
          fallback_used: decision.fallback_used,
          candidates_total: decision.considered,
          candidates_feasible: decision.feasible,
          human: `A task joins the queue of pool ${record.pool_id} with ${record.context.queue_position} ahead of it.`,
        });
      }
      case 'task.refused':
        return logger.warn({
          actor: 'orchestrator',
          action: 'refuse',
          target: 'task',
          x_correlation_id: observation.correlation_id,
          engine: observation.engine,
          error_kind: observation.failure.code,
          retry_after_ms: observation.failure.retry_after_ms,
          policy_label: observation.failure.policy_label,
          ...(observation.placement ? refusedPlacement(observation.placement) : {}),
          human: `A task is refused: ${observation.failure.message}.`,
        });
      case 'request.trimmed':
        return logger.debug({
          actor: 'http',
          action: 'ignore',
          target: 'fields',
          x_correlation_id: observation.correlation_id,
          fields: observation.fields,
          human: 'A request has fields that nobody knows, which are ignored.',
        });
      case 'store.recovered':
        return logger.info({
          actor: 'orchestrator',
          action: 'recover',
          target: 'tasks',
          finished: observation.finished,
          unfinished: observation.unfinished,
          human: `${observation.unfinished} unfinished tasks of an earlier run wait again, ${observation.finished} finished ones can be read.`,
        });
      case 'task.dropped':
        return logger.warn({
          actor: 'orchestrator',
          action: 'drop',
          target: 'task',
          ...fieldsOf(orchestrator, observation.record),
          policy_label: observation.policy,
          human: `A waiting task of pool ${observation.record.pool_id} gives its place to a newer one.`,
        });
      case 'task.moved':
        return moved(orchestrator, logger, observation);
      case 'task.closed':
        return closed(orchestrator, logger, observation.record);
      case 'pool.moved': {
        const { pool_id, from, to, failure } = observation;
        const level = to === 'unready' ? 'error' : 'info';
        return logger[level]({
          actor: 'pool',
          action: to,
          target: pool_id,
          pool_id,
          last_error: to === 'unready' ? failure?.message : undefined,
          human:
            to === 'unready' && failure
              ? `Pool ${pool_id} is not ready: ${failure.message}.`
              : `Pool ${pool_id} goes from ${from} to ${to}.`,
        });
      }
      case 'replica.moved': {
        const { pool_id, replica_id, from, to, failure, exit } = observation;
        const isTrouble = to === 'lost' || to === 'failed' || to === 'backing off' || to === 'broken';
        return logger[isTrouble ? 'warn' : 'debug']({
          actor: 'replica',
          action: to,
          target: replica_id,
          pool_id,
          replica_id,
          ...(isTrouble
            ? { last_error: failure?.message, crash_reason: exit?.cause, exit_code: exit?.exit_code }
            : {}),
          human: isTrouble
            ? `Replica ${replica_id} is ${to}: ${failure?.message ?? exit?.message ?? 'no cause known'}.`
            : `Replica ${replica_id} goes from ${from} to ${to}.`,
        });
      }
      case 'child.crashed':
        return logger.error({
          actor: 'supervisor',
          action: 'crash',
          target: observation.child,
          err: observation.error,
          human: `The actor of ${observation.child} crashed; this is a defect.`,
        });
      default:
        return;
    }
  });
}

function refusedPlacement({ reason, pinned, considered, feasible }: RefusedPlacement): object {
  return {
    decision_reason: reason,
    pinned,
    fallback_used: false,
    candidates_total: considered,
    candidates_feasible: feasible,
  };
}

function fieldsOf(orchestrator: Orchestrator, record: TaskRecord): Record<string, unknown> {
  return {
    job_id: record.id,
    session_id: record.session_id,
    engine: record.request.engine,
    engine_version: orchestrator.pools.get(record.pool_id)?.properties?.engine_version,
    pool_id: record.pool_id,
    replica_id: record.context.replica_id,
    model_id: record.request.model_ref,
    x_correlation_id: record.correlation_id,
  };
}

function moved(
  orchestrator: Orchestrator,
  logger: Logger,
  { record, from, to }: Extract<Observation, { type: 'task.moved' }>,
): void {
  if (to === 'streaming')
    return logger.info({
      actor: 'task',
      action: 'stream',
      target: 'task',
      ...fieldsOf(orchestrator, record),
      queue_time_ms: Math.round((record.context.times.placed ?? 0) - record.context.times.admitted),
      human: `A task on pool ${record.pool_id} gets its first token.`,
    });
  // Built only where it is wanted: this is every step of every task.
  if (!logger.isLevelEnabled('debug')) return;
  logger.debug({
    actor: 'task',
    action: to,
    target: 'task',
    ...fieldsOf(orchestrator, record),
    human: `A task goes from ${from} to ${to}.`,
  });
}

function closed(orchestrator: Orchestrator, logger: Logger, record: TaskRecord): void {
  const { outcome, usage, times } = record.context;
  const fields = {
    actor: 'task',
    target: 'task',
    ...fieldsOf(orchestrator, record),
    tokens_in: usage.tokens_in,
    tokens_out: usage.tokens_out,
    decode_time_ms: times.first_token === undefined ? 0 : Math.round((times.ended ?? 0) - times.first_token),
    duration_ms: Math.round((times.ended ?? times.admitted) - times.admitted),
  };
  if (outcome?.kind === 'failed')
    return logger.warn({
      ...fields,
      action: 'error',
      error_kind: outcome.failure.code,
      human: `A task fails: ${outcome.failure.message}.`,
    });
  if (outcome?.kind === 'canceled')
    return logger.info({ ...fields, action: 'cancel', reason: outcome.reason, human: 'A task is canceled.' });
  logger.info({ ...fields, action: 'end', human: `A task ends after ${usage.tokens_out} tokens.` });
}
