import type { EngineInput, EngineProperties } from '../engines/engine.ts';
import { failure, type Failure } from '../errors.ts';
import type { PoolSnapshot } from '../machines/pool.ts';
import { unreadyFailure } from '../machines/pool-protocol.ts';
import { outerState } from '../machines/state-name.ts';
import { isOver } from '../machines/task.ts';
import type { TaskRules } from '../machines/task-protocol.ts';
import { dispatch } from '../scheduling/dispatch.ts';
import { newRates, retryAfter, type Rates } from '../scheduling/estimate.ts';
import { PRIORITIES, TaskQueue, type Priority } from '../scheduling/queue.ts';
import { RateLimit } from '../scheduling/rate-limit.ts';
import type { LogWriter } from '../streams/log-writer.ts';
import { continuationOf, type Continuation } from './continuation.ts';
import { Deadlines } from './deadlines.ts';
import { Forecast, type ForecastView } from './forecast.ts';
import { Leases } from './leases.ts';
import { PoolEngines } from './pool-engines.ts';
import type { PoolOptions, PoolSpec } from './pool-options.ts';
import type { Replica } from './replica.ts';
import type { TaskRecord } from './task-record.ts';
import type { Past, TaskHome } from './tasks.ts';
import { TokenCounter } from './token-counter.ts';

/** A queue, the slots that its tasks get, and the engines behind them. */
export class Pool implements TaskHome, ForecastView {
  readonly spec: PoolSpec;
  readonly queue: TaskQueue<TaskRecord>;
  readonly rates: Rates = newRates();
  readonly forecast: Forecast;
  /** Who brings its engines up, changes them, and gives them back. */
  readonly engines: PoolEngines;
  readonly rateLimits: Partial<Record<Priority, RateLimit>> = {};
  readonly #options: PoolOptions;
  readonly #leases: Leases;
  readonly #provisioning = new Set<TaskRecord>();
  readonly #deadlines: Deadlines<TaskRecord>;
  readonly #counter: TokenCounter;

