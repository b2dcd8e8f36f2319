import type { Clock } from '../clock.ts';
import { failure } from '../errors.ts';
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
} from './engine.ts';
import {
  aborted,
  contextOverflow,
  declined,
  emptyInput,
  failed,
  inputOverflow,
  loadError,
  noFreeSlot,
  notLoaded,
  unsupported,
} from './outcome.ts';
import { syntheticScore, syntheticVector } from './synthetic-likeness.ts';
import {
  type SyntheticOwner,
  SyntheticRun,
  type SyntheticSettings,
  type SyntheticWork,
  syntheticResults,
  syntheticText,
} from './synthetic-run.ts';
import { ranked } from './vectors.ts';

export type { SyntheticSettings };

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

const BYTES_PER_TOKEN = 4;

type Phase =
  | { name: 'unloaded' }
  | { name: 'loading'; done: Promise<EngineProperties>; stop: () => void }
  | { name: 'ready'; properties: EngineProperties };

/**
 * An engine that makes up ` t0`, ` t1`, …, vectors and scores, for development and load tests. It calls itself
 * synthetic in everything it reports, and counts one token per four bytes of input.
 */
export function createSyntheticEngine(options: SyntheticOptions): Engine {
  return new SyntheticEngine(options);
}

class SyntheticEngine implements Engine, SyntheticOwner {
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
    return this.#start(signal, () => {
      if (call.output !== undefined)
        return failed(unsupported(call.output.kind, 'the synthetic engine makes up its text'));
      const tokensIn = countTokens(call.input, call.resume?.text ?? '');
      const room = this.#options.ctx - tokensIn;
      if (room < 1) return failed(contextOverflow(tokensIn, this.#options.ctx));
      sink.prefilled?.(tokensIn, 0);
      return syntheticText(call, sink, tokensIn, Math.min(call.max_tokens, room));
    });
  }

  embed(
    call: EmbedCall,
    vector: (i: number, vector: readonly number[]) => void,
    signal: AbortSignal,
  ): Promise<EngineOutcome> {
    return this.#start(signal, () => {
      const tokens = call.inputs.map((input) => tokensOf(input));
      const empty = tokens.indexOf(0);
      if (empty >= 0) return failed(emptyInput(empty));
      return (
        this.#overflow(tokens) ??
        syntheticResults(call.inputs, sum(tokens), (input, i) => vector(i, syntheticVector(input)))
      );
    });
  }

  rerank(
    call: RerankCall,
    score: (index: number, score: number) => void,
    signal: AbortSignal,
  ): Promise<EngineOutcome> {
    return this.#start(signal, () => {
      const tokens = call.documents.map((document) => tokensOf(call.query, document));
      const scores = call.documents.map((document) => syntheticScore(call.query, document));
      return (
        this.#overflow(tokens) ??
        syntheticResults(ranked(scores), sum(tokens), (best) => score(best.index, best.score))
      );
    });
  }

  #start(signal: AbortSignal, prepare: () => SyntheticWork | EngineOutcome): Promise<EngineOutcome> {
    const { slots } = this.#options;
    if (this.#phase.name !== 'ready') return Promise.resolve(declined(notLoaded()));
    if (signal.aborted) return Promise.resolve(aborted());
    if (this.runs.size >= slots) return Promise.resolve(failed(noFreeSlot(slots)));
    const work = prepare();
    if ('kind' in work) return Promise.resolve(work);
    return new Promise((resolve) => {
      const run = new SyntheticRun(this, work, signal, resolve);
      this.runs.add(run);
      run.start();
    });
  }

  #overflow(tokens: readonly number[]): EngineOutcome | undefined {
    const i = tokens.findIndex((count) => count > this.#options.ctx);
    return i < 0 ? undefined : failed(inputOverflow(i, tokens[i] as number, this.#options.ctx));
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
      workloads: ['completion', 'embedding', 'rerank'],
      features: {
        chat: 'rendered',
        grammar: false,
        json_schema: false,
        resume: true,
        tokenizer: true,
        deterministic: true,
        kv_reuse: false,
      },
      memory_bytes: this.settings.memory_bytes,
    };
  }
}

function countTokens(input: EngineInput, resumed: string): number {
  if (input.kind === 'prompt') return tokensOf(input.text, resumed);
  return tokensOf(...input.messages.map((message) => message.content), resumed);
}

function tokensOf(...texts: string[]): number {
  return Math.ceil(sum(texts.map((text) => Buffer.byteLength(text))) / BYTES_PER_TOKEN);
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}
