import { createActor } from 'xstate';
import { failure, TaskchartError, type Failure } from '../errors.ts';
import { poolMachine, type PoolActor, type PoolSnapshot } from '../machines/pool.ts';
import { unreadyFailure, type PoolEvent, type PoolFact } from '../machines/pool-protocol.ts';
import type { PreparedModel } from '../machines/provisioner.ts';
import type { ReplicaFact, UnloadCause } from '../machines/replica-protocol.ts';
import { outerState, stateName } from '../machines/state-name.ts';
import { smooth, type Rates } from '../scheduling/estimate.ts';
import { PoolModel } from './pool-model.ts';
import type { PoolOptions } from './pool-options.ts';
import { Replica, type EngineFactory } from './replica.ts';
import { Replicas } from './replicas.ts';
import { link } from './supervision.ts';
import type { WorkerDescription } from './workers.ts';

/** What the engines of a pool ask of the work that they are there for. */
export interface PoolWork {
  dispatch(): void;
  /** Everybody who waits is told. */
  refuse(why: Failure): void;
  /** Every run is canceled. */
  revoke(): void;
  /** Every run is put back among what waits, for the next process. */
  suspend(): void;
  /** Nothing will be asked any more. */
  over(): void;
}

/** How a reload went; `at_ms` is when it was over, in epoch milliseconds. */
export interface LastReload {
  model_ref: string;
  outcome: 'done' | 'failed';
  message?: string;
  at_ms: number;
}

export interface PoolEnginesOptions extends Omit<PoolOptions, 'tasks' | 'threads' | 'affinity'> {
  work: PoolWork;
  /** The load time is written here. */
  rates: Rates;
}

/** The model and the replicas of a pool, under the pool machine: who brings them up, changes them, and gives them back. */
export class PoolEngines {
  readonly model: PoolModel;
  readonly replicas: Replicas;
  readonly #options: PoolEnginesOptions;
  readonly #actor: PoolActor;
  /** Who waits for the outcome of a reload. */
  #reload: (PromiseWithResolvers<void> & { model_ref: string }) | undefined;
  #lastReload: LastReload | undefined;
  #state = 'cold';

