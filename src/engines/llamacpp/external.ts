import type { Clock } from '../../clock.ts';
import { type Failure, TaskchartError } from '../../errors.ts';
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
} from '../engine.ts';
import { aborted, declined, failed, givenUp, loadError, notLoaded, unsupported } from '../outcome.ts';
import { constraintRefusal } from '../output-constraint.ts';
import { decodesOneToken } from '../probe.ts';
import { completionBody } from './completion-request.ts';
import { type CompletionResult, CompletionStream } from './completion-stream.ts';
import { inspect } from './external-properties.ts';
import { type VectorsResult, embedOver, rerankOver } from './external-vectors.ts';
import { Upstream, answered, connectionFailure, isRefused, mayComeUp } from './upstream.ts';

/** How often a server that is loading, or not there yet, is asked again, in milliseconds. */
const POLL_MS = 100;

export interface ExternalLlamaOptions {
  /** Where the running llama-server answers, with its `--api-prefix` if it has one. */
  url: string;
  /** @default what the server calls its model */
  model_id?: string;
  /** Sent as a bearer token. */
  api_key?: string;
  /**
   * Let the server reuse the KV cache of a common prefix. A partial hit may change sampled output, so calls that are
   * `cold` go without. @default true
   */
  reuse_prefix?: boolean;
  clock: Clock;
  host: EngineHost;
}

type Phase =
  | { name: 'unloaded' }
  | { name: 'loading'; upstream: Upstream; done: Promise<EngineProperties>; stop: AbortController }
  | Ready;

interface Ready {
  name: 'ready';
  upstream: Upstream;
  properties: EngineProperties;
  runs: AbortController;
  /** Whether the server is still there is being found out. */
  check?: Promise<void> | undefined;
}

/** A llama-server that somebody else runs, over its native HTTP API. */
export function createExternalLlamaEngine(options: ExternalLlamaOptions): Engine {
  return new ExternalLlamaEngine(options);
}

class ExternalLlamaEngine implements Engine {
  readonly family = 'llamacpp';
  readonly #options: ExternalLlamaOptions;
  #phase: Phase = { name: 'unloaded' };

  constructor(options: ExternalLlamaOptions) {
    this.#options = options;
  }

