import type { Logger } from 'pino';
import type { Observation, RefusedPlacement } from '../actors/observation.ts';
import type { Orchestrator } from '../actors/orchestrator.ts';
import type { TaskRecord } from '../actors/task-record.ts';
import { decodeTime } from '../machines/task-protocol.ts';

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
          identity: observation.identity,
          engine: observation.engine,
          error_kind: observation.failure.code,
          retry_after_ms: observation.failure.retry_after_ms,
          policy_label: observation.failure.policy_label,
          ...(observation.placement ? refusedPlacement(observation.placement) : {}),
          human: `A task is refused: ${observation.failure.message}.`,
        });
      case 'model.ingested':
      case 'model.verified':
      case 'model.moved':
      case 'model.removed':
        return ofModel(logger, observation);
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
      case 'memory.planned': {
        const { pool_id, reason, human } = observation;
        return logger.info({
          actor: 'planner',
          action: observation.do,
          target: pool_id,
          pool_id,
          decision_reason: reason,
          human,
        });
      }
      case 'pool.purged': {
        const { pool_id, failure } = observation;
        return logger[failure ? 'error' : 'info']({
          actor: 'pool',
          action: 'purge',
          target: pool_id,
          pool_id,
          last_error: failure?.message,
          human: failure
            ? `Pool ${pool_id} is purged in part: ${failure.message}.`
            : `Pool ${pool_id} is purged.`,
        });
      }
      case 'pool.reloaded': {
        const { pool_id, model_ref, failure } = observation;
        return logger[failure ? 'error' : 'info']({
          actor: 'pool',
          action: failure ? 'reload failed' : 'reloaded',
          target: pool_id,
          pool_id,
          model_ref,
          last_error: failure?.message,
          human: failure
            ? `Pool ${pool_id} keeps its model: ${failure.message}.`
            : `Pool ${pool_id} serves another model now.`,
        });
      }
      case 'engine.progress':
        return prepares(logger, observation);
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
      case 'worker.bound':
      case 'worker.unbound':
      case 'handoff.rejected':
        return announced(logger, observation);
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

type OfModel = Extract<Observation, { type: `model.${'ingested' | 'verified' | 'moved' | 'removed'}` }>;

function ofModel(logger: Logger, observation: OfModel): void {
  const { model_id } = observation;
  const fields = { actor: 'catalog', target: 'model', model_id };
  switch (observation.type) {
    case 'model.ingested': {
      const { origin, warnings } = observation;
      const line = { ...fields, action: 'ingest', origin };
      if (warnings.length === 0)
        return logger.info({ ...line, human: `The catalog has model ${shorten(model_id)}.` });
      return logger.warn({
        ...line,
        decision_reason: warnings.join('; '),
        human: `The catalog has model ${shorten(model_id)}, which lacks what strict trust would demand.`,
      });
    }
    case 'model.verified': {
      const { result, reason } = observation;
      return logger[RESULT_LEVELS[result]]({
        ...fields,
        action: 'verify',
        result,
        reason,
        human: `Model ${shorten(model_id)} ${FINDINGS[reason] ?? reason}.`,
      });
    }
    case 'model.moved': {
      const { state, deadline_ms } = observation;
      const isRetired = state === 'Retired';
      return logger.info({
        ...fields,
        action: isRetired ? 'retire' : 'activate',
        ...(isRetired ? { deadline_ms } : {}),
        human: isRetired
          ? `Model ${shorten(model_id)} takes no new work; what runs has ${deadline_ms} ms.`
          : `Model ${shorten(model_id)} takes new work.`,
      });
    }
    case 'model.removed': {
      const { files } = observation;
      return logger[files === 'failed' ? 'warn' : 'info']({
        ...fields,
        action: 'remove',
        files,
        human: `The catalog forgets model ${shorten(model_id)}; ${FILES[files]}.`,
      });
    }
  }
}

const RESULT_LEVELS = { pass: 'info', warn: 'warn', fail: 'error' } as const;
const FINDINGS: Readonly<Record<string, string>> = {
  digest_match: 'has the digest that it should have',
  digest_mismatch: 'has another digest than it should have',
  no_digest: 'is used without a digest to compare it with',
  absent: 'has no file here to compare',
  directory: 'is a folder, which has no digest',
  unreadable: 'has a file that cannot be read',
};
const FILES = {
  removed: 'its fetched files are deleted',
  kept: 'its files are in use, shared or were never fetched, and stay',
  none: 'no file of it was here',
  failed: 'its files could not be deleted',
} as const;

/** A sentence stays one that can be read. */
function shorten(model_id: string): string {
  return model_id.length > 60 ? `${model_id.slice(0, 60)}…` : model_id;
}

function announced(
  logger: Logger,
  observation: Extract<Observation, { type: 'worker.bound' | 'worker.unbound' | 'handoff.rejected' }>,
): void {
  if (observation.type === 'handoff.rejected') {
    const { file, failure } = observation;
    return logger.warn({
      actor: 'handoff',
      action: 'reject',
      target: file,
      error_kind: failure.code,
      last_error: failure.message,
      human: `The file ${file} announces no engine that can be used: ${failure.message}.`,
    });
  }
  const { pool_id, replica_id, engine, engine_version, url, slots_total, device_mask } = observation.worker;
  const fields = {
    actor: 'worker',
    target: replica_id,
    pool_id,
    replica_id,
    engine,
    engine_version,
    url,
    slots_total,
    device_mask,
  };
  if (observation.type === 'worker.unbound')
    return logger.info({
      ...fields,
      action: 'unbind',
      human: `Pool ${pool_id} loses replica ${replica_id}.`,
    });
  const { before } = observation;
  const isOther = before && (before.url !== url || before.engine_version !== engine_version);
  logger[isOther ? 'warn' : 'info']({
    ...fields,
    action: 'bind',
    ...(isOther ? { before: { url: before.url, engine_version: before.engine_version } } : {}),
    human: isOther
      ? `Replica ${replica_id} of pool ${pool_id} is another engine now: ${engine} ${engine_version} at ${url}.`
      : `Pool ${pool_id} has ${engine} ${engine_version} at ${url} as replica ${replica_id}.`,
  });
}

/** The steps, and what somebody should know; how far one is, is for those who wait. */
function prepares(
  logger: Logger,
  { pool_id, phase, fraction, note }: Extract<Observation, { type: 'engine.progress' }>,
): void {
  const isStep = fraction === undefined || phase === 'prepared';
  if (!isStep && note === undefined) return;
  logger[note === undefined ? 'info' : 'warn']({
    actor: 'provisioner',
    action: phase,
    target: 'engine',
    pool_id,
    human:
      note ??
      (phase === 'prepared'
        ? `The engine of pool ${pool_id} is here.`
        : `The provisioner of pool ${pool_id} is ${phase}.`),
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
    identity: record.identity,
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
    decode_time_ms: decodeTime(times),
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