  constructor(options: PoolOptions) {
    const { spec, clock } = options;
    this.#options = options;
    this.spec = spec;
    this.queue = new TaskQueue(spec.queue);
    for (const priority of PRIORITIES) {
      const per_second = spec.rate_limit_rps[priority];
      if (per_second !== undefined) this.rateLimits[priority] = new RateLimit(per_second);
    }
    this.#leases = new Leases({
      pool_id: spec.id,
      clock,
      tasks: options.tasks,
      rates: this.rates,
      granted: () => this.engines.send({ type: 'lease.granted' }),
      closed: () => this.engines.send({ type: 'lease.closed' }),
    });
    this.forecast = new Forecast(clock, this.rates, this.queue, this);
    this.#deadlines = new Deadlines(clock, (record, at) =>
      options.tasks.send(record, { type: 'task.expire', at, overdue: 'deadline' }),
    );
    this.engines = new PoolEngines({
      ...options,
      rates: this.rates,
      work: {
        dispatch: () => this.#dispatch(),
        refuse: (why) => this.#refuse(why),
        revoke: () => this.#leases.revoke(),
        suspend: () => this.#leases.suspend(),
        over: () => this.#deadlines.close(),
      },
    });
    this.#counter = new TokenCounter(this.engines.model, options.threads);
    this.engines.start();
  }

  get snapshot(): PoolSnapshot {
    return this.engines.snapshot;
  }

  /** What it is doing, without the details of how. */
  get phase(): string {
    return outerState(this.snapshot);
  }

  /** What tasks call its model. */
  get model(): string {
    return this.engines.model.name;
  }

  get replicas(): readonly Replica[] {
    return this.engines.replicas.all;
  }

  get properties(): EngineProperties | undefined {
    return this.engines.replicas.properties;
  }

  /** What its fullest device has to spare, in bytes; undefined where that has no limit. */
  get memoryRoom(): { free_bytes: number; total_bytes: number } | undefined {
    return this.#options.memory.room();
  }

  /** Why it is not loaded, where it waits for memory that it shares. */
  get memoryWait(): { reason: string; human: string } | undefined {
    return this.#options.memory.wait();
  }

  /** Milliseconds until it is expected to be loaded, where it shares memory with others. */
  get untilLoaded(): number | undefined {
    return this.#options.memory.untilLoaded();
  }

  untilReady(load_ms: number): number {
    return this.engines.untilReady(load_ms);
  }

  /** Tokens a slot holds; from the engine, or the configuration until one has told. */
  get ctxMax(): number | undefined {
    return this.properties?.ctx_max ?? this.spec.ctx ?? this.engines.model.prepared?.context_length;
  }

  get queue_depth(): number {
    return this.queue.length;
  }

  get slots_total(): number {
    return this.engines.replicas.slots_total;
  }

  get slots_free(): number {
    if (!this.isReady) return 0;
    return this.engines.replicas.ready.reduce((sum, replica) => sum + this.#freeOn(replica), 0);
  }

  get isReady(): boolean {
    return this.snapshot.hasTag('ready');
  }

  /** Ready, with nothing to do. */
  get isIdle(): boolean {
    return this.isReady && this.#leases.size === 0 && this.queue.isEmpty;
  }

  remaining(now: number): number[] {
    return this.#leases.remaining(now);
  }

  get leases(): number {
    return this.#leases.size;
  }

  /** Why it takes no new work, if it takes none. */
  get refusal(): Failure | undefined {
    const { snapshot } = this;
    return snapshot.hasTag('accepting') ? undefined : unreadyFailure(snapshot.context);
  }

  get rules(): TaskRules {
    return this.spec.rules;
  }

  /** @returns tokens of the input, or undefined where nobody can tell now */
  count(input: EngineInput, signal: AbortSignal): Promise<number | undefined> {
    return this.#counter.count(input, this.engines.replicas.ready[0], signal);
  }

  enqueue(record: TaskRecord): void {
    const ahead = this.queue.lengthOf(record.priority);
    this.queue.enqueue(record);
    this.#expect(record);
    // Behind those who would fill every slot, a newcomer changes nothing.
    if (ahead < this.slots_total || this.refusal) this.#seat();
  }

  requeue(record: TaskRecord): void {
    this.queue.returnToFront(record);
    this.#expect(record);
    this.#seat();
  }

  /** The task is over, or gone elsewhere. */
  leave(record: TaskRecord): void {
    const waited = this.queue.remove(record);
    this.#provisioning.delete(record);
    this.#deadlines.remove(record);
    if (waited) this.#dispatch();
  }

  /** A waiting task whose place another one is about to take: {@link drop} or {@link takeBack} follows. */
  setAside(record: TaskRecord): void {
    this.queue.remove(record);
  }

  /** The other one has not come: the task waits where it did. */
  takeBack(record: TaskRecord): void {
    if (!isOver(record.state)) this.requeue(record);
  }

  /** Gives up a waiting task whose place another one takes. */
  drop(record: TaskRecord): void {
    if (isOver(record.state)) return;
    const { policy } = this.spec.queue;
    this.#options.observers.tell({ type: 'task.dropped', record, policy });
    this.#options.tasks.send(record, {
      type: 'task.fail',
      at: this.#options.clock.now(),
      failure: failure(
        policy === 'drop-lru' ? 'QUEUE_FULL_DROP_LRU' : 'ADMISSION_REJECT',
        `the queue of pool ${this.spec.id} was full, and a newer task took this one’s place`,
        { policy_label: policy, retry_after_ms: retryAfter(this.forecast.load()) },
      ),
    });
  }

  continuationOf(record: TaskRecord): Continuation {
    return this.properties ? continuationOf(record.request, this.properties.features) : 'none';
  }

  run(record: TaskRecord, lease: number, writer: LogWriter, past: Past | undefined): void {
    this.#leases.run(record, lease, writer, past);
  }

  quietFor(lease: number): number {
    return this.#leases.quietFor(lease);
  }

  abort(lease: number): void {
    this.#leases.abort(lease);
  }

  holds(lease: number): boolean {
    return this.#leases.holds(lease);
  }

  release(lease: number): void {
    this.#leases.release(lease);
  }

  /** What waits in a pool that is over waits for the next process, which looks at its deadline itself. */
  #expect(record: TaskRecord): void {
    if (this.snapshot.status === 'active') this.#deadlines.add(record);
  }

  /** A pool that takes no work has told its queue so already: whoever comes later is told at once. */
  #seat(): void {
    const { snapshot } = this;
    if (!snapshot.hasTag('turns away')) this.#dispatch();
    else if (!snapshot.context.keeps) this.#refuse(unreadyFailure(snapshot.context));
  }

  #dispatch(): void {
    // Who is to make room gives no more leases.
    this.#options.memory.look();
    const { snapshot } = this;
    if (snapshot.hasTag('finishing queue') && this.queue.isEmpty)
      return this.engines.send({ type: 'queue.emptied' });
    const ready = snapshot.hasTag('ready');
    const places = ready ? 'now' : snapshot.hasTag('accepting') ? 'soon' : 'never';
    const free = this.slots_free;
    // The common case under load: every slot is taken and nobody waits for provisioning.
    if (ready && free === 0 && this.#provisioning.size === 0) return;
    const { affinity, tasks, clock, memory } = this.#options;
    const { ensure, grants, provision, wait } = dispatch<TaskRecord>({
      places,
      cold: snapshot.value === 'cold',
      replicas: this.engines.replicas.ready.map((replica) => ({
        id: replica.id,
        slots_free: this.#freeOn(replica),
        leases: this.#leases.on(replica),
      })),
      slots_total: this.slots_total,
      next: this.queue.take(ready ? free : this.slots_total, ready ? memory.lastCall() : undefined),
      provisioning: this.#provisioning,
      affinity: ({ session_id }) => affinity(session_id),
    });
    const at = clock.now();
    for (const { task, replica_id } of grants) this.#grant(task, replica_id);
    for (const record of wait) {
      this.#provisioning.delete(record);
      tasks.send(record, { type: 'task.wait' });
    }
    for (const record of provision) {
      this.#provisioning.add(record);
      tasks.send(record, { type: 'task.provision', at });
    }
    if (ensure) this.engines.send({ type: 'pool.ensure' });
    if (snapshot.hasTag('finishing queue') && this.queue.isEmpty)
      this.engines.send({ type: 'queue.emptied' });
  }

  #freeOn(replica: Replica): number {
    if (!replica.isOpen) return 0;
    return Math.max(0, this.engines.replicas.slotsOf(replica) - this.#leases.on(replica));
  }

  #grant(record: TaskRecord, replica_id: string): void {
    const { clock, tasks } = this.#options;
    const replica = this.engines.replicas.get(replica_id);
    if (!replica) return;
    const at = clock.now();
    if (record.due_at <= at) return tasks.send(record, { type: 'task.expire', at, overdue: 'deadline' });
    // One that expires makes room, and the next may have been granted for that before its turn came here.
    if (!this.queue.dispatch(record)) return;
    this.#provisioning.delete(record);
    this.#deadlines.remove(record);
    this.#options.memory.granted(record);
    this.#leases.grant(record, replica);
  }

  #refuse(cause: Failure): void {
    for (const record of this.queue.take(this.queue.length))
      this.#options.tasks.send(record, { type: 'task.fail', at: this.#options.clock.now(), failure: cause });
  }
}
