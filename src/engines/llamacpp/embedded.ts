import { failure } from '../../errors.ts';
import type {
  EmbedCall,
  Engine,
  EngineCall,
  EngineHealth,
  EngineHost,
  EngineInput,
  EngineLoss,
  EngineOutcome,
  EngineProperties,
  EngineSink,
  RerankCall,
  Usage,
} from '../engine.ts';
import { aborted, declined, failed, loadError, noUsage, notLoaded } from '../outcome.ts';
import { constraintRefusal } from '../output-constraint.ts';
import { decodesOneToken } from '../probe.ts';
import { EmbeddedProcess } from './embedded-process.ts';
import type { ChildMessage, EmbeddedModelOptions, ParentMessage } from './embedded-protocol.ts';

export interface EmbeddedLlamaOptions extends EmbeddedModelOptions {
  host: EngineHost;
}

/** Whom a run tells what it makes; one of them, or a delta's sink. */
interface Listener extends Partial<EngineSink> {
  vector?: (i: number, vector: readonly number[]) => void;
  score?: (index: number, score: number) => void;
}

interface Run {
  listener: Listener;
  signal: AbortSignal;
  usage: Usage;
  settle: (outcome: EngineOutcome) => void;
}

type Phase =
  | { name: 'unloaded' }
  | {
      name: 'loading';
      child: EmbeddedProcess;
      done: Promise<EngineProperties>;
      settle: (result: Loaded) => void;
    }
  | { name: 'ready'; child: EmbeddedProcess; properties: EngineProperties }
  | { name: 'unloading'; done: Promise<void> };

type Loaded = { properties: EngineProperties } | { reason: string };

/** llama.cpp inside a child process of ours, which holds one model on `slots` sequences. CPU only. */
export function createEmbeddedLlamaEngine(
  options: EmbeddedLlamaOptions,
): Engine & { readonly pid: number | undefined } {
  return new EmbeddedLlamaEngine(options);
}

class EmbeddedLlamaEngine implements Engine {
  readonly family = 'llamacpp';
  readonly #host: EngineHost;
  readonly #options: EmbeddedModelOptions;
  readonly #runs = new Map<number, Run>();
  readonly #requests = new Map<number, (tokens: number | undefined) => void>();
  #phase: Phase = { name: 'unloaded' };
  #nextId = 1;

  constructor({ host, ...options }: EmbeddedLlamaOptions) {
    this.#host = host;
    this.#options = options;
  }

  /** The child's process id while there is one: for operators and for tests that kill it. */
  get pid(): number | undefined {
    return 'child' in this.#phase ? this.#phase.child.pid : undefined;
  }

