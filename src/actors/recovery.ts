import { setImmediate as turn } from 'node:timers/promises';
import type { Clock } from '../clock.ts';
import { failure } from '../errors.ts';
import type { CancelReason, TaskOutcome } from '../machines/task-protocol.ts';
import type { Fact, Store } from '../store/store.ts';
import { eventsSoFar, outputOf, type TaskOutput } from '../streams/read-log.ts';
import type { LogEvent, TaskLog } from '../streams/task-log.ts';
import { isOver } from '../machines/task.ts';
import { serves, type ModelGate } from './model-gate.ts';
import type { Pool } from './pool.ts';
import { pastTimes, type PastTimes } from './past-times.ts';
import { SESSION_KEY, type Sessions } from './sessions.ts';
import {
  draftOf,
  endOf,
  isLaterKey,
  isTaskFact,
  keyOf,
  type LaterKeyFact,
  type StoredTask,
} from './task-facts.ts';
import { mostTokensOut, type TaskRecord } from './task-record.ts';
import type { TaskRegistry } from './task-registry.ts';
import type { Tasks } from './tasks.ts';

export interface RecoveryOptions {
  clock: Clock;
  store: Store;
  log: TaskLog;
  tasks: Tasks;
  registry: TaskRegistry;
  sessions: Sessions;
  pools: ReadonlyMap<string, Pool>;
  catalog: ModelGate | undefined;
  /** Asked now and then: whoever stops this process meanwhile need not wait for the rest. */
  isWanted: () => boolean;
}

/** How many tasks are taken in between two turns of the event loop. */
const AT_ONCE = 2000;

/**
 * Brings back what earlier processes have accepted: finished tasks can be read, unfinished ones wait again in the
 * order of their admission. What a reader may have seen of a stream is in its log, and stays.
 * @returns how many of each there were
 */
export async function recover(options: RecoveryOptions): Promise<{ finished: number; unfinished: number }> {
  const { store, clock, sessions, tasks, registry } = options;
  const epoch_at = clock.now() - clock.wall();
  const unfinished: { record: TaskRecord; pool: Pool | undefined }[] = [];
  const finished: { record: TaskRecord; ended_at: number }[] = [];
  const laterKeys: LaterKeyFact[] = [];
  const stale: Fact[] = [];
  for await (const facts of store.fold()) {
    for (const fact of facts) {
      if (isLaterKey(fact)) {
        laterKeys.push(fact);
        continue;
      }
      if (!isTaskFact(fact)) {
        const gone = fact.key.startsWith(SESSION_KEY) ? sessions.restore(fact) : undefined;
        if (gone) stale.push(gone);
        continue;
      }
      const stored = fact.data;
      const pool = stored.over ? undefined : poolFor(stored, options);
      const draft = draftOf(stored, pool?.spec.id ?? stored.pool_id, epoch_at);
      const record = tasks.restore(draft, stored);
      if (stored.over) {
        Object.assign(record, endOf(record.context, stored.over));
        finished.push({ record, ended_at: record.context.times.ended ?? clock.now() });
      } else unfinished.push({ record, pool });
      registry.add(record);
    }
    if (!options.isWanted()) break;
  }
  for (const { key, data } of laterKeys) {
    const idempotency_key = keyOf(key);
    const used_at = epoch_at + data.used_wall_ms;
    const isFree = registry.byKey(idempotency_key) === undefined;
    if (isFree && registry.get(data.task_id)) registry.addKey(idempotency_key, data.task_id, used_at);
    else stale.push({ key, data: undefined });
  }
  finished.sort((a, b) => a.ended_at - b.ended_at);
  for (const { record, ended_at } of finished) registry.retire(record, ended_at);
  // The store is synced and the log is not: a loss of power may have taken an end that the store knows of.
  for (const { record } of finished) {
    if (!options.isWanted()) break;
    const isClosed = options.log.isClosed(record.id);
    if (isClosed === true || registry.get(record.id) !== record) continue;
    await tasks.close(record);
  }
  if (options.isWanted()) await options.log.dropUnknown?.((task_id) => registry.get(task_id) !== undefined);
  if (stale.length > 0) await store.commit({ facts: stale });
  for (const [i, { record, pool }] of unfinished.entries()) {
    if (i % AT_ONCE === AT_ONCE - 1) await turn();
    if (!options.isWanted()) break;
    // First of all, so that one that turns out to be over is charged for what it has used.
    sessions.readopt(record.session_id, record.id, mostTokensOut(record.request));
    const tail = options.log.tail(record.id);
    if ((tail instanceof Promise ? await tail : tail) > 0) await resume(record, options);
    else tasks.reopen(record);
    if (isOver(record.state)) continue;
    const refusal =
      options.catalog?.refusalOf(record.request.model_ref) ??
      (pool
        ? undefined
        : failure('POOL_UNAVAILABLE', 'no pool of this server serves the model of this task any more'));
    if (pool && !refusal) pool.enqueue(record);
    else if (refusal) tasks.send(record, { type: 'task.fail', at: clock.now(), failure: refusal });
  }
  return { finished: finished.length, unfinished: unfinished.length };
}

