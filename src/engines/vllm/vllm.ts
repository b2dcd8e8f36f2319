import { TaskchartError } from '../../errors.ts';
import type {
  EmbedCall,
  Engine,
  EngineCall,
  EngineInput,
  EngineProperties,
  EngineSink,
  RerankCall,
} from '../engine.ts';
import { type RunResult, runStream } from '../event-stream.ts';
import { type Upstream, answered } from '../llamacpp/upstream.ts';
import { OpenAiFrames } from '../openai-frames.ts';
import { contextOverflow, failed, inputOverflow, loadError } from '../outcome.ts';
import {
  RemoteEngine,
  type RemoteOptions,
  type RemoteProtocol,
  type RemoteSession,
} from '../remote-engine.ts';
import { embedBatches, rerankBatches } from '../remote-vectors.ts';
import { DEFAULT_SLOTS, listedModels } from '../remote-models.ts';
import { RunOutput } from '../run-output.ts';
import { mostTokens } from '../token-bound.ts';
import { chatFields, generateRequest } from './request.ts';

/** A vLLM server that somebody else runs, over its OpenAI-compatible API and what it has beside it. */
export function createVllmEngine(options: RemoteOptions): Engine {
  const protocol: RemoteProtocol = {
    family: 'vllm',
    name: 'vLLM',
    // While it loads nobody listens; 503 is an engine that died, whose server is about to go too.
    health: { path: '/health', starting: [503] },
    attach: (upstream, signal) => attach(upstream, options, signal),
  };
  // Its own paths stand beside `/v1`, so the base is what comes before.
  return new RemoteEngine({ ...options, url: options.url.replace(/\/v1\/*$/u, '') }, protocol);
}

async function attach(
  upstream: Upstream,
  { model_id, model = model_id, slots = DEFAULT_SLOTS, ctx }: RemoteOptions,
  signal: AbortSignal,
): Promise<RemoteSession> {
  const { version } = answered(await upstream.get('/version', signal)) as { version?: string };
  if (version === undefined) throw loadError('No vLLM there: GET /version does not tell a version.');
  const models = listedModels(answered(await upstream.get('/v1/models', signal)));
  const listed = models.find(({ id }) => id === model);
  if (listed === undefined) {
    const names = models.map(({ id }) => `"${id}"`).join(', ');
    throw loadError(`The server has no model "${model}", it has ${names || 'none'}.`);
  }
  const tokenized = await upstream.post('/tokenize', { model, prompt: 'a' }, signal);
  const tokenizer = tokenized.kind === 'answer' && tokenized.status === 200;
  const told =
    listed.ctx ?? (tokenizer ? (tokenized.body as { max_model_len?: number }).max_model_len : undefined);
  const ctx_max = Math.min(ctx ?? Infinity, told ?? Infinity);
  if (!Number.isFinite(ctx_max)) throw loadError('The server does not tell its context; configure ctx.');
  const workloads = await probeWorkloads(upstream, model, signal);
  const completes = workloads.includes('completion');
  const template = completes && tokenizer && (await hasTemplate(upstream, model, signal));
  return new VllmSession(upstream, model, version, {
    engine_version: `vllm-${version}`,
    ctx_max,
    slots_total: slots,
    model_id,
    workloads,
    features: {
      chat: template ? 'native' : 'none',
      grammar: completes,
      json_schema: completes,
      resume: completes,
      tokenizer,
      deterministic: false,
      kv_reuse: completes,
    },
  });
}

/** What the model was started for shows only in use; a model that writes does not embed, and the other way round. */
async function probeWorkloads(
  upstream: Upstream,
  model: string,
  signal: AbortSignal,
): Promise<EngineProperties['workloads']> {
  const works = async (path: string, body: object) => {
    const answer = await upstream.work(path, { model, ...body }, signal);
    // Without an answer, or with one that says to come back later, nothing is known.
    if (answer.kind === 'unreachable' || [401, 403, 429, 503].includes(answer.status)) answered(answer);
    return answer.kind === 'answer' && answer.status === 200;
  };
  if (await works('/v1/completions', { prompt: 'a', max_tokens: 1, temperature: 0 })) return ['completion'];
  const embeds = await works('/v1/embeddings', { input: 'a' });
  const ranks = await works('/rerank', { query: 'a', documents: ['a'] });
  if (!embeds && !ranks)
    throw loadError(`The server neither completes nor embeds nor ranks with "${model}".`);
  return [...(embeds ? (['embedding'] as const) : []), ...(ranks ? (['rerank'] as const) : [])];
}

async function hasTemplate(upstream: Upstream, model: string, signal: AbortSignal): Promise<boolean> {
  const body = { model, messages: [{ role: 'user', content: 'a' }] };
  const answer = await upstream.post('/tokenize', body, signal);
  return answer.kind === 'answer' && answer.status === 200;
}

class VllmSession implements RemoteSession {
  readonly properties: EngineProperties;
  readonly resumes_chat = true;
  readonly #upstream: Upstream;
  readonly #model: string;
  readonly #version: string;

  constructor(upstream: Upstream, model: string, version: string, properties: EngineProperties) {
    this.properties = properties;
    this.#upstream = upstream;
    this.#model = model;
    this.#version = version;
  }

  async run(call: EngineCall, sink: EngineSink, signal: AbortSignal): Promise<RunResult> {
    const { ctx_max } = this.properties;
    let { max_tokens } = call;
    // The server refuses what would pass the context, even where the output would have ended long before.
    const most = mostTokens(call.input) + Buffer.byteLength(call.resume?.text ?? '');
    const tokens = most + max_tokens > ctx_max ? await this.#count(call, signal) : undefined;
    if (tokens !== undefined) {
      if (tokens >= ctx_max) return { outcome: failed(contextOverflow(tokens, ctx_max)), broken: false };
      max_tokens = Math.min(max_tokens, ctx_max - tokens);
    }
    const output = new RunOutput(sink, signal, max_tokens);
    return runStream(this.#upstream, {
      ...generateRequest(call, this.#model, max_tokens, this.#version),
      correlation_id: call.correlation_id,
      output,
      reader: new OpenAiFrames(output, call.input),
      signal,
    });
  }

  embed(
    call: EmbedCall,
    vector: (i: number, vector: readonly number[]) => void,
    signal: AbortSignal,
  ): Promise<RunResult> {
    return embedBatches({ ...this.#batches('/v1/embeddings', call, signal) }, call, vector);
  }

  rerank(
    call: RerankCall,
    score: (index: number, score: number) => void,
    signal: AbortSignal,
  ): Promise<RunResult> {
    return rerankBatches({ ...this.#batches('/rerank', call, signal) }, call, score);
  }

  count(input: EngineInput, signal: AbortSignal): Promise<number | undefined> {
    return this.#count({ input }, signal);
  }

  #batches(path: string, { correlation_id }: { correlation_id?: string }, signal: AbortSignal) {
    const check = async (text: string, i: number): Promise<void> => {
      const { ctx_max } = this.properties;
      const input: EngineInput = { kind: 'prompt', text };
      if (mostTokens(input) <= ctx_max) return;
      const tokens = await this.#count({ input }, signal);
      if (tokens !== undefined && tokens > ctx_max)
        throw new TaskchartError(inputOverflow(i, tokens, ctx_max));
    };
    return { upstream: this.#upstream, model: this.#model, path, correlation_id, check, signal };
  }

  /** @returns undefined where the server has no tokenizer to offer @throws TaskchartError where it does not answer */
  async #count(call: Pick<EngineCall, 'input' | 'resume'>, signal: AbortSignal): Promise<number | undefined> {
    if (!this.properties.features.tokenizer) return undefined;
    const { input, resume } = call;
    const body =
      input.kind === 'prompt'
        ? { prompt: input.text + (resume?.text ?? ''), add_special_tokens: true }
        : chatFields(call);
    const answer = answered(await this.#upstream.post('/tokenize', { model: this.#model, ...body }, signal));
    return (answer as { count?: number }).count;
  }
}
