import { createActor } from 'xstate';
import type { Clock } from '../clock.ts';
import type { EngineInput, EngineProperties, EngineFamily } from '../engines/engine.ts';
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
import type { ReplicaFact, ReplicaInput } from '../machines/replica.ts';
import { dispatch } from '../scheduling/dispatch.ts';
import { predictStart, smooth, type Rates } from '../scheduling/estimate.ts';
import type { PlacementPool } from '../scheduling/placement.ts';
import { TaskQueue, type Priority } from '../scheduling/queue.ts';
import type { LogWriter } from '../streams/log-writer.ts';
import { Leases } from './leases.ts';
import type { ThreadPool } from '../threads/thread-pool.ts';
import type { Observers } from './observation.ts';
import { startProvisioner, type ModelSource } from './provisioner.ts';
import { Replica, stateName, type EngineFactory } from './replica.ts';
import { link } from './supervision.ts';
import type { TaskRecord } from './task-record.ts';
import type { TaskHome, Tasks } from './tasks.ts';

export interface PoolSpec {
  id: string;
  engine: EngineFamily;
  /** The reference tasks name. */
  model: string;
  slots: number;
  ctx: number | undefined;
  max_tokens_out: number | undefined;
  capacity: number;
  preload: boolean;
}

export interface PoolOptions {
  spec: PoolSpec;
  clock: Clock;
  random: () => number;
  observers: Observers;
  tasks: Tasks;
  models: ModelSource;
  threads: ThreadPool;
  /** Called once the model is prepared; the replica owns what it returns. */
  engine: (model: PreparedModel, replica_id: string) => EngineFactory;
  replica: Omit<ReplicaInput, 'id' | 'now' | 'random'>;
  stopped: () => void;
}

/** A queue and the replicas that serve it, under the pool machine. */
export class Pool implements TaskHome {
  readonly spec: PoolSpec;
  readonly queue: TaskQueue<TaskRecord>;
  readonly rates: Rates = { first_token_ms: undefined, service_ms: undefined, load_ms: undefined };
  readonly #options: PoolOptions;
  readonly #actor: PoolActor;
  readonly #leases: Leases;
  readonly #provisioning = new Set<TaskRecord>();
  #replica: Replica | undefined;
  #model: PreparedModel | undefined;
  #cancelProvisioner: (() => void) | undefined;
  #asked_at: number | undefined;
  #state: PoolState = 'cold';

