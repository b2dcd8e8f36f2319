import { createActor } from 'xstate';
import type { Clock } from '../clock.ts';
import type { MetricsEvent, TaskUsage } from '../contract/generated/types.ts';
import { failure, type Failure } from '../errors.ts';
import { isOver, taskMachine, type TaskActor } from '../machines/task.ts';
import type { CancelReason, TaskEvent, TaskFact, TaskRules } from '../machines/task-protocol.ts';
import { onTimeProbability } from '../scheduling/estimate.ts';
import { LogWriter } from '../streams/log-writer.ts';
import { eventsSoFar, outputOf } from '../streams/read-log.ts';
import type { Cursor, NewLogEvent, TaskLog } from '../streams/task-log.ts';
import type { Continuation } from './continuation.ts';
import type { Observers } from './observation.ts';
import { LoneWrites } from './lone-writes.ts';
import { link } from './supervision.ts';
import { endEvent, errorEvent, startedEvent, terminalEvent } from './task-events.ts';
import { taskStepper, type TaskDraft, type TaskRecord } from './task-record.ts';

/** What earlier runs of a task have written. */
export interface Past {
  mode: 'resume' | 'replay';
  text: string;
  /** Vectors or ranked documents, for workloads that have those. */
  results: number;
}

/** What a task asks of its pool. The pool answers with task events. */
export interface TaskHome {
  readonly queue_depth: number;
  readonly phase: string;
  readonly rules: TaskRules;
  continuationOf(record: TaskRecord): Continuation;
  run(record: TaskRecord, lease: number, writer: LogWriter, past: Past | undefined): void;
  /** For how long the engine of this lease has given no sign of life, in milliseconds. */
  quietFor(lease: number): number;
  abort(lease: number): void;
  holds(lease: number): boolean;
  /** The lease was never used. */
  release(lease: number): void;
  requeue(record: TaskRecord): void;
  leave(record: TaskRecord): void;
}

interface Flight {
  actor: TaskActor;
  writer: LogWriter;
  past: Past | undefined;
  /** Of its run, once the engine has told. */
  input: Pick<TaskUsage, 'tokens_in' | 'tokens_cached'> | undefined;
}

/** A task whose run is ended by one of these is told what it has written by then. */
const NEEDS_USAGE: ReadonlySet<TaskEvent['type']> = new Set([
  'task.cancel',
  'task.fail',
  'task.expire',
  'task.suspend',
]);

export interface TasksOptions {
  log: TaskLog;
  clock: Clock;
  observers: Observers;
  home: (pool_id: string) => TaskHome;
  /** What its session adds to a task's `metrics`. */
  sessionMetrics: (record: TaskRecord) => Partial<MetricsEvent>;
  streamed: (record: TaskRecord) => void;
  closed: (record: TaskRecord) => void;
}

/**
 * Owns every task: a record while it waits or is over, a root actor in a map while it is in flight. Events go in
 * here, what the machine asks for is done here, and nothing else writes a task's state or its log's lifecycle.
 */
export class Tasks {
  readonly #options: TasksOptions;
  readonly #flights = new Map<string, Flight>();
  readonly #lone: LoneWrites;

  constructor(options: TasksOptions) {
    this.#options = options;
    this.#lone = new LoneWrites(options.log);
  }

  get inFlight(): number {
    return this.#flights.size;
  }

  /** Tokens written so far, for a task in flight. */
  tokensOf(record: TaskRecord): number {
    return this.#flights.get(record.id)?.writer.tokens ?? record.context.usage.tokens_out;
  }

  /** The engine has told how long the input of this run is. */
  prefilled(record: TaskRecord, lease: number, tokens_in: number, tokens_cached: number): void {
    const flight = this.#flights.get(record.id);
    if (flight && record.context.lease === lease) flight.input = { tokens_in, tokens_cached };
  }

