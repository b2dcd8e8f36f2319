import { createActor, type ActorRefFrom } from 'xstate';
import type { AdmissionResponse, TaskPreview, TaskRequest } from '../contract/generated/types.ts';
import { digestOf, withoutTexts } from '../contract/request-digest.ts';
import { failure, TaskchartError, type Failure } from '../errors.ts';
import { canonicalId } from '../ids.ts';
import { orchestratorMachine } from '../machines/orchestrator.ts';
import type { CancelReason } from '../machines/task-protocol.ts';
import { isOver } from '../machines/task.ts';
import type { Fact } from '../store/store.ts';
import { eventsSoFar, hasAll } from '../streams/read-log.ts';
import type { LogBatch, LogEvent } from '../streams/task-log.ts';
import { Admission, type Caller } from './admission.ts';
import { Endings } from './endings.ts';
import { Memory } from './memory.ts';
import type { ModelGate } from './model-gate.ts';
import { Observers } from './observation.ts';
import type { OrchestratorPorts, OrchestratorSettings, PoolBlueprint } from './orchestrator-options.ts';
import { Pool } from './pool.ts';
import { Readers } from './readers.ts';
import { recover } from './recovery.ts';
import { Retirement } from './retirement.ts';
import { SESSION_KEY, Sessions } from './sessions.ts';
import { link } from './supervision.ts';
import { laterKey, taskKey } from './task-facts.ts';
import type { TaskRecord } from './task-record.ts';
import { TaskRegistry } from './task-registry.ts';
import { Tasks } from './tasks.ts';
import { Transcripts } from './transcripts.ts';
import { workerHost } from './worker-host.ts';
import { Workers } from './workers.ts';

/** The root: knows every task, owns the pools, and is closed once. */
export class Orchestrator {
  readonly observers = new Observers();
  readonly pools = new Map<string, Pool>();
  readonly tasks: Tasks;
  readonly registry: TaskRegistry;
  readonly sessions: Sessions;
  readonly transcripts: Transcripts;
  /** Who is in memory, and why others are not. */
  readonly memory: Memory;
  readonly catalog: ModelGate | undefined;
  readonly retirement: Retirement;
  /** Engines that announce themselves. */
  readonly workers: Workers;
  readonly closed: Promise<void>;
  /** Resolves once what earlier processes have accepted is known again; tasks may be posted before. */
  readonly recovered: Promise<void>;
  readonly #settings: OrchestratorSettings;
  readonly #ports: OrchestratorPorts;
  readonly #actor: ActorRefFrom<typeof orchestratorMachine>;
  readonly #admission: Admission;
  readonly #readers: Readers;
  readonly #endings: Endings;
  /** The last answer of the store about something that it should forget: it answers in order. */
  #forgotten: Promise<void> | undefined;

