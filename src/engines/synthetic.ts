import type { Clock } from '../clock.ts';
import { failure } from '../errors.ts';
import type {
  Engine,
  EngineCall,
  EngineHealth,
  EngineHost,
  EngineInput,
  EngineOutcome,
  EngineProperties,
  EngineSink,
  Usage,
} from './engine.ts';
import {
  aborted,
  contextOverflow,
  failed,
  loadError,
  noFreeSlot,
  notLoaded,
  unsupported,
} from './outcome.ts';
import { StopStrings } from './stop-strings.ts';

/** How the synthetic engine behaves. All times are in milliseconds. */
export interface SyntheticSettings {
  /** @default 0 */
  load_ms: number;
  /** @default 0 */
  first_token_ms: number;
  /** Tokens per second and run; 0 is as fast as it can. @default 0 */
  tokens_per_second: number;
  /** What it claims to hold in memory, in bytes. @default 0 */
  memory_bytes: number;
  /**
   * `load`: loading is refused. `at_token`: the engine crashes when a run would produce token number N, so a
   * run that resumes at N or later goes through. @default 'never'
   */
  fail: 'never' | 'load' | { at_token: number };
}

export interface SyntheticOptions {
  model_id: string;
  slots: number;
  /** Tokens per slot, input and output together. */
  ctx: number;
  settings?: Partial<SyntheticSettings>;
  clock: Clock;
  host: EngineHost;
}

const DEFAULTS: SyntheticSettings = {
  load_ms: 0,
  first_token_ms: 0,
  tokens_per_second: 0,
  memory_bytes: 0,
  fail: 'never',
};

/** Tokens between two turns of the event loop when the engine runs as fast as it can. */
const BATCH = 64;

const BYTES_PER_TOKEN = 4;

type Phase =
  | { name: 'unloaded' }
  | { name: 'loading'; done: Promise<EngineProperties>; stop: () => void }
  | { name: 'ready'; properties: EngineProperties };

/**
 * An engine that makes up ` t0`, ` t1`, … for development and load tests. It calls itself synthetic in
 * everything it reports, and counts one token per four bytes of input.
 */
export function createSyntheticEngine(options: SyntheticOptions): Engine {
  return new SyntheticEngine(options);
}

class SyntheticEngine implements Engine {
  readonly family = 'synthetic';
  readonly clock: Clock;
  readonly settings: SyntheticSettings;
  readonly runs = new Set<SyntheticRun>();
  readonly #options: SyntheticOptions;
  #phase: Phase = { name: 'unloaded' };

  constructor(options: SyntheticOptions) {
    this.#options = options;
    this.clock = options.clock;
    this.settings = { ...DEFAULTS, ...options.settings };
  }