  constructor(options: PoolOptions) {
    const { spec, clock, observers } = options;
    this.#options = options;
    this.spec = spec;
    this.queue = new TaskQueue(spec.capacity);
    this.#leases = new Leases({
      pool_id: spec.id,
      clock,
      tasks: options.tasks,
      rates: this.rates,
      granted: () => this.#send({ type: 'lease.granted' }),
      closed: () => this.#send({ type: 'lease.closed' }),
    });
    this.#actor = createActor(poolMachine, {
      id: spec.id,
      clock,
      input: {
        id: spec.id,
        retry: {
          initial_ms: options.replica.restart.initial_ms,
          factor: options.replica.restart.factor,
          max_ms: options.replica.restart.max_ms,
        },
      },
    });
    this.#actor.on('*', (fact) => this.#do(fact));
    link(this.#actor, {
      moved: (snapshot) => this.#moved(snapshot),
      completed: options.stopped,
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

  get leases(): number {
    return this.#leases.size;
  }

  drain(deadline_ms: number): void {
    this.#send({ type: 'pool.drain', deadline_ms });
  }

  /** Why it takes no new work, if it takes none. */
  get refusal(): Failure | undefined {
    const { snapshot } = this;
    return snapshot.hasTag('accepting') ? undefined : unreadyFailure(snapshot.context);
  }

  /** What placement needs to know of this pool. */
  candidate(priority: Priority): PlacementPool {
    return {
      id: this.spec.id,
      engine: this.spec.engine,
      model: this.spec.model,
      ctx_max: this.ctxMax,
      max_tokens_out: this.spec.max_tokens_out,
      workloads: this.properties?.workloads ?? ['completion'],
      refusal: this.refusal,
      predicted_start_ms: this.predictedStart(this.queue.positionOfNewcomer(priority)),
      waiting: this.queue.length,
    };
  }

  /** @returns milliseconds from now until a task with so many ahead of it gets a slot */
  predictedStart(ahead: number): number {
    const { clock } = this.#options;
    const now = clock.now();
    const isReady = this.snapshot.hasTag('ready');
    const waited = this.#asked_at === undefined ? 0 : now - this.#asked_at;
    return predictStart({
      rates: this.rates,
      ahead,
      slots_total: this.slots_total,
      slots_free: isReady ? Math.max(0, this.slots_free - this.queue.length) : this.slots_total,
      until_ready_ms: isReady ? 0 : Math.max(0, (this.rates.load_ms ?? 1000) - waited),
      held_ms: () => this.#leases.heldFor(now),
    });
  }

  /**
   * Counts in a thread from the model file where there is one, which needs no engine and bothers none; a rendered
   * conversation, or a model without a file, only the engine can count.
   * @returns tokens of the input, or undefined where nobody can tell now
   */
  async count(input: EngineInput, signal: AbortSignal): Promise<number | undefined> {
    const model_path = input.kind === 'prompt' ? await this.#modelPath(signal) : '';
    if (input.kind !== 'prompt' || model_path === '') return this.#replica?.count(input, signal);
    const counted = await this.#options.threads.countTokens({ model_path, text: input.text, signal });
    return counted ?? this.#replica?.count(input, signal);
  }

  enqueue(record: TaskRecord): void {
    // Counted without the places that are only promised: whoever has one may never come.
    const ahead =
      this.queue.lengthOf('interactive') + (record.priority === 'batch' ? this.queue.lengthOf('batch') : 0);
    this.queue.enqueue(record);
    // Behind those who would fill every slot, a newcomer changes nothing.
    if (ahead < this.slots_total || this.refusal) this.#seat();
  }

  requeue(record: TaskRecord): void {
    this.queue.returnToFront(record);
    this.#seat();
  }

  /** The task is over, or gone elsewhere. */
  leave(record: TaskRecord): void {
    const waited = this.queue.remove(record);
    this.#provisioning.delete(record);
    if (waited) this.#dispatch();
  }

  run(record: TaskRecord, lease: number, writer: LogWriter): void {
    this.#leases.run(record, lease, writer);
  }

  abort(lease: number): void {
    this.#leases.abort(lease);
  }

  release(lease: number): void {
    this.#leases.release(lease);
  }

  /** What arrives after the pool is over concerns nobody. */
  #send(event: PoolEvent): void {
    if (this.snapshot.status === 'active') this.#actor.send(event);
  }

  /** A pool that takes no work has told its queue so already: whoever comes later is told at once. */
  #seat(): void {
    const { refusal } = this;
    if (refusal) this.#refuse(refusal);
    else this.#dispatch();
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
    this.queue.remove(record);
    this.#provisioning.delete(record);
    this.#leases.grant(record, this.#replica);
  }

  /** Empty for a model without a file; a pool that is not prepared yet knows its reference all the same. */
  async #modelPath(signal: AbortSignal): Promise<string> {
    if (this.#model) return this.#model.path;
    const { path } = await this.#options.models.resolve(this.spec.model, signal);
    return path;
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
        this.#asked_at = this.#options.clock.now();
        this.#cancelProvisioner = startProvisioner(this.spec.model, this.#options.models, (told) => {
          this.#cancelProvisioner = undefined;
          if (told.type === 'model.prepared') this.#model = told.model;
          this.#send(told.type === 'model.prepared' ? { type: 'model.prepared' } : told);
        });
        return;
      case 'replicas.start':
        this.#asked_at = this.#options.clock.now();
        this.#replica ??= this.#createReplica();
        return this.#replica.start();
      case 'replicas.stop':
        this.#cancelProvisioner?.();
        if (!this.#replica) return this.#send({ type: 'replicas.stopped' });
        return this.#replica.stop();
      case 'leases.revoke':
        return this.#leases.revoke();
      case 'queue.dispatch':
        return this.#dispatch();
      case 'queue.refuse':
        return this.#refuse(fact.failure);
    }
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
          this.#options.clock.now() - (this.#asked_at ?? this.#options.clock.now()),
        );
        return this.#send({ type: 'replica.readied' });
      case 'replica.lost':
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