  #usageOf(record: TaskRecord): TaskUsage {
    const flight = this.#flights.get(record.id);
    return { ...record.context.usage, ...flight?.input, tokens_out: this.tokensOf(record) };
  }

  /** Brings a new record to `admitted`, which writes the first event of its log. */
  admit(draft: TaskDraft, estimate: { queue_position: number; predicted_start_ms: number }): TaskRecord {
    const { facts, ...snapshot } = this.#begin(draft, estimate);
    const admitted: TaskRecord = Object.assign(draft, snapshot);
    for (const fact of facts) this.#do(admitted, fact);
    return admitted;
  }

  /** The record of a task that was admitted before this process; nothing is written. */
  restore(draft: TaskDraft, estimate: { queue_position: number; predicted_start_ms: number }): TaskRecord {
    const { state, context } = this.#begin(draft, estimate);
    return Object.assign(draft, { state, context });
  }

  /** What is left to do for a restored task that turned out to be over. */
  retire(record: TaskRecord): void {
    this.#options.closed(record);
  }

  /** Takes a waiting record into flight on a slot. */
  place(record: TaskRecord, lease: number, replica_id: string): void {
    const tail = this.#lone.tail(record.id);
    if (!(tail instanceof Promise) && !hasWritten(record)) return this.#fly(record, lease, replica_id, tail);
    void Promise.all([tail, this.#past(record)]).then(
      ([cursor, past]) => this.#fly(record, lease, replica_id, cursor, past),
      (error: unknown) =>
        this.#giveUp(record, lease, failure('INTERNAL', `its log is gone: ${String(error)}`)),
    );
  }

  #begin(
    draft: TaskDraft,
    { queue_position, predicted_start_ms }: { queue_position: number; predicted_start_ms: number },
  ): ReturnType<typeof taskStepper.begin> {
    return taskStepper.begin({
      id: draft.id,
      at: draft.due_at - draft.request.deadline_ms,
      deadline_ms: draft.request.deadline_ms,
      rules: this.#options.home(draft.pool_id).rules,
      queue_position,
      predicted_start_ms,
    });
  }

  #fly(record: TaskRecord, lease: number, replica_id: string, cursor: Cursor, past?: Past): void {
    const { log, clock, home } = this.#options;
    // While a log elsewhere answered, the task may have been canceled, or its pool has stopped.
    if (isOver(record.state)) return home(record.pool_id).release(lease);
    if (!home(record.pool_id).holds(lease)) return;
    if (hasWritten(record) && !past)
      return this.#giveUp(
        record,
        lease,
        failure('WORKER_RESET', 'the run was lost, and no other can go on with its output'),
      );
    const actor = createActor(taskMachine, {
      id: record.id,
      clock,
      input: undefined as never,
      snapshot: taskMachine.resolveState({ value: record.state, context: record.context }),
    });
    const lost = (why: string): void => {
      if (this.#flights.get(record.id)?.writer === writer)
        this.send(record, { type: 'task.fail', at: clock.now(), failure: failure('WORKER_RESET', why) });
    };
    const writer = new LogWriter(log, record.id, cursor, record.context.usage.tokens_out, {
      fenced: () => {
        lost('the log did not take what the run has written');
        if (isOver(record.state)) this.#lone.seal(record.id, writer.tokens, terminalEvent(record));
      },
      diverged: () => lost('the run was lost, and another one did not repeat its output'),
      ...(past?.mode === 'replay' ? { replay: past.text } : {}),
    });
    this.#flights.set(record.id, { actor, writer, past, input: undefined });
    actor.on('*', (fact) => this.#do(record, fact));
    // A run that was queued again may be granted before its old actor has told everybody that it waits, and stops.
    const isCurrent = (): boolean => this.#flights.get(record.id)?.actor === actor;
    link(actor, {
      moved: ({ value, context }) => {
        if (isCurrent()) this.#moved(record, value, context);
      },
      completed: () => {
        if (isCurrent()) this.#land(record);
      },
      crashed: (error) => {
        this.#options.observers.tell({ type: 'child.crashed', child: `task ${record.id}`, error });
        if (isCurrent()) this.#crashed(record);
      },
    });
    actor.start();
    const continuable = home(record.pool_id).continuationOf(record) !== 'none';
    actor.send({ type: 'task.place', at: clock.now(), lease, replica_id, continuable });
  }

  /** No run can begin on this lease, nor on any other. */
  #giveUp(record: TaskRecord, lease: number, why: Failure): void {
    this.#options.home(record.pool_id).release(lease);
    this.send(record, { type: 'task.fail', at: this.#options.clock.now(), failure: why });
  }

  /** What a run has to go on from; undefined where none can. */
  async #past(record: TaskRecord): Promise<Past | undefined> {
    const mode = this.#options.home(record.pool_id).continuationOf(record);
    if (mode === 'none' || !hasWritten(record)) return undefined;
    const { text, embeddings, ranking } = outputOf(await eventsSoFar(this.#options.log, record.id));
    return { mode, text, results: embeddings.length + ranking.length };
  }

  /** An event for a task, wherever it is; ignored once the task is over, as its machine says. */
  send(record: TaskRecord, event: TaskEvent): void {
    const flight = this.#flights.get(record.id);
    if (flight) {
      if (NEEDS_USAGE.has(event.type) && !('usage' in event))
        event = {
          ...event,
          usage: this.#usageOf(record),
        } as TaskEvent;
      flight.actor.send(event);
      return;
    }
    const { state, context, facts } = taskStepper.step(record, event);
    this.#moved(record, state, context);
    for (const fact of facts) this.#do(record, fact);
  }

  /** Resolves when the log is closed: no token can follow. */
  async cancel(record: TaskRecord, reason: CancelReason): Promise<void> {
    const writer = this.#flights.get(record.id)?.writer;
    this.send(record, { type: 'task.cancel', at: this.#options.clock.now(), reason });
    await writer?.settled();
    await this.#lone.settled(record.id);
  }

  /** Begins the log of a task that was admitted before this process, where nothing of it was kept. */
  reopen(record: TaskRecord): void {
    this.#do(record, { type: 'log.started' });
  }

  /** The log of a task that was over before this process: it gets its end where that was lost. */
  async close(record: TaskRecord): Promise<void> {
    if (await this.#options.log.isClosed(record.id)) return;
    if ((await this.#options.log.tail(record.id)) === 0) this.reopen(record);
    this.#lone.seal(record.id, record.context.usage.tokens_out, terminalEvent(record));
    await this.#lone.settled(record.id);
  }

  #moved(record: TaskRecord, state: TaskRecord['state'], context: TaskRecord['context']): void {
    const from = record.state;
    record.state = state;
    record.context = context;
    if (from === state) return;
    if (state === 'streaming') this.#options.streamed(record);
    this.#options.observers.tell({ type: 'task.moved', record, from, to: state });
  }

  #do(record: TaskRecord, fact: TaskFact): void {
    const home = this.#options.home(record.pool_id);
    const flight = this.#flights.get(record.id);
    // An actor emits before its subscribers hear of the new state; what is written below must tell the new one.
    if (flight) {
      const { value, context } = flight.actor.getSnapshot();
      this.#moved(record, value, context);
    }
    switch (fact.type) {
      case 'log.started':
        return this.#write(record, startedEvent(record));
      case 'log.resumed':
        return this.#write(record, {
          type: 'metrics',
          data: { ...this.#metrics(record, home), resumed: true, kv_migrated: false },
        });
      case 'log.metrics':
        return this.#write(record, { type: 'metrics', data: this.#metrics(record, home) });
      case 'log.end':
        return this.#write(record, endEvent(record));
      case 'log.error':
        return this.#write(record, errorEvent(record, fact.failure));
      case 'engine.start':
        if (flight) home.run(record, fact.lease, flight.writer, flight.past);
        return;
      case 'engine.abort':
        return home.abort(fact.lease);
      case 'run.check': {
        const { lease } = record.context;
        const quiet_ms = lease === undefined ? 0 : home.quietFor(lease);
        const usage = this.#usageOf(record);
        return this.send(record, { type: 'engine.quiet', at: this.#options.clock.now(), quiet_ms, usage });
      }
      case 'run.overdue':
        return this.send(record, {
          type: 'task.expire',
          at: this.#options.clock.now(),
          overdue: fact.overdue,
        });
      case 'task.suspended':
        return this.#land(record);
      case 'task.requeued':
        this.#land(record);
        return home.requeue(record);
      case 'task.closed':
        home.leave(record);
        this.#options.closed(record);
        return this.#options.observers.tell({ type: 'task.closed', record });
    }
  }

  #write(record: TaskRecord, event: NewLogEvent): void {
    const flight = this.#flights.get(record.id);
    if (flight) flight.writer.append(event);
    else this.#lone.write(record.id, event);
  }

  /** How a task is doing now. */
  metricsOf(record: TaskRecord): MetricsEvent {
    return this.#metrics(record, this.#options.home(record.pool_id));
  }

  #metrics(record: TaskRecord, home: TaskHome): MetricsEvent {
    const { times } = record.context;
    const elapsed = this.#options.clock.now() - times.admitted;
    return {
      queue_depth: home.queue_depth,
      on_time_probability: onTimeProbability(
        elapsed + this.#remaining(record, elapsed),
        record.request.deadline_ms,
      ),
      ...this.#options.sessionMetrics(record),
    };
  }

  /** Milliseconds still to go at the speed so far; an upper bound, since a task may stop before max_tokens. */
  #remaining(record: TaskRecord, elapsed: number): number {
    const { times } = record.context;
    const done = this.tokensOf(record);
    if (times.first_token === undefined || done === 0)
      return Math.max(0, record.context.predicted_start_ms - elapsed);
    const decoding = this.#options.clock.now() - times.first_token;
    return (decoding / done) * Math.max(0, record.request.max_tokens - done);
  }

  #land(record: TaskRecord): void {
    const flight = this.#flights.get(record.id);
    if (!flight) return;
    this.#leave(record, flight);
    const { status, value, context } = flight.actor.getSnapshot();
    this.#moved(record, value, context);
    if (status === 'active') flight.actor.stop();
  }

  /** What is written for it now comes after what its run has written. */
  #leave(record: TaskRecord, { writer }: Flight): void {
    this.#flights.delete(record.id);
    if (writer.isBusy) this.#lone.hold(record.id, writer.settled());
  }

  /** A bug in the machine or in what it was told, not a failing task: the task still ends, with a cause. */
  #crashed(record: TaskRecord): void {
    const flight = this.#flights.get(record.id);
    if (flight) this.#leave(record, flight);
    const lease = record.context.lease;
    if (lease !== undefined) this.#options.home(record.pool_id).abort(lease);
    this.send(record, {
      type: 'task.fail',
      at: this.#options.clock.now(),
      failure: failure('INTERNAL', 'the task’s actor crashed'),
    });
  }
}

/** Whether readers may have seen output of an earlier run. */
function hasWritten(record: TaskRecord): boolean {
  return record.context.times.first_token !== undefined;
}
