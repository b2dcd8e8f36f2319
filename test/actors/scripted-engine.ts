import type {
  Engine,
  EngineCall,
  EngineHealth,
  EngineHost,
  EngineOutcome,
  EngineProperties,
  EngineSink,
} from '../../src/engines/engine.ts';
import { failure, TaskchartError, type Failure } from '../../src/errors.ts';

/** A run under the test's control. */
export interface ScriptedRun {
  readonly call: EngineCall;
  readonly isOver: boolean;
  readonly isAborted: boolean;
  token(count?: number): void;
  finish(): void;
  fail(cause?: Failure): void;
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
  readonly slots: number;
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
      workloads: ['completion'],
      features: {
        chat: 'rendered',
        grammar: false,
        json_schema: false,
        resume: false,
        tokenizer: false,
        deterministic: false,
        kv_reuse: false,
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
    if (this.live.length >= this.slots) this.shouts.push(`overbooked by ${call.task_id}`);
    if (this.#leases.has(call.lease)) this.shouts.push(`lease ${call.lease} came twice`);
    this.#leases.add(call.lease);
    const usage = { tokens_in: 1, tokens_cached: 0, tokens_out: 0 };
    if (!this.isLoaded)
      return Promise.resolve({ kind: 'failed', failure: failure('WORKER_RESET', 'not loaded'), usage });
    const { promise, resolve } = Promise.withResolvers<EngineOutcome>();
    let isOver = false;
    const run: Running = {
      call,
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
        for (let made = 0; made < count && !run.isOver; made++)
          sink.delta({ channel: 'text', text: ` s${usage.tokens_out++}`, tokens: 1 });
      },
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
