import { createActor } from 'xstate';
import type { EngineInput, EngineProperties } from '../engines/engine.ts';
import type { Failure } from '../errors.ts';
import { failure } from '../errors.ts';
import {
  poolMachine,
  unreadyFailure,
  type PoolActor,
  type PoolEvent,
  type PoolFact,
  type PoolSnapshot,
  type PoolState,
} from '../machines/pool.ts';
import type { PreparedModel } from '../machines/provisioner.ts';
import { isOver } from '../machines/task.ts';
import type { TaskRules } from '../machines/task-protocol.ts';
import type { ReplicaFact } from '../machines/replica.ts';
import { dispatch } from '../scheduling/dispatch.ts';
import { newRates, retryAfter, smooth, type Rates } from '../scheduling/estimate.ts';
import { PRIORITIES, TaskQueue, type Priority } from '../scheduling/queue.ts';
import { RateLimit } from '../scheduling/rate-limit.ts';
import type { LogWriter } from '../streams/log-writer.ts';
import { Leases } from './leases.ts';
import { Deadlines } from './deadlines.ts';
import { Forecast, type ForecastView } from './forecast.ts';
import { startProvisioner } from './provisioner.ts';
import { Replica, stateName } from './replica.ts';
import type { PoolOptions, PoolSpec } from './pool-options.ts';
import { link } from './supervision.ts';
import { TokenCounter } from './token-counter.ts';
import type { TaskRecord } from './task-record.ts';
import { continuationOf, type Continuation } from './continuation.ts';
import type { Past, TaskHome } from './tasks.ts';

/** A queue and the replicas that serve it, under the pool machine. */
export class Pool implements TaskHome, ForecastView {
  readonly spec: PoolSpec;
  readonly queue: TaskQueue<TaskRecord>;
  readonly rates: Rates = newRates();
  readonly forecast: Forecast;
  asked_at: number | undefined;
  readonly rateLimits: Partial<Record<Priority, RateLimit>> = {};
  readonly #options: PoolOptions;
  readonly #actor: PoolActor;
  readonly #leases: Leases;
  readonly #provisioning = new Set<TaskRecord>();
  readonly #deadlines: Deadlines<TaskRecord>;
  readonly #counter: TokenCounter;
  #replica: Replica | undefined;
  #model: PreparedModel | undefined;
  #cancelProvisioner: (() => void) | undefined;
  #state: PoolState = 'cold';