  load(signal: AbortSignal): Promise<EngineProperties> {
    if (this.#phase.name === 'ready') return Promise.resolve(this.#phase.properties);
    if (this.#phase.name === 'loading') return this.#phase.done;
    if (signal.aborted) return Promise.reject(loadError('Loading was aborted.'));
    const { promise, resolve, reject } = Promise.withResolvers<EngineProperties>();
    const end = (next: Phase) => {
      this.clock.clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
      this.#phase = next;
    };
    const refuse = (reason: string) => {
      end({ name: 'unloaded' });
      reject(loadError(reason));
    };
    const onAbort = () => refuse('Loading was aborted.');
    const timer = this.clock.setTimeout(() => {
      if (this.settings.fail === 'load') return refuse('The synthetic engine is set to fail its load.');
      const properties = this.#properties();
      end({ name: 'ready', properties });
      this.#options.host.loading?.(1);
      resolve(properties);
    }, this.settings.load_ms);
    signal.addEventListener('abort', onAbort);
    this.#phase = { name: 'loading', done: promise, stop: () => refuse('Unloaded while loading.') };
    return promise;
  }

  health(): Promise<EngineHealth> {
    if (this.#phase.name === 'unloaded') {
      return Promise.resolve({ live: false, ready: false, message: 'The engine is not loaded.' });
    }
    return Promise.resolve({ live: true, ready: this.#phase.name === 'ready' });
  }

  run(call: EngineCall, sink: EngineSink, signal: AbortSignal): Promise<EngineOutcome> {
    if (this.#phase.name !== 'ready') return Promise.resolve(failed(notLoaded()));
    if (signal.aborted) return Promise.resolve(aborted());
    if (this.runs.size >= this.#options.slots)
      return Promise.resolve(failed(noFreeSlot(this.#options.slots)));
    if (call.output !== undefined) {
      return Promise.resolve(failed(unsupported(call.output.kind, 'the synthetic engine makes up its text')));
    }
    const tokensIn = countTokens(call.input, call.resume?.text ?? '');
    const room = this.#options.ctx - tokensIn;
    if (room < 1) return Promise.resolve(failed(contextOverflow(tokensIn, this.#options.ctx)));
    return new Promise((resolve) => {
      const run = new SyntheticRun(
        this,
        call,
        sink,
        signal,
        tokensIn,
        Math.min(call.max_tokens, room),
        resolve,
      );
      this.runs.add(run);
      run.start();
    });
  }

  count(input: EngineInput): Promise<number | undefined> {
    return Promise.resolve(countTokens(input, ''));
  }

  unload(): Promise<void> {
    if (this.#phase.name === 'loading') this.#phase.stop();
    this.#phase = { name: 'unloaded' };
    for (const run of this.runs) run.settle({ kind: 'aborted', usage: run.usage });
    return Promise.resolve();
  }

  crash(atToken: number): void {
    const message = `The synthetic engine is set to crash at token ${atToken}.`;
    this.#phase = { name: 'unloaded' };
    for (const run of this.runs) run.settle(failed(failure('WORKER_RESET', message), run.usage));
    this.#options.host.lost({ cause: 'crash', message });
  }

  #properties(): EngineProperties {
    return {
      engine_version: 'synthetic-1',
      ctx_max: this.#options.ctx,
      slots_total: this.#options.slots,
      model_id: this.#options.model_id,
      workloads: ['completion'],
      features: { chat: 'rendered', grammar: false, json_schema: false, resume: true, tokenizer: true },
      memory_bytes: this.settings.memory_bytes,
    };
  }
}

class SyntheticRun {
  readonly usage: Usage;
  readonly #engine: SyntheticEngine;
  readonly #sink: EngineSink;
  readonly #signal: AbortSignal;
  readonly #resolve: (outcome: EngineOutcome) => void;
  readonly #stops: StopStrings | undefined;
  readonly #firstDue: number;
  readonly #msPerToken: number;
  readonly #end: number;
  readonly #crashAt: number;
  readonly #start: number;
  #next: number;
  #timer: unknown;

  constructor(
    engine: SyntheticEngine,
    call: EngineCall,
    sink: EngineSink,
    signal: AbortSignal,
    tokensIn: number,
    limit: number,
    resolve: (outcome: EngineOutcome) => void,
  ) {
    const { first_token_ms, tokens_per_second, fail } = engine.settings;
    this.#engine = engine;
    this.#sink = sink;
    this.#signal = signal;
    this.#resolve = resolve;
    this.#start = call.resume?.tokens_out ?? 0;
    this.#next = this.#start;
    this.#end = this.#start + limit;
    this.#crashAt = typeof fail === 'object' && fail.at_token > this.#start ? fail.at_token : Infinity;
    this.#msPerToken = tokens_per_second > 0 ? 1000 / tokens_per_second : 0;
    this.#firstDue = engine.clock.now() + first_token_ms;
    this.#stops = call.sampling?.stop?.length ? new StopStrings(call.sampling.stop) : undefined;
    this.usage = { tokens_in: tokensIn, tokens_cached: 0, tokens_out: 0 };
  }

  start(): void {
    this.#signal.addEventListener('abort', this.#onAbort);
    this.#schedule();
  }

  settle(outcome: EngineOutcome): void {
    if (!this.#engine.runs.delete(this)) return;
    this.#engine.clock.clearTimeout(this.#timer);
    this.#signal.removeEventListener('abort', this.#onAbort);
    this.#resolve(outcome);
  }

  readonly #onAbort = () => this.settle({ kind: 'aborted', usage: this.usage });

  readonly #tick = () => {
    if (!this.#engine.runs.has(this)) return;
    const due =
      this.#msPerToken > 0
        ? this.#start + Math.floor((this.#engine.clock.now() - this.#firstDue) / this.#msPerToken + 1e-9) + 1
        : this.#next + BATCH;
    this.#produce(Math.min(due, this.#end, this.#crashAt));
    if (!this.#engine.runs.has(this)) return;
    if (this.#next >= this.#end) return this.#finish('limit');
    if (this.#next >= this.#crashAt) return this.#engine.crash(this.#crashAt);
    this.#schedule();
  };

  /** A timer while there is time to pass, else the end of the event loop's turn, so that others get theirs. */
  #schedule(): void {
    const wait = this.#firstDue + (this.#next - this.#start) * this.#msPerToken - this.#engine.clock.now();
    if (wait > 0) this.#timer = this.#engine.clock.setTimeout(this.#tick, Math.ceil(wait));
    else setImmediate(this.#tick);
  }

  #produce(until: number): void {
    while (this.#next < until) {
      let text = ` t${this.#next++}`;
      this.usage.tokens_out++;
      const stop = this.#stops?.push(text);
      if (stop !== undefined) text = stop.text;
      this.#sink.delta({ channel: 'text', text, tokens: 1 });
      if (stop?.stopped) return this.#finish('stop');
      // The sink may have ended this very run.
      if (!this.#engine.runs.has(this)) return;
    }
  }

  #finish(reason: 'limit' | 'stop'): void {
    const rest = this.#stops?.flush() ?? '';
    if (rest !== '') this.#sink.delta({ channel: 'text', text: rest, tokens: 0 });
    this.settle({ kind: 'finished', reason, usage: this.usage });
  }
}

function countTokens(input: EngineInput, resumed: string): number {
  let bytes = Buffer.byteLength(resumed);
  if (input.kind === 'prompt') bytes += Buffer.byteLength(input.text);
  else for (const message of input.messages) bytes += Buffer.byteLength(message.content);
  return Math.ceil(bytes / BYTES_PER_TOKEN);
}
