import type {
  Engine,
  EngineCall,
  EngineHealth,
  EngineHost,
  EngineOutcome,
  EngineProperties,
  EngineSink,
  EmbedCall,
  RerankCall,
} from '../../src/engines/engine.ts';
import { failure, TaskchartError, type Failure } from '../../src/errors.ts';

/** A run under the test's control. */
export interface ScriptedRun {
  readonly call: EngineCall;
  readonly isOver: boolean;
  readonly isAborted: boolean;
  /** As many tokens, vectors or scores, numbered as one undisturbed run would. */
  token(count?: number): void;
  /** A piece of text that is none of these. */
  say(text: string, tokens?: number): void;
  /** The input is known. */
  prefilled(tokens_in: number, tokens_cached: number): void;
  /** A sign of life of a prefill. */
  progress(): void;
  finish(): void;
  fail(cause?: Failure): void;
  /** The engine is busy. */
  decline(retry_after_ms?: number): void;
}

interface Running extends ScriptedRun {
  settle(outcome: EngineOutcome): void;
}

/**
 * An engine that does what the test says, when it says it, and shouts when it is asked for what a pool must never
 * ask: more runs than slots, the same lease twice, a run while it is not loaded.
 */
export class ScriptedEngine implements Engine {
  readonly family = 'synthetic';
  readonly shouts: string[] = [];
  /** Every run that was ever started, in order. */
  readonly runs: ScriptedRun[] = [];
  /** Every call that was ever made, in order, as the engine was given it. */
  readonly calls: (EngineCall | EmbedCall | RerankCall)[] = [];
  readonly slots: number;
  /** What the next load says that it can do. */
  features: Partial<EngineProperties['features']> = {};
  kv_bytes_per_token = 0;
  /** What the next load answers; `held` waits for {@link loaded}. */
  loads: 'at once' | 'held' | Failure = 'at once';
  /** Whether an abort settles its run at once, or leaves that to `finish` and `fail`. */
  letsGo = true;
  /** Whether a probe is answered. */
  answers = true;
  count = async (): Promise<number | undefined> => undefined;
  loadCalls = 0;
  unloadCalls = 0;
  isLoaded = false;
  readonly #host: EngineHost;
  readonly #leases = new Set<number>();
  #held: ((failed?: Failure) => void) | undefined;

  constructor(host: EngineHost, slots: number) {
    this.#host = host;
    this.slots = slots;
  }

  get live(): ScriptedRun[] {
    return this.runs.filter((run) => !run.isOver);
  }

  async load(signal: AbortSignal): Promise<EngineProperties> {
    this.loadCalls++;
    if (typeof this.loads === 'object') throw new TaskchartError(this.loads);
    if (this.loads === 'held')
      await new Promise<void>((resolve, reject) => {
        const refuse = (cause: Failure): void => reject(new TaskchartError(cause));
        this.#held = (cause) => (cause ? refuse(cause) : resolve());
        signal.addEventListener('abort', () => refuse(failure('POOL_UNAVAILABLE', 'aborted')));
      });
    this.isLoaded = true;
    return {
      engine_version: 'scripted-1',
      ctx_max: 8192,
      slots_total: this.slots,
      model_id: 'synthetic',
      workloads: ['completion', 'embedding', 'rerank'],
      kv_bytes_per_token: this.kv_bytes_per_token,
      features: {
        chat: 'rendered',
        grammar: false,
        json_schema: false,
        resume: false,
        tokenizer: false,
        deterministic: false,
        kv_reuse: false,
        ...this.features,
      },
    };
  }

  /** Ends a held load. */
  loaded(failed?: Failure): void {
    this.#held?.(failed);
  }

  async health(): Promise<EngineHealth> {
    if (!this.answers || !this.isLoaded) return { live: false, ready: false, message: 'no answer' };
    return { live: true, ready: true };
  }