/** The pool that a task goes to now: the one it had, or another one where that is gone or serves another model. */
function poolFor({ pool_id, request }: StoredTask, { pools, catalog }: RecoveryOptions): Pool | undefined {
  const isHome = ({ spec, model }: Pool): boolean =>
    spec.engine === request.engine && serves(catalog, model, request.model_ref);
  const before = pools.get(pool_id);
  return before && isHome(before) ? before : [...pools.values()].find(isHome);
}

/** A task whose log has more than its beginning: it ran, or was over before its end could be stored. */
async function resume(record: TaskRecord, { clock, tasks, log }: RecoveryOptions): Promise<void> {
  const events = await eventsSoFar(log, record.id);
  const output = outputOf(events);
  const { context } = record;
  const past = pastTimes(events, (await log.times?.(record.id)) ?? [], clock);
  const usage = { ...context.usage, tokens_out: output.tokens };
  if (!output.terminal) {
    const times = output.isAny ? { ...context.times, ...goingOn(past, clock.now()) } : context.times;
    record.context = { ...context, times, usage };
    return;
  }
  record.context = {
    ...context,
    times: { ...context.times, ...over(output, past, clock.now()) },
    usage: usageOf(output),
    outcome: outcomeOf(output.terminal),
  };
  record.state = output.terminal.type === 'end' ? 'ended' : 'error';
  tasks.retire(record);
}

/** The time in which nobody ran is not counted as decoding; where nobody knows when it wrote, none of it is. */
function goingOn(past: PastTimes | undefined, now: number): Partial<TaskRecord['context']['times']> {
  const { first, last, away_ms } = past ?? { first: now, last: now, away_ms: 0 };
  // It had its slot by then.
  return { placed: first, first_token: first, away_ms: away_ms + now - last };
}

function over(
  { isAny, terminal }: TaskOutput,
  past: PastTimes | undefined,
  now: number,
): Partial<TaskRecord['context']['times']> {
  const ended = past?.last ?? now;
  if (!isAny) return { ended };
  const decode_ms = terminal?.type === 'end' ? terminal.data.decode_ms : undefined;
  const first = past?.first ?? ended - (decode_ms ?? 0);
  const away_ms = decode_ms === undefined ? (past?.away_ms ?? 0) : ended - first - decode_ms;
  return { placed: first, first_token: first, away_ms: Math.max(0, away_ms), ended };
}

function outcomeOf(terminal: Extract<LogEvent, { type: 'end' | 'error' }>): TaskOutcome {
  if (terminal.type === 'error') return { kind: 'failed', failure: terminal.data };
  const { canceled, cancel_reason, finish_reason = 'eos' } = terminal.data;
  return canceled
    ? { kind: 'canceled', reason: (cancel_reason as CancelReason | undefined) ?? 'client' }
    : { kind: 'finished', reason: finish_reason };
}

function usageOf({ terminal, tokens }: TaskOutput): TaskRecord['context']['usage'] {
  const end = terminal?.type === 'end' ? terminal.data : undefined;
  const { tokens_in } = (end ?? {}) as { tokens_in?: number };
  return { tokens_in: tokens_in ?? 0, tokens_cached: 0, tokens_out: end?.tokens_out ?? tokens };
}
