import { isDeepStrictEqual } from 'node:util';
import { createActor, type ActorRefFrom } from 'xstate';
import type { Clock } from '../clock.ts';
import type { AdmissionResponse, TaskRequest } from '../contract/generated/types.ts';
import { failure, TaskchartError, type Failure } from '../errors.ts';
import { newId } from '../ids.ts';
import { isOver, type CancelReason } from '../machines/task.ts';
import { orchestratorMachine } from '../machines/orchestrator.ts';
import { place, type PlacementPool } from '../scheduling/placement.ts';
import type { Store } from '../store/store.ts';
import type { LogBatch, LogEvent, TaskLog } from '../streams/task-log.ts';
import type { ThreadPool } from '../threads/thread-pool.ts';
import { checkTokens } from './admission.ts';
import { Observers } from './observation.ts';
import { Pool, type PoolOptions } from './pool.ts';
import { link } from './supervision.ts';
import { seedOf, type TaskRecord } from './task-record.ts';
import { Tasks } from './tasks.ts';

export interface OrchestratorSettings {
  /** Finished tasks that stay readable, in number. */
  retained_tasks: number;
  metrics_period_ms: number;
  /** How long `close` lets running tasks finish, in milliseconds. */
  shutdown_ms: number;
}

export interface OrchestratorPorts {
  clock: Clock;
  random: () => number;
  log: TaskLog;
  store: Store;
  threads: ThreadPool;
}

export type PoolBlueprint = Pick<PoolOptions, 'spec' | 'models' | 'engine' | 'replica'>;

/** A run that died before its first token may be tried this often in all. */
const MAX_ATTEMPTS = 3;

const NEVER = new AbortController().signal;

/** The root: admits tasks, owns the pools, and is closed once. */
export class Orchestrator {
  readonly observers = new Observers();
  readonly pools = new Map<string, Pool>();
  readonly tasks: Tasks;
  readonly closed: Promise<void>;
  readonly #settings: OrchestratorSettings;
  readonly #ports: OrchestratorPorts;
  readonly #actor: ActorRefFrom<typeof orchestratorMachine>;
  readonly #records = new Map<string, TaskRecord>();
  readonly #admitting = new Map<string, Promise<void>>();
  /** Ids in the order they were closed: the oldest leave first. */
  readonly #over = new Set<string>();

