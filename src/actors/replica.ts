import { createActor, fromPromise } from 'xstate';
import type { Clock } from '../clock.ts';
import type {
  EmbedCall,
  Engine,
  EngineCall,
  EngineHealth,
  EngineHost,
  EngineInput,
  EngineOutcome,
  EngineProperties,
  EngineSink,
  RerankCall,
} from '../engines/engine.ts';
import { failure, TaskchartError, type Failure } from '../errors.ts';
import { replicaMachine, type ReplicaActor, type ReplicaSnapshot } from '../machines/replica.ts';
import type { ReplicaFact, ReplicaInput, UnloadCause } from '../machines/replica-protocol.ts';
import { remainingLoad } from '../scheduling/estimate.ts';
import { outerState } from '../machines/state-name.ts';
import { link, SUPERVISION } from './supervision.ts';

export type EngineFactory = (host: EngineHost) => Promise<Engine>;

export interface ReplicaOptions {
  input: Omit<ReplicaInput, 'now' | 'random'>;
  clock: Clock;
  random: () => number;
  engine: EngineFactory;
  told: (fact: ReplicaFact) => void;
  moved: (from: string, to: ReplicaSnapshot) => void;
}

/** One engine under the replica machine: loads, probes, restarts, and runs calls on its slots. */
export class Replica {
  readonly id: string;
  readonly #actor: ReplicaActor;
  readonly #runs = new Map<number, AbortController>();
  readonly #options: ReplicaOptions;
  #engine: Promise<Engine> | undefined;

  constructor(options: ReplicaOptions) {
    this.id = options.input.id;
    this.#options = options;
    this.#actor = createActor(
      replicaMachine.provide({
        actors: {
          loadEngine: fromPromise(async ({ signal }) => (await this.#ensureEngine()).load(signal)),
          probeEngine: fromPromise(({ signal }) => this.#probe(signal)),
          proveEngine: fromPromise(({ signal }) => this.#prove(signal)),
          unloadEngine: fromPromise(async () => this.#unload()),
        },
      }),
      {
        input: { ...options.input, now: () => options.clock.now(), random: options.random },
        clock: options.clock,
      },
    );
    let state = 'idle';
    const moved = (snapshot: ReplicaSnapshot): void => {
      const next = outerState(snapshot);
      if (next === state) return;
      const from = state;
      state = next;
      options.moved(from, snapshot);
    };
    // Facts come before subscribers hear of the state they belong to; observers are told in the order of causes.
    this.#actor.on('*', (fact) => {
      moved(this.snapshot);
      options.told(fact);
    });
    link(this.#actor, {
      moved,
      completed() {},
      crashed: (thrown) => {
        const cause = failure('INTERNAL', `replica ${this.id} crashed: ${String(thrown)}`);
        void this.#unload().catch(() => undefined);
        options.told({ type: 'replica.lost', loss: { cause: 'crash', message: cause.message } });
        options.told({ type: 'replica.broken', failure: cause });
      },
    });
    this.#actor.start();
  }

  get snapshot(): ReplicaSnapshot {
    return this.#actor.getSnapshot();
  }

  /** What the engine turned out to be; undefined until it was loaded once. */
  get properties(): EngineProperties | undefined {
    return this.snapshot.context.properties;
  }

  get isReady(): boolean {
    return this.snapshot.hasTag('ready');
  }

  /** Whether it may be granted runs: ready, and its engine takes them. */
  get isOpen(): boolean {
    return this.snapshot.hasTag('open');
  }

  /** How long its load takes so far, and where it has just become ready took in all; in milliseconds. */
  get load_ms(): number {
    const now = this.#options.clock.now();
    return now - (this.snapshot.context.loading_at ?? now);
  }

  /** Milliseconds until it is expected to be ready. @param load_ms what a load takes */
  untilReady(load_ms: number): number {
    const { snapshot } = this;
    if (snapshot.hasTag('ready')) return 0;
    if (snapshot.hasTag('loading')) return remainingLoad(load_ms, this.load_ms);
    const wait_ms = snapshot.context.loads_again_at - this.#options.clock.now();
    return load_ms + (snapshot.hasTag('waiting') ? Math.max(0, wait_ms) : 0);
  }

  /** Whether its engine is in memory, or will be without anybody being asked. */
  get holdsEngine(): boolean {
    return this.snapshot.status === 'active' && !this.snapshot.hasTag('empty');
  }

  start(): void {
    if (this.snapshot.status === 'active') this.#actor.send({ type: 'replica.start' });
  }

  /** Lets go of the engine; told as `replica.unloaded`. */
  unload(cause: UnloadCause): void {
    if (this.snapshot.status === 'error') return this.#options.told({ type: 'replica.unloaded' });
    this.#actor.send({ type: 'replica.unload', cause });
  }

  /** What it loads next is made anew: its pool has another model. To be called while nothing is loaded. */
  replaceEngine(): void {
    this.#engine = undefined;
  }

  /** A run on it has been silent for too long: it may answer and be deaf all the same. */
  suspect(): void {
    if (this.snapshot.status === 'active') this.#actor.send({ type: 'replica.suspect' });
  }

  stop(): void {
    // A crashed actor hears nothing any more, and has nothing left to stop.
    if (this.snapshot.status === 'error') return this.#options.told({ type: 'replica.stopped' });
    this.#actor.send({ type: 'replica.stop' });
  }

  /**
   * Runs a call on a slot; the slot is taken until the promise resolves, also after an abort.
   * Never rejects. The same lease twice is refused.
   */
  run(call: EngineCall, sink: EngineSink): Promise<EngineOutcome> {
    return this.#hold(call.lease, (engine, signal) => engine.run(call, sink, signal));
  }

  /** As `run`, for texts to embed. */
  embed(call: EmbedCall, vector: Parameters<NonNullable<Engine['embed']>>[1]): Promise<EngineOutcome> {
    return this.#hold(
      call.lease,
      (engine, signal) => engine.embed?.(call, vector, signal) ?? cannot('embed'),
    );
  }