  run(call: EngineCall, sink: EngineSink, signal: AbortSignal): Promise<EngineOutcome> {
    const from = call.resume?.tokens_out ?? 0;
    return this.#start(call, signal, {
      step: (n) => sink.delta({ channel: 'text', text: ` s${from + n}`, tokens: 1 }),
      say: (text, tokens) => sink.delta({ channel: 'text', text, tokens }),
      prefilled: (tokens_in, tokens_cached) => sink.prefilled?.(tokens_in, tokens_cached),
      progress: () => sink.progress?.(1, 2),
      writes: true,
    });
  }

  embed(
    call: EmbedCall,
    vector: (i: number, vector: readonly number[]) => void,
    signal: AbortSignal,
  ): Promise<EngineOutcome> {
    return this.#start(call, signal, { step: (n) => vector(n, [n]) });
  }

  /** Ranks the last document best. */
  rerank(
    call: RerankCall,
    score: (index: number, score: number) => void,
    signal: AbortSignal,
  ): Promise<EngineOutcome> {
    return this.#start(call, signal, { step: (n) => score(call.documents.length - 1 - n, -n) });
  }

  #start(
    call: EngineCall | EmbedCall | RerankCall,
    signal: AbortSignal,
    work: {
      step: (n: number) => void;
      say?: (text: string, tokens: number) => void;
      prefilled?: (tokens_in: number, tokens_cached: number) => void;
      progress?: () => void;
      writes?: true;
    },
  ): Promise<EngineOutcome> {
    if (this.live.length >= this.slots) this.shouts.push(`overbooked by ${call.task_id}`);
    if (this.#leases.has(call.lease)) this.shouts.push(`lease ${call.lease} came twice`);
    this.#leases.add(call.lease);
    this.calls.push(call);
    const usage = { tokens_in: 1, tokens_cached: 0, tokens_out: 0 };
    if (!this.isLoaded)
      return Promise.resolve({ kind: 'failed', failure: failure('WORKER_RESET', 'not loaded'), usage });
    const { promise, resolve } = Promise.withResolvers<EngineOutcome>();
    let isOver = false;
    let steps = 0;
    const run: Running = {
      call: call as EngineCall,
      get isOver() {
        return isOver;
      },
      get isAborted() {
        return signal.aborted;
      },
      settle(outcome) {
        isOver = true;
        resolve(outcome);
      },
      // Like an engine that has not heard of the abort yet, it goes on until it lets go.
      token(count = 1) {
        for (let made = 0; made < count && !run.isOver; made++) {
          if (work.writes) usage.tokens_out++;
          work.step(steps++);
        }
      },
      say(text, tokens = 1) {
        usage.tokens_out += tokens;
        work.say?.(text, tokens);
      },
      prefilled: (tokens_in, tokens_cached) => work.prefilled?.(tokens_in, tokens_cached),
      progress: () => work.progress?.(),
      finish() {
        run.settle(
          signal.aborted
            ? { kind: 'aborted', usage }
            : { kind: 'finished', reason: 'eos', usage: { ...usage } },
        );
      },
      fail(cause = failure('WORKER_RESET', 'scripted')) {
        run.settle({ kind: 'failed', failure: cause, usage: { ...usage } });
      },
      decline(retry_after_ms) {
        const cause = failure('POOL_UNAVAILABLE', 'busy', retry_after_ms ? { retry_after_ms } : {});
        run.settle({ kind: 'failed', failure: cause, usage: { ...usage }, declined: true });
      },
    };
    this.runs.push(run);
    signal.addEventListener('abort', () => this.letsGo && run.finish());
    if (signal.aborted && this.letsGo) run.finish();
    return promise;
  }

  /** Dies unasked: every run settles as failed, then the owner hears of it. */
  crash(): void {
    if (!this.isLoaded) return;
    this.isLoaded = false;
    for (const run of this.live) run.fail(failure('WORKER_RESET', 'the scripted engine crashed'));
    this.#host.lost({ cause: 'crash', message: 'the scripted engine crashed', exit_code: 1 });
  }

  async unload(): Promise<void> {
    this.unloadCalls++;
    this.isLoaded = false;
    this.#held?.(failure('POOL_UNAVAILABLE', 'unloaded'));
    for (const run of this.live as Running[])
      run.settle({ kind: 'aborted', usage: { tokens_in: 1, tokens_cached: 0, tokens_out: 0 } });
  }
}