  constructor(
    settings: OrchestratorSettings,
    ports: OrchestratorPorts,
    blueprints: readonly PoolBlueprint[],
  ) {
    this.#settings = settings;
    this.#ports = ports;
    this.tasks = new Tasks({
      log: ports.log,
      clock: ports.clock,
      observers: this.observers,
      home: (pool_id) => this.pools.get(pool_id) as Pool,
      max_attempts: MAX_ATTEMPTS,
      metrics_period_ms: settings.metrics_period_ms,
      closed: (record) => this.#retire(record),
    });
    this.#actor = createActor(orchestratorMachine, {
      id: 'orchestrator',
      clock: ports.clock,
      input: { pools: blueprints.length },
    });
    this.#actor.on('pools.drain', ({ deadline_ms }) => {
      for (const pool of this.pools.values()) pool.drain(deadline_ms);
    });
    this.closed = new Promise((resolve, reject) => {
      this.#actor.on('resources.release', () => {
        Promise.all([ports.store.close(), ports.threads.close()]).then(() => resolve(), reject);
      });
      link(this.#actor, { completed() {}, crashed: reject });
    });
    this.#actor.start();
    for (const blueprint of blueprints) {
      this.pools.set(
        blueprint.spec.id,
        new Pool({
          ...blueprint,
          clock: ports.clock,
          random: ports.random,
          threads: ports.threads,
          observers: this.observers,
          tasks: this.tasks,
          stopped: () => this.#actor.send({ type: 'pool.stopped' }),
        }),
      );
    }
  }

  get isAccepting(): boolean {
    return this.#actor.getSnapshot().hasTag('accepting');
  }

  get state(): string {
    return this.#actor.getSnapshot().value;
  }

  record(task_id: string): TaskRecord | undefined {
    return this.#records.get(task_id);
  }

  /**
   * Admits a valid request: each check in the contract's order, then a place in a pool's queue.
   * Posting the same body under the same id again answers with the task's current place.
   * @throws TaskchartError with the code of the first check that refuses
   */
  async submit(request: TaskRequest, correlation_id: string): Promise<AdmissionResponse> {
    try {
      return await this.#admitInTurn(request, correlation_id);
    } catch (error) {
      if (error instanceof TaskchartError)
        this.observers.tell({
          type: 'task.refused',
          failure: error.failure,
          engine: request.engine,
          correlation_id,
        });
      throw error;
    }
  }

  /** Resolves when no token can follow any more. Unknown and finished tasks are left as they are. */
  async cancel(task_id: string, reason: CancelReason = 'client'): Promise<void> {
    const record = this.#records.get(task_id);
    if (!record) return;
    await this.tasks.cancel(record, reason);
  }

  /** The task's events after `after`, from its log; empty for an unknown task. */
  read(task_id: string, after: number | undefined, signal: AbortSignal): AsyncIterable<LogBatch> {
    return this.#ports.log.read(task_id, after, signal);
  }

  /** What the task's log holds now, without waiting for more. */
  async eventsSoFar(task_id: string): Promise<readonly LogEvent[]> {
    const tail = await this.#ports.log.tail(task_id);
    if (tail === 0) return [];
    const events: LogEvent[] = [];
    for await (const batch of this.#ports.log.read(task_id, undefined, NEVER)) {
      events.push(...batch.events);
      if (events.length >= tail) break;
    }
    return events;
  }

  /** Safe to repeat. @returns when every engine, timer and file is given back */
  async close(shutdown_ms: number = this.#settings.shutdown_ms): Promise<void> {
    if (this.#actor.getSnapshot().status === 'active')
      this.#actor.send({ type: 'orchestrator.close', shutdown_ms });
    await this.closed;
  }

  /** Current place of a task that waits, and what was told at admission of one that does not. */
  place(record: TaskRecord): { queue_position: number; predicted_start_ms: number } {
    const pool = this.pools.get(record.pool_id);
    const position = pool?.queue.positionOf(record);
    if (!pool || position === undefined)
      return {
        queue_position: 0,
        predicted_start_ms: isOver(record.state) ? 0 : record.context.predicted_start_ms,
      };
    return { queue_position: position, predicted_start_ms: pool.predictedStart(position) };
  }

  /** One admission at a time under an id: whoever posts it meanwhile finds the record of the first. */
  async #admitInTurn(request: TaskRequest, correlation_id: string): Promise<AdmissionResponse> {
    const id = request.task_id;
    if (id === undefined) return this.#admit(request, correlation_id);
    while (this.#admitting.has(id)) await this.#admitting.get(id);
    const admission = this.#admit(request, correlation_id);
    const over = admission.then(
      () => void this.#admitting.delete(id),
      () => void this.#admitting.delete(id),
    );
    this.#admitting.set(id, over);
    return admission;
  }

  async #admit(request: TaskRequest, correlation_id: string): Promise<AdmissionResponse> {
    const known = request.task_id === undefined ? undefined : this.#records.get(request.task_id);
    if (known) return this.#readmit(known, request);
    if (!this.isAccepting)
      throw refusal(failure('POOL_UNREADY', 'this server is shutting down', { engine: request.engine }));
    if (request.deadline_ms <= 0)
      throw refusal(
        failure(
          'DEADLINE_UNMET',
          `deadline_ms: must be above 0 (milliseconds from admission), got ${request.deadline_ms}`,
          { engine: request.engine },
        ),
      );

    const pool = this.#choosePool(request);
    const tokens_in = await checkTokens(request, pool, this.#ports.clock);
    // Counting may have taken a while.
    if (pool.refusal) throw refusal({ ...pool.refusal, engine: request.engine });

    const { queue } = pool;
    const queue_position = queue.positionOfNewcomer(request.priority);
    const predicted_start_ms = pool.predictedStart(queue_position);
    const context = { engine: pool.spec.engine, pool_id: pool.spec.id };
    if (predicted_start_ms > request.deadline_ms)
      throw refusal(
        failure(
          'DEADLINE_UNMET',
          `deadline_ms: the task would start in ${predicted_start_ms} ms, after its deadline of ${request.deadline_ms} ms`,
          context,
        ),
      );
    if (queue.isFull)
      throw refusal(
        failure('ADMISSION_REJECT', `the queue of pool ${pool.spec.id} is full (${queue.capacity} tasks)`, {
          ...context,
          policy_label: 'reject',
          retry_after_ms: Math.min(30_000, Math.max(250, pool.predictedStart(0))),
        }),
      );

    const id = request.task_id ?? newId();
    const draft = {
      id,
      session_id: request.session_id ?? newId(),
      request,
      priority: request.priority,
      pool_id: pool.spec.id,
      correlation_id,
      seed: request.seed ?? seedOf(id),
      admitted_wall_ms: this.#ports.clock.wall(),
      tokens_in,
    };
    await this.#commit(pool, draft);
    const record = this.tasks.admit(draft, { queue_position, predicted_start_ms });
    this.#records.set(id, record);
    this.observers.tell({ type: 'task.admitted', record });
    pool.enqueue(record);
    return admissionOf(record, queue_position, predicted_start_ms);
  }

  #readmit(record: TaskRecord, request: TaskRequest): AdmissionResponse {
    if (!isDeepStrictEqual(record.request, request))
      throw new TaskchartError(
        failure('INVALID_PARAMS', `task_id: ${record.id} was accepted with another body; use a new id`),
        409,
      );
    const { queue_position, predicted_start_ms } = this.place(record);
    return admissionOf(record, queue_position, predicted_start_ms);
  }

  #choosePool(request: TaskRequest): Pool {
    const candidates: PlacementPool[] = [];
    for (const pool of this.pools.values()) candidates.push(pool.candidate(request.priority));
    const decision = place(candidates, request);
    this.observers.tell({ type: 'placement.decided', decision });
    if (decision.kind === 'refused') throw refusal(decision.failure);
    return this.pools.get(decision.pool_id) as Pool;
  }

  async #commit(pool: Pool, draft: Omit<TaskRecord, 'state' | 'context'>): Promise<void> {
    const key = `task/${draft.id}`;
    pool.queue.reserve(draft.priority);
    try {
      const result = this.#ports.store.commit({
        checks: [{ key, version: 0 }],
        facts: [{ key, data: draft }],
      });
      const answer = result instanceof Promise ? await result : result;
      if (answer === 'conflict')
        throw refusal(failure('INVALID_PARAMS', `task_id: ${draft.id} is in use`), 409);
      if (answer === 'unknown')
        throw refusal(
          failure('INTERNAL', 'the store did not answer; post the same task_id again', { retriable: true }),
        );
    } finally {
      pool.queue.release(draft.priority);
    }
  }

  #retire(record: TaskRecord): void {
    this.#over.add(record.id);
    for (const id of this.#over) {
      if (this.#over.size <= this.#settings.retained_tasks) break;
      this.#over.delete(id);
      this.#records.delete(id);
      void this.#ports.log.drop(id);
      void this.#ports.store.commit({ facts: [{ key: `task/${id}`, data: undefined }] });
    }
  }
}

function refusal(why: Failure, status?: number): TaskchartError {
  return new TaskchartError(why, status);
}

function admissionOf(
  record: TaskRecord,
  queue_position: number,
  predicted_start_ms: number,
): AdmissionResponse {
  return {
    task_id: record.id,
    session_id: record.session_id,
    queue_position,
    predicted_start_ms,
    backoff_ms: 0,
    streams: { sse: `/v1/tasks/${record.id}/stream` },
  };
}