  async load(signal: AbortSignal): Promise<EngineProperties> {
    if (this.#phase.name === 'ready') return this.#phase.properties;
    if (this.#phase.name === 'loading') return this.#phase.done;
    const upstream = this.#connect();
    const stop = new AbortController();
    const done = this.#attach(upstream, AbortSignal.any([signal, stop.signal])).then(
      (properties) => {
        this.#phase = { name: 'ready', upstream, properties, runs: new AbortController() };
        return properties;
      },
      async (error: unknown) => {
        this.#phase = { name: 'unloaded' };
        await upstream.agent.destroy();
        throw error;
      },
    );
    this.#phase = { name: 'loading', upstream, done, stop };
    return done;
  }

  async health(signal: AbortSignal): Promise<EngineHealth> {
    if (this.#phase.name === 'unloaded')
      return { live: false, ready: false, message: 'The engine is not loaded.' };
    const answer = await this.#phase.upstream.get('/health', signal);
    if (answer.kind === 'answer') return { live: true, ready: answer.status === 200 };
    return { live: false, ready: false, message: connectionFailure(answer.error, false).message };
  }

  async probe(signal: AbortSignal): Promise<boolean> {
    if (this.#phase.name !== 'ready') return false;
    return decodesOneToken(this, this.#phase.properties.workloads, signal);
  }

  async run(call: EngineCall, sink: EngineSink, signal: AbortSignal): Promise<EngineOutcome> {
    const phase = await this.#ready();
    if (!phase) return declined(notLoaded());
    if (signal.aborted) return aborted();
    const { upstream, runs, properties } = phase;
    if (!properties.workloads.includes('completion')) return failed(notOffered('completion'));
    if (call.output !== undefined && call.resume !== undefined) {
      return failed(unsupported(call.output.kind, 'a constrained run cannot resume'));
    }
    const refusal = call.output && constraintRefusal(call.output);
    if (refusal !== undefined) return failed(refusal);
    const either = AbortSignal.any([signal, runs.signal]);
    try {
      const prompt = (await this.#render(upstream, call.input, either)) + (call.resume?.text ?? '');
      const body = JSON.stringify(completionBody(call, prompt, this.#options.reuse_prefix ?? true));
      const { outcome, broken } = await complete(upstream, body, call, sink, either);
      if (broken) await this.#check(phase);
      return outcome;
    } catch (error) {
      if (either.aborted) return aborted();
      await this.#check(phase);
      return givenUp(error);
    }
  }

  embed(
    call: EmbedCall,
    vector: (i: number, vector: readonly number[]) => void,
    signal: AbortSignal,
  ): Promise<EngineOutcome> {
    return this.#vectors('embedding', signal, (upstream, ctx, either) =>
      embedOver(upstream, call, ctx, vector, either),
    );
  }

  rerank(
    call: RerankCall,
    score: (index: number, score: number) => void,
    signal: AbortSignal,
  ): Promise<EngineOutcome> {
    return this.#vectors('rerank', signal, (upstream, _ctx, either) =>
      rerankOver(upstream, call, score, either),
    );
  }

  async #vectors(
    workload: 'embedding' | 'rerank',
    signal: AbortSignal,
    work: (upstream: Upstream, ctxMax: number, signal: AbortSignal) => Promise<VectorsResult>,
  ): Promise<EngineOutcome> {
    const phase = await this.#ready();
    if (!phase) return declined(notLoaded());
    if (signal.aborted) return aborted();
    const { upstream, properties, runs } = phase;
    if (!properties.workloads.includes(workload)) return failed(notOffered(workload));
    const either = AbortSignal.any([signal, runs.signal]);
    const { outcome, broken } = await work(upstream, properties.ctx_max, either);
    if (broken) await this.#check(phase);
    return outcome;
  }

  async count(input: EngineInput, signal: AbortSignal): Promise<number | undefined> {
    if (this.#phase.name !== 'ready') return undefined;
    const { upstream } = this.#phase;
    try {
      const content = await this.#render(upstream, input, signal);
      const body = answered(
        await upstream.post('/tokenize', { content, add_special: true, parse_special: true }, signal),
      );
      return (body as { tokens?: unknown[] }).tokens?.length;
    } catch {
      return undefined;
    }
  }

  async unload(): Promise<void> {
    const phase = this.#phase;
    if (phase.name === 'unloaded') return;
    if (phase.name === 'loading') {
      phase.stop.abort();
      return void (await phase.done.catch(() => undefined));
    }
    this.#phase = { name: 'unloaded' };
    phase.runs.abort();
    await phase.upstream.agent.destroy();
  }

  #connect(): Upstream {
    try {
      return new Upstream(this.#options.url, this.#options.api_key);
    } catch {
      throw loadError('The engine URL cannot be read.', 'INVALID_PARAMS');
    }
  }

  async #attach(upstream: Upstream, signal: AbortSignal): Promise<EngineProperties> {
    for (;;) {
      const answer = await upstream.get('/health', signal);
      if (signal.aborted) throw loadError('Loading was aborted.');
      if (answer.kind === 'answer') {
        if (answer.status === 200) break;
        if (answer.status !== 503)
          throw loadError(`No llama-server there: GET /health answered ${answer.status}.`);
        this.#options.host.waiting?.('The engine is loading its model.');
      } else if (!mayComeUp(answer.error)) {
        throw loadError(connectionFailure(answer.error, false).message);
      } else {
        this.#options.host.waiting?.(connectionFailure(answer.error, false).message);
      }
      await pause(this.#options.clock, POLL_MS, signal);
    }
    try {
      return await inspect(upstream, this.#options, signal);
    } catch (error) {
      throw signal.aborted ? loadError('Loading was aborted.') : error;
    }
  }

  /** The input as one text. Messages go through the server's own template. */
  async #render(upstream: Upstream, input: EngineInput, signal: AbortSignal): Promise<string> {
    if (input.kind === 'prompt') return input.text;
    if (this.#phase.name === 'ready' && this.#phase.properties.features.chat === 'none') {
      throw new TaskchartError(unsupported('messages', 'the model has no chat template'));
    }
    const body = answered(await upstream.post('/apply-template', { messages: input.messages }, signal));
    return (body as { prompt: string }).prompt;
  }

  /** Undefined where it is not loaded; nobody begins while it is open whether the server is still there. */
  async #ready(): Promise<Ready | undefined> {
    const phase = this.#phase;
    if (phase.name !== 'ready') return undefined;
    if (phase.check) await phase.check;
    return this.#phase === phase ? phase : undefined;
  }

  /**
   * After a broken connection: a server that is still there has lost a stream, one that is not is lost. A run that
   * broke ends only after that, so that its slot is not given to the next one before the loss is known.
   */
  #check(phase: Ready): Promise<void> {
    return (phase.check ??= this.#probe(phase).finally(() => {
      phase.check = undefined;
    }));
  }

  async #probe(phase: Ready): Promise<void> {
    const { upstream } = phase;
    const answer = await upstream.get('/health', AbortSignal.timeout(POLL_MS * 50));
    if (answer.kind === 'answer' || !isRefused(answer.error)) return;
    if (this.#phase !== phase) return;
    // Streams that have not noticed yet break here, and wait for this as well.
    await upstream.agent.destroy();
    if (this.#phase !== phase) return;
    this.#phase = { name: 'unloaded' };
    this.#options.host.lost({
      cause: 'unreachable',
      message: connectionFailure(answer.error, false).message,
    });
  }
}

async function complete(
  upstream: Upstream,
  body: string,
  call: EngineCall,
  sink: EngineSink,
  signal: AbortSignal,
): Promise<CompletionResult> {
  const stream = new CompletionStream(sink, signal);
  const correlation: Record<string, string> =
    call.correlation_id === undefined ? {} : { 'x-correlation-id': call.correlation_id };
  upstream.agent.dispatch(
    {
      origin: upstream.origin,
      path: upstream.path('/completion'),
      method: 'POST',
      headers: upstream.headers(correlation),
      body,
      reset: true,
    },
    stream,
  );
  return stream.result;
}

function notOffered(workload: string): Failure {
  return unsupported(workload, 'the server was not started for it, or its model is not made for it');
}

function pause(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clock.clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = clock.setTimeout(done, ms);
    signal.addEventListener('abort', done);
  });
}