  async load(signal: AbortSignal): Promise<EngineProperties> {
    if (this.#phase.name === 'unloading') await this.#phase.done;
    if (this.#phase.name === 'ready') return this.#phase.properties;
    if (this.#phase.name === 'loading') return this.#phase.done;
    if (signal.aborted) throw loadError('Loading was aborted.');

    const { promise: result, resolve: settle } = Promise.withResolvers<Loaded>();
    const child = new EmbeddedProcess(
      (message) => this.#onMessage(message),
      this.#host.output && ((chunk) => this.#host.output?.(chunk)),
    );
    const gone = child.gone.then((loss) => this.#onGone(child, loss));
    const onAbort = () => settle({ reason: 'Loading was aborted.' });
    signal.addEventListener('abort', onAbort);
    const done = result.then(async (loaded) => {
      signal.removeEventListener('abort', onAbort);
      if ('properties' in loaded) {
        this.#phase = { name: 'ready', child, properties: loaded.properties };
        return loaded.properties;
      }
      const ended = gone.then(() => {
        this.#phase = { name: 'unloaded' };
      });
      this.#phase = { name: 'unloading', done: ended };
      child.kill();
      await ended;
      throw loadError(loaded.reason);
    });
    this.#phase = { name: 'loading', child, done, settle };
    child.send({ type: 'load', options: this.#options });
    return done;
  }

  async health(signal: AbortSignal): Promise<EngineHealth> {
    if (this.#phase.name === 'loading') return { live: true, ready: false };
    if (this.#phase.name !== 'ready')
      return { live: false, ready: false, message: 'The engine is not loaded.' };
    const { child } = this.#phase;
    const answered = await this.#ask(signal, (request) => child.send({ type: 'ping', request }));
    if (answered !== undefined) return { live: true, ready: true };
    return { live: false, ready: false, message: 'The engine process does not answer.' };
  }

  async probe(signal: AbortSignal): Promise<boolean> {
    if (this.#phase.name !== 'ready') return false;
    return decodesOneToken(this, this.#phase.properties.workloads, signal);
  }

  run(call: EngineCall, sink: EngineSink, signal: AbortSignal): Promise<EngineOutcome> {
    // What is nested too deep could not even be sent.
    const refusal = call.output && constraintRefusal(call.output);
    if (refusal !== undefined) return Promise.resolve(failed(refusal));
    return this.#start(sink, signal, (run) => ({ type: 'run', run, call }));
  }

  embed(
    call: EmbedCall,
    vector: (i: number, vector: readonly number[]) => void,
    signal: AbortSignal,
  ): Promise<EngineOutcome> {
    return this.#start({ vector }, signal, (run) => ({ type: 'embed', run, call }));
  }

  rerank(
    call: RerankCall,
    score: (index: number, score: number) => void,
    signal: AbortSignal,
  ): Promise<EngineOutcome> {
    return this.#start({ score }, signal, (run) => ({ type: 'rerank', run, call }));
  }

  #start(
    listener: Listener,
    signal: AbortSignal,
    message: (run: number) => ParentMessage,
  ): Promise<EngineOutcome> {
    if (this.#phase.name !== 'ready') return Promise.resolve(declined(notLoaded()));
    if (signal.aborted) return Promise.resolve(aborted());
    const { child } = this.#phase;
    const run = this.#nextId++;
    return new Promise((resolve) => {
      const onAbort = () => child.send({ type: 'abort', run });
      const settle = (outcome: EngineOutcome) => {
        this.#runs.delete(run);
        signal.removeEventListener('abort', onAbort);
        resolve(outcome);
      };
      this.#runs.set(run, { listener, signal, usage: noUsage(), settle });
      signal.addEventListener('abort', onAbort);
      child.send(message(run));
    });
  }

  async count(input: EngineInput, signal: AbortSignal): Promise<number | undefined> {
    if (this.#phase.name !== 'ready') return undefined;
    const { child } = this.#phase;
    const tokens = await this.#ask(signal, (request) => child.send({ type: 'count', request, input }));
    return tokens === UNKNOWN ? undefined : tokens;
  }

  async unload(): Promise<void> {
    switch (this.#phase.name) {
      case 'unloaded':
        return;
      case 'unloading':
        return this.#phase.done;
      case 'loading': {
        const { done, settle } = this.#phase;
        settle({ reason: 'Unloaded while loading.' });
        return done.then(
          () => this.unload(),
          () => undefined,
        );
      }
      case 'ready': {
        const done = this.#phase.child.unload().then(() => {
          this.#phase = { name: 'unloaded' };
        });
        this.#phase = { name: 'unloading', done };
        return done;
      }
    }
  }

  #onMessage(message: ChildMessage): void {
    switch (message.type) {
      case 'deltas':
        for (const [id, text, tokens] of message.deltas) this.#deliver(id, text, tokens);
        return;
      case 'started': {
        const run = this.#runs.get(message.run);
        if (run === undefined) return;
        run.usage.tokens_in = message.tokens_in;
        run.usage.tokens_cached = message.tokens_cached;
        return run.listener.prefilled?.(message.tokens_in, message.tokens_cached);
      }
      case 'progress':
        return this.#runs.get(message.run)?.listener.progress?.(message.done, message.total);
      case 'vector':
        return this.#heard(message.run)?.vector?.(message.i, message.vector);
      case 'score':
        return this.#heard(message.run)?.score?.(message.index, message.score);
      case 'ended':
        return this.#runs.get(message.run)?.settle(message.outcome);
      case 'answer':
        this.#requests.get(message.request)?.(message.tokens ?? UNKNOWN);
        return;
      case 'loading':
        return this.#host.loading?.(message.fraction);
      case 'loaded':
        return this.#settleLoad({ properties: message.properties });
      case 'load-failed':
        return this.#settleLoad({ reason: message.message });
    }
  }

  #deliver(id: number, text: string, tokens: number): void {
    const run = this.#runs.get(id);
    if (run === undefined) return;
    run.usage.tokens_out += tokens;
    this.#heard(id)?.delta?.({ channel: 'text', text, tokens });
  }

  /** What was under way when the caller aborted is no longer wanted. */
  #heard(id: number): Listener | undefined {
    const run = this.#runs.get(id);
    return run?.signal.aborted ? undefined : run?.listener;
  }

  #settleLoad(result: Loaded): void {
    if (this.#phase.name === 'loading') this.#phase.settle(result);
  }

  #onGone(child: EmbeddedProcess, loss: EngineLoss): void {
    const { name } = this.#phase;
    for (const answer of this.#requests.values()) answer(undefined);
    for (const run of this.#runs.values()) {
      if (name === 'ready') run.settle(failed(failure('WORKER_RESET', loss.message), run.usage));
      else run.settle(aborted(run.usage));
    }
    if (this.#phase.name === 'loading') return this.#phase.settle({ reason: loss.message });
    if (this.#phase.name !== 'ready' || this.#phase.child !== child) return;
    this.#phase = { name: 'unloaded' };
    this.#host.lost(loss);
  }

  /** @returns what the child answered; undefined when it is gone or the caller lost patience. */
  #ask(signal: AbortSignal, send: (request: number) => void): Promise<number | undefined> {
    if (signal.aborted) return Promise.resolve(undefined);
    const request = this.#nextId++;
    return new Promise((resolve) => {
      const answer = (tokens: number | undefined) => {
        this.#requests.delete(request);
        signal.removeEventListener('abort', onAbort);
        resolve(tokens);
      };
      const onAbort = () => answer(undefined);
      this.#requests.set(request, answer);
      signal.addEventListener('abort', onAbort);
      send(request);
    });
  }
}

/** The child answered, but there was nothing to count. */
const UNKNOWN = -1;