  constructor(options: PoolOptions) {
    const { spec, clock, observers } = options;
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
      granted: () => this.#send({ type: 'lease.granted' }),
      closed: () => this.#send({ type: 'lease.closed' }),
    });
    this.forecast = new Forecast(clock, this.rates, this.queue, this);
    this.#counter = new TokenCounter(spec.model, options.models, options.threads);
    this.#deadlines = new Deadlines(clock, (record, at) =>
      options.tasks.send(record, { type: 'task.expire', at, overdue: 'deadline' }),
    );
    this.#actor = createActor(poolMachine, {
      id: spec.id,
      clock,
      input: {
        id: spec.id,
        retry: options.replica.restart,
      },
    });
    this.#actor.on('*', (fact) => this.#do(fact));
    link(this.#actor, {
      moved: (snapshot) => this.#moved(snapshot),
      completed: () => {
        this.#deadlines.close();
        options.stopped();
      },
      crashed: (error) => {
        observers.tell({ type: 'child.crashed', child: `pool ${spec.id}`, error });
        this.#refuse(failure('INTERNAL', `pool ${spec.id} crashed`, { pool_id: spec.id }));
        this.#leases.revoke();
        if (this.#replica) this.#replica.stop();
        else options.stopped();
      },
    });
    this.#actor.start();
    if (spec.preload) this.#send({ type: 'pool.ensure' });
  }

  get snapshot(): PoolSnapshot {
    return this.#actor.getSnapshot();
  }

  get phase(): string {
    return this.snapshot.value;
  }

  get queue_depth(): number {
    return this.queue.length;
  }

  get replica(): Replica | undefined {
    return this.#replica;
  }

  get properties(): EngineProperties | undefined {
    return this.#replica?.properties;
  }

  /** Tokens a slot holds; from the engine, or the configuration until one has told. */
  get ctxMax(): number | undefined {
    return this.properties?.ctx_max ?? this.spec.ctx ?? this.#model?.context_length;
  }

  get slots_total(): number {
    return this.properties?.slots_total ?? this.spec.slots;
  }

  get slots_free(): number {
    return this.snapshot.hasTag('ready') ? Math.max(0, this.slots_total - this.#leases.size) : 0;
  }

  get isReady(): boolean {
    return this.snapshot.hasTag('ready');
  }

  remaining(now: number): number[] {
    return this.#leases.remaining(now);
  }

  get leases(): number {
    return this.#leases.size;
  }

  /** @param unfinished whether what is left then waits for the next process, or is told that it is over */
  drain(deadline_ms: number, unfinished: 'keep' | 'refuse' = 'refuse'): void {
    this.#send({ type: 'pool.drain', deadline_ms, unfinished });
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
    return this.#counter.count(input, this.#model, this.#replica, signal);
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

  /** What arrives after the pool is over concerns nobody. */
  #send(event: PoolEvent): void {
    if (this.snapshot.status === 'active') this.#actor.send(event);
  }

  /** A pool that takes no work has told its queue so already: whoever comes later is told at once. */
  #seat(): void {
    const { refusal } = this;
    if (!refusal) this.#dispatch();
    else if (!this.snapshot.context.keeps) this.#refuse(refusal);
  }

  #dispatch(): void {
    const { snapshot } = this;
    const ready = snapshot.hasTag('ready');
    const accepting = snapshot.hasTag('accepting');
    const free = this.slots_free;
    // The common case under load: every slot is taken and nobody waits for provisioning.
    if (ready && free === 0 && this.#provisioning.size === 0) return;
    const { ensure, grants, provision, wait } = dispatch<TaskRecord>({
      places: ready ? 'now' : accepting ? 'soon' : 'never',
      cold: snapshot.value === 'cold',
      replicas: this.#replica ? [{ id: this.#replica.id, slots_free: free, leases: this.#leases.size }] : [],
      slots_total: this.slots_total,
      next: this.queue.take(ready ? free : this.slots_total),
      provisioning: this.#provisioning,
    });
    const at = this.#options.clock.now();
    for (const { task } of grants) this.#grant(task);
    for (const record of wait) {
      this.#provisioning.delete(record);
      this.#options.tasks.send(record, { type: 'task.wait' });
    }
    for (const record of provision) {
      this.#provisioning.add(record);
      this.#options.tasks.send(record, { type: 'task.provision', at });
    }
    if (ensure) this.#send({ type: 'pool.ensure' });
  }

  #grant(record: TaskRecord): void {
    if (!this.#replica) return;
    const { clock, tasks } = this.#options;
    const at = clock.now();
    if (record.due_at <= at) return tasks.send(record, { type: 'task.expire', at, overdue: 'deadline' });
    // One that expires makes room, and the next may have been granted for that before its turn came here.
    if (!this.queue.dispatch(record)) return;
    this.#provisioning.delete(record);
    this.#deadlines.remove(record);
    this.#leases.grant(record, this.#replica);
  }

  #moved({ value, context }: PoolSnapshot): void {
    const from = this.#state;
    if (value === from) return;
    this.#state = value;
    this.#options.observers.tell({
      type: 'pool.moved',
      pool_id: this.spec.id,
      from,
      to: value,
      failure: context.last_error,
    });
  }

  #do(fact: PoolFact): void {
    // Facts come before subscribers hear of the state they belong to; observers are told in the order of causes.
    this.#moved(this.snapshot);
    switch (fact.type) {
      case 'model.prepare':
        this.asked_at = this.#options.clock.now();
        this.#cancelProvisioner = this.#prepare();
        return;
      case 'replicas.start':
        this.asked_at = this.#options.clock.now();
        this.#replica ??= this.#createReplica();
        return this.#replica.start();
      case 'replicas.stop':
        this.#cancelProvisioner?.();
        if (!this.#replica) return this.#send({ type: 'replicas.stopped' });
        return this.#replica.stop();
      case 'leases.revoke':
        return this.#leases.revoke();
      case 'leases.suspend':
        return this.#leases.suspend();
      case 'queue.dispatch':
        return this.#dispatch();
      case 'queue.refuse':
        return this.#refuse(fact.failure);
    }
  }

  #prepare(): () => void {
    const { models, observers } = this.#options;
    const { id, model } = this.spec;
    return startProvisioner(
      model,
      models,
      (told) => {
        this.#cancelProvisioner = undefined;
        if (told.type === 'model.prepared') this.#model = told.model;
        this.#send(told.type === 'model.prepared' ? { type: 'model.prepared' } : told);
      },
      (progress) => observers.tell({ pool_id: id, ...progress }),
    );
  }

  #createReplica(): Replica {
    const id = `${this.spec.id}/r0`;
    const { clock, random, observers, engine, replica } = this.#options;
    return new Replica({
      input: { id, ...replica },
      clock,
      random,
      engine: engine(this.#model as PreparedModel, id),
      told: (fact) => this.#hear(fact),
      moved: (from, snapshot) =>
        observers.tell({
          type: 'replica.moved',
          pool_id: this.spec.id,
          replica_id: id,
          from,
          to: stateName(snapshot),
          failure: snapshot.context.last_error,
          exit: snapshot.context.exit,
        }),
    });
  }

  #hear(fact: ReplicaFact): void {
    switch (fact.type) {
      case 'replica.readied':
        this.rates.load_ms = smooth(
          this.rates.load_ms,
          this.#options.clock.now() - (this.asked_at ?? this.#options.clock.now()),
        );
        return this.#send({ type: 'replica.readied' });
      case 'replica.lost':
        if (this.#replica) this.#options.lost(this.#replica.id);
        return this.#send({ type: 'replica.lost' });
      case 'replica.broken':
        return this.#send(fact);
      case 'replica.stopped':
        this.#replica = undefined;
        if (this.snapshot.status === 'error') return this.#options.stopped();
        return this.#send({ type: 'replicas.stopped' });
    }
  }

  #refuse(cause: Failure): void {
    for (const record of this.queue.take(this.queue.length))
      this.#options.tasks.send(record, { type: 'task.fail', at: this.#options.clock.now(), failure: cause });
  }
}
