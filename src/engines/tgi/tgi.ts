import { failure } from '../../errors.ts';
import type { Engine, EngineCall, EngineInput, EngineProperties, EngineSink } from '../engine.ts';
import { type RunResult, runStream } from '../event-stream.ts';
import { type Upstream, answered } from '../llamacpp/upstream.ts';
import { OpenAiFrames } from '../openai-frames.ts';
import { contextOverflow, failed, loadError } from '../outcome.ts';
import {
  RemoteEngine,
  type RemoteOptions,
  type RemoteProtocol,
  type RemoteSession,
} from '../remote-engine.ts';
import { DEFAULT_SLOTS } from '../remote-models.ts';
import { RunOutput } from '../run-output.ts';
import { estimatedTokens, mostTokens } from '../token-bound.ts';
import { TgiFrames } from './frames.ts';
import { chatBody, generateBody } from './request.ts';

/** What the answer of `GET /info` has for us. */
interface Info {
  model_id?: string;
  version?: string;
  max_concurrent_requests?: number;
  max_stop_sequences?: number;
  max_input_tokens?: number;
  /** Older name of the same. */
  max_input_length?: number;
  max_total_tokens?: number;
}

/** The launcher's default. */
const MAX_STOPS = 4;

/** A text-generation-inference server that somebody else runs. */
export function createTgiEngine(options: RemoteOptions): Engine {
  const protocol: RemoteProtocol = {
    family: 'tgi',
    name: 'text-generation-inference',
    health: { path: '/health', starting: [503] },
    attach: (upstream, signal) => attach(upstream, options, signal),
  };
  return new RemoteEngine(options, protocol);
}

async function attach(
  upstream: Upstream,
  { model_id, model, slots = DEFAULT_SLOTS, ctx }: RemoteOptions,
  signal: AbortSignal,
): Promise<RemoteSession> {
  const info = answered(await upstream.get('/info', signal)) as Info;
  const { max_total_tokens: total, max_input_tokens: input = info.max_input_length } = info;
  if (typeof total !== 'number' || typeof input !== 'number')
    throw loadError('No text-generation-inference there: GET /info does not tell its limits.');
  // A server has one model and does not look at names, so one that is named has to be the one.
  if (model !== undefined && info.model_id !== undefined && model !== info.model_id)
    throw loadError(`The server has the model "${info.model_id}", not "${model}".`);
  const tokenized = await upstream.post('/tokenize', { inputs: 'a' }, signal);
  // The key is asked for here first.
  if (tokenized.kind === 'unreachable' || tokenized.status === 401) answered(tokenized);
  const tokenizer = tokenized.kind === 'answer' && tokenized.status === 200;
  const messages = [{ role: 'user', content: 'a' }];
  const templated = await upstream.post('/chat_tokenize', { model: 'tgi', messages }, signal);
  return new TgiSession(
    upstream,
    { input, stops: info.max_stop_sequences ?? MAX_STOPS },
    {
      engine_version: `tgi-${info.version ?? 'unknown'}`,
      ctx_max: Math.min(ctx ?? Infinity, total),
      slots_total: Math.min(slots, info.max_concurrent_requests ?? slots),
      model_id,
      workloads: ['completion'],
      features: {
        chat: templated.kind === 'answer' && templated.status === 200 ? 'native' : 'none',
        // Its grammars are JSON schemas and regular expressions.
        grammar: false,
        json_schema: true,
        resume: true,
        tokenizer,
        deterministic: false,
        kv_reuse: Number(/^\d+/u.exec(info.version ?? '')?.[0]) >= 3,
      },
    },
  );
}

class TgiSession implements RemoteSession {
  readonly properties: EngineProperties;
  readonly resumes_chat = false;
  readonly #upstream: Upstream;
  readonly #limits: { input: number; stops: number };

  constructor(upstream: Upstream, limits: { input: number; stops: number }, properties: EngineProperties) {
    this.properties = properties;
    this.#upstream = upstream;
    this.#limits = limits;
  }

  async run(call: EngineCall, sink: EngineSink, signal: AbortSignal): Promise<RunResult> {
    const { ctx_max } = this.properties;
    const { input: most_in, stops } = this.#limits;
    const { input } = call;
    let { max_tokens } = call;
    const most = mostTokens(input) + Buffer.byteLength(call.resume?.text ?? '');
    // The server refuses what would pass the context, even where the output would have ended long before.
    if (most + max_tokens > ctx_max || most > most_in) {
      const tokens = await this.#count(call, signal);
      if (tokens !== undefined) {
        if (tokens >= ctx_max) return { outcome: failed(contextOverflow(tokens, ctx_max)), broken: false };
        if (tokens > most_in)
          return { outcome: failed(inputTooLong(tokens, most_in, ctx_max)), broken: false };
        max_tokens = Math.min(max_tokens, ctx_max - tokens);
      }
    }
    // Stop strings are part of what TGI streams.
    const output = new RunOutput(sink, signal, max_tokens, call.sampling?.stop);
    const common = { correlation_id: call.correlation_id, output, signal };
    if (input.kind === 'chat') {
      return runStream(this.#upstream, {
        ...common,
        path: '/v1/chat/completions',
        body: chatBody(call, max_tokens, stops),
        reader: new OpenAiFrames(output, input),
      });
    }
    return runStream(this.#upstream, {
      ...common,
      path: '/generate_stream',
      body: generateBody(call, max_tokens, stops),
      reader: new TgiFrames(output, estimatedTokens(input)),
    });
  }

  count(input: EngineInput, signal: AbortSignal): Promise<number | undefined> {
    return this.#count({ input }, signal);
  }

  /** @returns undefined where the server has no tokenizer to offer @throws TaskchartError where it does not answer */
  async #count(
    { input, resume }: Pick<EngineCall, 'input' | 'resume'>,
    signal: AbortSignal,
  ): Promise<number | undefined> {
    if (!this.properties.features.tokenizer) return undefined;
    if (input.kind === 'prompt') {
      const inputs = input.text + (resume?.text ?? '');
      const tokens = answered(await this.#upstream.post('/tokenize', { inputs }, signal));
      return Array.isArray(tokens) ? tokens.length : undefined;
    }
    const body = { model: 'tgi', messages: input.messages };
    const { tokenize_response: tokens } = answered(
      await this.#upstream.post('/chat_tokenize', body, signal),
    ) as { tokenize_response?: unknown[] };
    return tokens?.length;
  }
}

function inputTooLong(tokens: number, most: number, ctxMax: number) {
  return failure(
    'INVALID_PARAMS',
    `The input is ${tokens} tokens; the engine takes ${most}, and its context holds ${ctxMax}.`,
  );
}