  constructor(options: PoolEnginesOptions) {
    const { spec, clock, observers, work } = options;
    this.#options = options;
    this.model = new PoolModel({
      name: spec.model,
      model_ref: spec.model_ref,
      source: options.models,
      progress: (progress) => observers.tell({ pool_id: spec.id, ...progress }),
    });
    this.replicas = new Replicas({
      count: spec.replicas,
      slots: spec.slots,
      create: (name) => this.#createReplica(name, (host) => this.#engineFor(name)(host)),
      unloaded: () => this.send({ type: 'replicas.unloaded' }),
      stopped: () => {
        if (this.snapshot.status === 'error') return options.stopped();
        this.send({ type: 'replicas.stopped' });
      },
    });
    this.#actor = createActor(poolMachine, {
      id: spec.id,
      clock,
      input: { id: spec.id, retry: options.replica.restart, replicas: spec.replicas },
    });
    this.#actor.on('*', (fact) => this.#do(fact));
    link(this.#actor, {
      moved: (snapshot) => this.#moved(snapshot),
      completed: () => {
        work.over();
        options.stopped();
      },
      crashed: (error) => {
        observers.tell({ type: 'child.crashed', child: `pool ${spec.id}`, error });
        work.refuse(failure('INTERNAL', `pool ${spec.id} crashed`, { pool_id: spec.id }));
        work.revoke();
        this.replicas.stop();
      },
    });
  }

  /** Begins; one that preloads at once. Its owner has to be there by then. */
  start(): void {
    this.#actor.start();
    if (this.#options.spec.preload) this.send({ type: 'pool.ensure' });
  }

  get snapshot(): PoolSnapshot {
    return this.#actor.getSnapshot();
  }

  /** Milliseconds until one of its engines is expected to be ready; what precedes a load is not known. */
  untilReady(load_ms: number): number {
    return this.replicas.all.reduce(
      (least, replica) => Math.min(least, replica.untilReady(load_ms)),
      this.replicas.all.length > 0 ? Infinity : load_ms,
    );
  }

  /** What arrives after the pool is over concerns nobody. */
  send(event: PoolEvent): void {
    if (this.snapshot.status === 'active') this.#actor.send(event);
  }

  /** Runs empty and stays so: what runs may finish until the deadline. */
  drain(deadline_ms: number): void {
    this.send({ type: 'pool.drain', deadline_ms });
  }

  /** Resolves once it is drained, or over. */
  async drained(): Promise<void> {
    const isDrained = (): boolean => this.snapshot.value === 'drained' || this.snapshot.status !== 'active';
    if (isDrained()) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const subscription = this.#actor.subscribe({
      next: () => {
        if (isDrained()) resolve();
      },
      complete: resolve,
      error: () => resolve(),
    });
    await promise;
    subscription.unsubscribe();
  }

  /** The one name of a model, however it was written. @throws TaskchartError INVALID_PARAMS */
  nameOf(model_ref: string): string {
    return this.#options.models.nameOf(model_ref);
  }

  /** Takes work again after a drain. */
  restore(): void {
    this.send({ type: 'pool.restore' });
  }

  /** Gives its memory back once nothing runs; it is loaded again for the next task. */
  unload(cause: UnloadCause): void {
    this.send({ type: 'pool.unload', cause });
  }

  /** There is memory for it now. */
  grantMemory(): void {
    this.send({ type: 'memory.granted' });
  }

  /** There never will be. */
  refuseMemory(why: Failure): void {
    this.send({ type: 'memory.refused', failure: why });
  }

  /** Whether any engine of its own is in memory, or about to be. */
  get holdsMemory(): boolean {
    return this.replicas.holdsMemory;
  }

  /** Whether it waits for memory. */
  get wantsMemory(): boolean {
    return this.snapshot.hasTag('wants memory');
  }

  /**
   * Another model, or a fresh start of the same. Nothing that was accepted is lost.
   * @returns how it went: rejects with a TaskchartError once the pool is as it was before, or cannot be
   * @throws TaskchartError INVALID_PARAMS for what is no reference, or a pool whose model is not ours to change (409);
   * POOL_UNREADY (409) where it cannot begin now
   */
  reload(reference: string, deadline_ms: number): Promise<void> {
    const { spec } = this.#options;
    const { snapshot } = this;
    const phase = outerState(snapshot);
    if (!spec.reloadable)
      throw new TaskchartError(
        failure(
          'INVALID_PARAMS',
          `pool ${spec.id}: its model is loaded by a server that somebody else runs; reload it there`,
          { pool_id: spec.id, engine: spec.engine },
        ),
        409,
      );
    const model_ref = this.nameOf(reference);
    if (phase === 'ready' && model_ref === this.model.ref) return Promise.resolve();
    if (!snapshot.can({ type: 'pool.reload', deadline_ms, finishes_queue: false }))
      throw new TaskchartError(
        failure('POOL_UNREADY', `pool ${this.#options.spec.id} is ${phase} and cannot be reloaded now`, {
          pool_id: this.#options.spec.id,
        }),
        409,
      );
    this.#reload = { ...Promise.withResolvers<void>(), model_ref };
    const { promise } = this.#reload;
    this.model.plan(model_ref);
    // What waits for a name gets what is behind it then; what waits for a reference gets that very model.
    this.send({ type: 'pool.reload', deadline_ms, finishes_queue: !this.model.isNamed });
    return promise;
  }

  /** How the last reload that is over went. */
  get lastReload(): LastReload | undefined {
    return this.#lastReload;
  }

  /** @param unfinished whether what is left then waits for the next process, or is told that it is over */
  close(deadline_ms: number, unfinished: 'keep' | 'refuse' = 'refuse'): void {
    this.send({ type: 'pool.close', deadline_ms, unfinished });
  }

  /** An engine that somebody else has started serves this pool. One of the same name is replaced. */
  attach(name: string, worker: WorkerDescription): void {
    const engine = this.#options.announced(worker, `${this.#options.spec.id}/${name}`);
    this.replicas.attach(name, this.#createReplica(name, engine));
    this.send({ type: 'replicas.changed', replicas: this.replicas.size });
  }

  detach(name: string): void {
    if (this.replicas.detach(name)) this.send({ type: 'replicas.changed', replicas: this.replicas.size });
  }

  #moved(snapshot: PoolSnapshot): void {
    const from = this.#state;
    const to = stateName(snapshot);
    if (to === from) return;
    this.#state = to;
    const { last_error } = snapshot.context;
    this.#options.observers.tell({
      type: 'pool.moved',
      pool_id: this.#options.spec.id,
      from,
      to,
      failure: last_error,
    });
    // What was drained comes back as it began.
    if (to === 'cold' && from.startsWith('drain') && this.#options.spec.preload)
      this.send({ type: 'pool.ensure' });
    if (snapshot.hasTag('draining')) this.#settleReload(unreadyFailure(snapshot.context));
    this.#options.memory.look();
  }

  #do(fact: PoolFact): void {
    // Facts come before subscribers hear of the state they belong to; observers are told in the order of causes.
    this.#moved(this.snapshot);
    switch (fact.type) {
      case 'model.prepare':
        return this.model.prepare(fact.which, (failed) =>
          this.send(failed ? { type: 'model.failed', failure: failed } : { type: 'model.prepared' }),
        );
      case 'model.adopt':
        this.replicas.replaceEngines();
        return this.model.adopt();
      case 'model.restore':
        this.replicas.replaceEngines();
        return this.model.restore();
      case 'memory.request':
        return this.#options.memory.look();
      case 'replicas.start':
        return this.replicas.start();
      case 'replicas.unload':
        this.model.cancel();
        for (const { id } of this.replicas.all) this.#options.lost(id, 'unload');
        return this.replicas.unload(fact.cause);
      case 'replicas.stop':
        this.model.cancel();
        return this.replicas.stop();
      case 'leases.revoke':
        return this.#options.work.revoke();
      case 'leases.suspend':
        return this.#options.work.suspend();
      case 'queue.dispatch':
        return this.#options.work.dispatch();
      case 'queue.refuse':
        return this.#options.work.refuse(fact.failure);
      case 'reload.settled':
        return this.#settleReload(fact.failure);
    }
  }

  #settleReload(failed: Failure | undefined): void {
    const reload = this.#reload;
    if (!reload) return;
    this.#reload = undefined;
    const { model_ref } = reload;
    const at_ms = Math.round(this.#options.clock.wall());
    this.#lastReload = failed
      ? { model_ref, outcome: 'failed', message: failed.message, at_ms }
      : { model_ref, outcome: 'done', at_ms };
    this.#options.observers.tell({
      type: 'pool.reloaded',
      pool_id: this.#options.spec.id,
      model_ref,
      failure: failed,
    });
    if (failed) reload.reject(new TaskchartError(failed, 409));
    else reload.resolve();
  }

  #engineFor(name: string): EngineFactory {
    return this.#options.engine(this.model.prepared as PreparedModel, `${this.#options.spec.id}/${name}`);
  }

  #createReplica(name: string, engine: EngineFactory): Replica {
    const id = `${this.#options.spec.id}/${name}`;
    const { clock, random, observers, replica: rules } = this.#options;
    const replica: Replica = new Replica({
      input: { id, ...rules },
      clock,
      random,
      engine,
      told: (fact) => this.#hear(replica, fact),
      moved: (from, snapshot) =>
        observers.tell({
          type: 'replica.moved',
          pool_id: this.#options.spec.id,
          replica_id: id,
          from,
          to: outerState(snapshot),
          failure: snapshot.context.last_error,
          exit: snapshot.context.exit,
        }),
    });
    return replica;
  }

  #hear(replica: Replica, fact: ReplicaFact): void {
    this.replicas.heard(replica, fact);
    switch (fact.type) {
      case 'replica.readied':
        this.#options.rates.load_ms = smooth(this.#options.rates.load_ms, replica.load_ms);
        return this.send({ type: 'replica.readied' });
      case 'replica.lost':
        this.#options.lost(replica.id, fact.loss.cause === 'exit' ? 'unload' : 'failover');
        return this.send(fact);
      case 'replica.broken':
      case 'replica.recoverable':
      case 'replica.rested':
        return this.send(fact);
      case 'replica.unloaded':
      case 'replica.stopped':
        return;
    }
  }
}