  constructor(
    settings: OrchestratorSettings,
    ports: OrchestratorPorts,
    blueprints: readonly PoolBlueprint[],
  ) {
    this.#settings = settings;
    this.#ports = ports;
    this.catalog = ports.catalog;
    const { clock, log, store } = ports;
    this.registry = new TaskRegistry({
      clock,
      retained_tasks: settings.retained_tasks,
      retained_ms: settings.retained_ms,
      idempotency_ttl_ms: settings.idempotency_ttl_ms,
      forgotten: (record) => {
        void log.drop(record.id);
        this.transcripts.forget(record.id);
        this.#forgotten = this.#store([{ key: taskKey(record.id), data: undefined }]);
      },
      expired: (key) => void this.#store([{ key: laterKey(key), data: undefined }]),
    });
    this.sessions = new Sessions({
      clock,
      ...settings.sessions,
      reuses: (pool_id) => this.pools.get(pool_id)?.properties?.features.kv_reuse ?? false,
      evicted: (session_id) => {
        if (this.sessions.isLimited)
          this.#forgotten = this.#store([{ key: SESSION_KEY + session_id, data: undefined }]);
      },
    });
    this.memory = new Memory({ clock, pools: this.pools, observers: this.observers, ...settings.memory });
    const { transcripts: isEnabled = true } = settings;
    const kept = (): Promise<unknown> => this.#endings.settled();
    const { registry, sessions, pools, observers } = this;
    this.workers = new Workers({
      observers,
      knows: (pool_id) => pools.has(pool_id),
      host: workerHost(this.pools),
    });
    this.transcripts = new Transcripts({ log, kept, registry, pools, isEnabled });
    this.#endings = new Endings({ log, store, registry, sessions, transcripts: this.transcripts });
    this.#readers = new Readers({
      clock,
      grace_ms: settings.disconnect_grace_ms ?? 0,
      deserted: (task_id) => void this.cancel(task_id, 'disconnect'),
    });
    this.tasks = new Tasks({
      log,
      clock,
      observers: this.observers,
      // A task that was kept from an earlier configuration may name a pool that is gone.
      home: (pool_id) => this.pools.get(pool_id) ?? (this.pools.values().next().value as Pool),
      sessionMetrics: ({ session_id }) => this.sessions.metricsOf(session_id),
      streamed: (record) => this.#warm(record),
      closed: (record) => this.#close(record),
    });
    this.#admission = new Admission({
      clock,
      store,
      pools: this.pools,
      tasks: this.tasks,
      registry: this.registry,
      sessions: this.sessions,
      observers: this.observers,
      catalog: this.catalog,
      allow_pin: settings.allow_pin,
      refusal: () => this.#refusal,
    });
    this.#actor = createActor(orchestratorMachine, {
      id: 'orchestrator',
      clock,
      input: { pools: blueprints.length },
    });
    this.#actor.on('pools.drain', ({ deadline_ms }) => {
      // What is on disk waits for the next process; what is only in memory has to be told.
      const isKept =
        (store.isDurable && log.isDurable) || this.#actor.getSnapshot().context.failure !== undefined;
      const unfinished = isKept ? 'keep' : 'refuse';
      for (const pool of this.pools.values()) pool.engines.close(deadline_ms, unfinished);
    });
    this.closed = new Promise((resolve, reject) => {
      this.#actor.on('resources.release', () => void this.#release().then(resolve, reject));
      link(this.#actor, { completed() {}, crashed: reject });
    });
    this.#actor.start();
    this.retirement = new Retirement({
      clock,
      catalog: this.catalog,
      pools: this.pools,
      tasks: this.tasks,
    });
    for (const blueprint of blueprints) this.pools.set(blueprint.spec.id, this.#createPool(blueprint));
    // What was retired before this process began is not loaded by it.
    this.retirement.retire(0);
    this.recovered = this.#recover();
    // Whoever waits for it hears of a failure; nobody has to.
    this.recovered.catch(() => undefined);
  }

  get isAccepting(): boolean {
    return this.#actor.getSnapshot().hasTag('accepting');
  }

  /** Why it takes no task, if it takes none. */
  get #refusal(): Failure | undefined {
    if (this.isAccepting) return undefined;
    const { failure: cause } = this.#actor.getSnapshot().context;
    return cause ?? failure('POOL_UNREADY', 'this server is shutting down');
  }

  /** Whether tasks and streams can still be read: not once the store and the log are closed. */
  get isReadable(): boolean {
    return this.#actor.getSnapshot().hasTag('readable');
  }

  get isRecovering(): boolean {
    return this.#actor.getSnapshot().hasTag('recovering');
  }

  get state(): string {
    return this.#actor.getSnapshot().value;
  }

  /** A known task, however its id is spelled. */
  record(task_id: string): TaskRecord | undefined {
    return this.registry.get(canonicalId(task_id));
  }

  /**
   * Admits a valid request: each check in the contract's order, then a place in a pool's queue.
   * Posting the same body under the same id or key again answers with the task's current place.
   * @throws TaskchartError with the code of the first check that refuses
   */
  async submit(request: TaskRequest, caller: Caller): Promise<AdmissionResponse> {
    if (this.isRecovering) await this.#known();
    return this.#admission.submit(request, caller);
  }

  /** What an admission would say now; nothing is queued. */
  async preview(request: TaskRequest): Promise<TaskPreview> {
    if (this.isRecovering) await this.#known();
    return this.#admission.preview(request);
  }

  /** Current place of a task that waits, and what was told at admission of one that does not. */
  place(record: TaskRecord): { queue_position: number; predicted_start_ms: number } {
    return this.#admission.place(record);
  }

  /**
   * Resolves when no token can follow any more, and a durable store knows it. Unknown and finished tasks are left as they are.
   * @throws TaskchartError INTERNAL where nobody can know whether there is such a task
   */
  async cancel(task_id: string, reason: CancelReason = 'client'): Promise<void> {
    if (this.isRecovering) await this.#known();
    const record = this.record(task_id);
    if (!record) return;
    await this.tasks.cancel(record, reason);
    // Whoever has been told relies on it: the next process must not run the task again.
    await this.#endings.stored(record.id);
  }

  /**
   * Forgets a finished task before its retention ends; one that is not known is left alone.
   * @returns once a durable store has forgotten it, too
   * @throws TaskchartError INVALID_PARAMS (409) while it is not finished
   */
  async remove(task_id: string): Promise<void> {
    if (this.isRecovering) await this.#known();
    const record = this.record(task_id);
    if (!record || this.registry.forget(record)) return this.#forgotten;
    throw new TaskchartError(
      failure('INVALID_PARAMS', `task_id: ${task_id} is ${record.state}; cancel it first`),
      409,
    );
  }

  /**
   * Whether a reader that has the event `after` of a task has all there will be.
   * @throws TaskchartError INVALID_PARAMS where the task has no such event
   */
  hasAll({ id }: TaskRecord, after: number): Promise<boolean> {
    return hasAll(this.#ports.log, id, after);
  }

  /** The task's events after `after`, from its log; empty for an unknown task. */
  read(task_id: string, after: number | undefined, signal: AbortSignal): AsyncIterable<LogBatch> {
    return this.#ports.log.read(task_id, after, signal);
  }

  /**
   * Somebody follows the task from a distance: where nobody does any more, an interactive one is given up.
   * @returns to be called once when the reader leaves
   */
  attachReader(record: TaskRecord): () => void {
    const isWatched = record.priority === 'interactive' && this.#settings.disconnect_grace_ms !== undefined;
    return isWatched && !isOver(record.state) ? this.#readers.attach(record.id) : () => {};
  }

  /** When an event of the task was written, in epoch milliseconds; of its first one, when it was admitted. */
  async timesOf({ id, admitted_wall_ms }: TaskRecord): Promise<(event_id: number) => number> {
    const times = (await this.#ports.log.times?.(id)) ?? [];
    return (event_id) =>
      Math.floor(times.findLast(({ from }) => from <= event_id)?.at_ms ?? admitted_wall_ms);
  }

  /** What the task's log holds now, without waiting for more. */
  eventsSoFar(task_id: string): Promise<readonly LogEvent[]> {
    return eventsSoFar(this.#ports.log, task_id);
  }

  /** Keeps a session alive. @returns false for one that is not known */
  touchSession(session_id: string): boolean {
    const isKnown = this.sessions.touch(session_id);
    if (isKnown && this.sessions.isLimited) void this.#store([this.sessions.factOf(session_id)]);
    return isKnown;
  }

  /** Ends a session; its running tasks go on. @returns once a durable store has forgotten it, too */
  async deleteSession(session_id: string): Promise<void> {
    if (this.isRecovering) await this.#known();
    this.sessions.delete(session_id);
    await this.#forgotten;
  }

  /** Safe to repeat. @returns when every engine, timer and file is given back */
  async close(shutdown_ms: number = this.#settings.shutdown_ms): Promise<void> {
    if (this.#actor.getSnapshot().status === 'active')
      this.#actor.send({ type: 'orchestrator.close', shutdown_ms });
    await this.closed;
  }

  async #recover(): Promise<void> {
    const { clock, store, log } = this.#ports;
    const recovered = recover({
      clock,
      store: this.transcripts.noting(store),
      log,
      tasks: this.tasks,
      registry: this.registry,
      sessions: this.sessions,
      pools: this.pools,
      catalog: this.catalog,
      isWanted: () => this.isRecovering,
    });
    const counts = await recovered.catch((error: unknown) => {
      // The reason may name files, which are the business of whoever waits for `recovered` alone.
      const cause = failure(
        'INTERNAL',
        'this server cannot read what it has accepted before, and is stopping',
      );
      if (this.isRecovering) this.#actor.send({ type: 'store.failed', failure: cause });
      throw error;
    });
    if (!this.isRecovering) return;
    if (counts.finished + counts.unfinished > 0) this.observers.tell({ type: 'store.recovered', ...counts });
    this.#actor.send({ type: 'store.recovered' });
  }

  /** What earlier processes have accepted is known. @throws TaskchartError where it cannot be */
  async #known(): Promise<void> {
    await this.recovered.catch(() => {
      const { failure: cause } = this.#actor.getSnapshot().context;
      throw new TaskchartError(cause ?? failure('POOL_UNREADY', 'this server is shutting down'));
    });
  }

  #createPool(blueprint: PoolBlueprint): Pool {
    const { observers, tasks } = this;
    const { clock, random, threads } = this.#ports;
    const pool: Pool = new Pool({
      ...blueprint,
      clock,
      random,
      threads,
      observers,
      tasks,
      affinity: (session_id) => this.sessions.affinity(session_id)?.replica_id,
      memory: {
        look: () => this.memory.look(),
        granted: (record) => this.memory.granted(pool, record),
        lastCall: () => this.memory.lastCallOf(blueprint.spec.id),
        room: () => this.memory.roomOf(pool),
        wait: () => this.memory.waitOf(blueprint.spec.id),
        untilLoaded: () => this.memory.untilLoaded(pool),
      },
      lost: (replica_id, cause) => {
        const cooled = this.sessions.cool(replica_id, cause);
        if (this.sessions.isLimited)
          void this.#store(cooled.map((session_id) => this.sessions.factOf(session_id)));
      },
      stopped: () => this.#actor.send({ type: 'pool.stopped' }),
    });
    return pool;
  }

  /** The first token: from now on the replica has the session's cache. */
  #warm({ session_id, pool_id, context, tokens_in, expected_tokens }: TaskRecord): void {
    const per_token = this.pools.get(pool_id)?.properties?.kv_bytes_per_token ?? 0;
    const kv_bytes = per_token * ((tokens_in ?? 0) + expected_tokens);
    this.sessions.warm(session_id, pool_id, context.replica_id ?? '', Math.round(kv_bytes));
  }

  /** A task is over: its texts are dropped, its retention begins, and its session is charged. */
  #close(record: TaskRecord): void {
    this.#readers.close(record.id);
    record.digest = digestOf(record.request);
    record.request = withoutTexts(record.request);
    this.transcripts.note(record);
    this.registry.retire(record);
    this.#endings.over(record);
  }

  /** Facts that few wait for; the log says the same where they are lost. */
  async #store(facts: readonly Fact[]): Promise<void> {
    if (facts.length === 0) return;
    // A store that fails tells the host, and refuses the next admission.
    await Promise.resolve(this.#ports.store.commit({ facts })).catch(() => undefined);
  }

  async #release(): Promise<void> {
    const { store, log, threads } = this.#ports;
    await this.recovered.catch(() => undefined);
    await this.#admission.settled();
    this.#readers.stop();
    this.memory.close();
    this.registry.close();
    await Promise.all([log.close(), threads.close()]);
    await this.#endings.settled();
    this.sessions.close();
    // A store is closed once it has written what it was given.
    await store.close();
  }
}