  /** As `run`, for documents to rank. */
  rerank(call: RerankCall, score: Parameters<NonNullable<Engine['rerank']>>[1]): Promise<EngineOutcome> {
    return this.#hold(call.lease, (engine, signal) => engine.rerank?.(call, score, signal) ?? cannot('rank'));
  }

  async #hold(
    lease: number,
    work: (engine: Engine, signal: AbortSignal) => Promise<EngineOutcome>,
  ): Promise<EngineOutcome> {
    if (this.#runs.has(lease)) throw new Error(`lease ${lease} runs already`);
    const abort = new AbortController();
    this.#runs.set(lease, abort);
    try {
      const outcome = await work(await this.#ensureEngine(), abort.signal);
      this.#note(outcome);
      return outcome;
    } catch (error) {
      return failed(failure('INTERNAL', `the engine adapter failed: ${String(error)}`));
    } finally {
      this.#runs.delete(lease);
    }
  }

  /** Before the slot is free again, so that nobody is sent to an engine that takes nothing. */
  #note(outcome: EngineOutcome): void {
    if (this.snapshot.status !== 'active') return;
    if (outcome.kind === 'failed' && outcome.declined)
      this.#actor.send({ type: 'run.declined', retry_after_ms: outcome.failure.retry_after_ms });
    else if (outcome.kind === 'finished' && this.snapshot.context.rests > 0)
      this.#actor.send({ type: 'run.taken' });
  }

  /** Safe to repeat, and for a lease that is over. */
  abort(lease: number): void {
    this.#runs.get(lease)?.abort();
  }

  async count(input: EngineInput, signal: AbortSignal): Promise<number | undefined> {
    if (!this.snapshot.hasTag('ready')) return undefined;
    return (await this.#ensureEngine()).count(input, signal);
  }

  #ensureEngine(): Promise<Engine> {
    this.#engine ??= this.#options.engine({
      waiting: (why) => this.#actor.send({ type: 'engine.waited', why }),
      lost: (loss) => this.#actor.send({ type: 'engine.lost', loss }),
    });
    return this.#engine;
  }

  #probe(signal: AbortSignal): Promise<EngineHealth> {
    const silence: EngineHealth = { live: false, ready: false, message: 'the engine does not answer' };
    return this.#ask((engine, within) => engine.health(within), silence, signal);
  }

  /** Whether it decodes a token; one that cannot be asked is believed. */
  #prove(signal: AbortSignal): Promise<boolean> {
    return this.#ask(async (engine, within) => (await engine.probe?.(within)) ?? true, false, signal);
  }

  /** No answer within a probe's interval is an answer. */
  async #ask<T>(
    question: (engine: Engine, signal: AbortSignal) => Promise<T>,
    silence: T,
    signal: AbortSignal,
  ): Promise<T> {
    const { clock, input } = this.#options;
    const late = new AbortController();
    const timer = clock.setTimeout(() => late.abort(), input.probe_interval_ms);
    const tooLate = new Promise<T>((resolve) => {
      late.signal.addEventListener('abort', () => resolve(silence));
    });
    try {
      const engine = await this.#ensureEngine();
      return await Promise.race([question(engine, AbortSignal.any([signal, late.signal])), tooLate]);
    } finally {
      clock.clearTimeout(timer);
    }
  }

  async #unload(): Promise<void> {
    for (const abort of this.#runs.values()) abort.abort();
    if (!this.#engine) return;
    const { promise: late, reject } = Promise.withResolvers<never>();
    const timer = this.#options.clock.setTimeout(
      () => reject(new TaskchartError(failure('INTERNAL', 'the engine did not stop in time'))),
      SUPERVISION.replica.shutdown.within_ms,
    );
    try {
      await Promise.race([(await this.#engine).unload(), late]);
    } finally {
      this.#options.clock.clearTimeout(timer);
    }
  }
}

/** The engine was loaded without this workload after the task had been admitted for it. */
function cannot(what: string): Promise<EngineOutcome> {
  return Promise.resolve(failed(failure('INVALID_PARAMS', `workload: this engine cannot ${what}`)));
}

function failed(cause: Failure): EngineOutcome {
  return { kind: 'failed', failure: cause, usage: { tokens_in: 0, tokens_cached: 0, tokens_out: 0 } };
}
