import type { EmbedCall, Engine, EngineCall, EngineProperties, EngineSink } from '../engine.ts';
import { type RunResult, runStream } from '../event-stream.ts';
import type { Upstream } from '../llamacpp/upstream.ts';
import { OpenAiFrames } from '../openai-frames.ts';
import { failed, loadError, unsupported } from '../outcome.ts';
import {
  RemoteEngine,
  type RemoteOptions,
  type RemoteProtocol,
  type RemoteSession,
} from '../remote-engine.ts';
import { DEFAULT_SLOTS, listedModels } from '../remote-models.ts';
import { embedBatches } from '../remote-vectors.ts';
import { RunOutput } from '../run-output.ts';
import { type Abilities, probe } from './probe.ts';
import { type Manners, betterManners, chatBody, completionBody } from './request.ts';

/** Any server that speaks as OpenAI does. What it can do is tried at load, with a token or a few. */
export function createOpenAiEngine(options: RemoteOptions): Engine {
  const protocol: RemoteProtocol = {
    family: 'openai',
    name: 'OpenAI-compatible server',
    // Not everybody has the list.
    health: { path: '/models', ready: [404, 405, 501], starting: [429, 502, 503, 504] },
    attach: (upstream, signal) => attach(upstream, options, signal),
  };
  return new RemoteEngine({ ...options, url: baseOf(options.url) }, protocol);
}

/** As OpenAI's clients take it; an address without a path means `/v1`. */
function baseOf(url: string): string {
  if (!URL.canParse(url)) return url;
  const { origin, pathname } = new URL(url);
  return pathname === '/' ? `${origin}/v1` : url;
}

async function attach(
  upstream: Upstream,
  { model_id, model = model_id, slots = DEFAULT_SLOTS, ctx }: RemoteOptions,
  signal: AbortSignal,
): Promise<RemoteSession> {
  const list = await upstream.get('/models', signal);
  const listed = listedModels(list.kind === 'answer' && list.status === 200 ? list.body : undefined).find(
    ({ id }) => id === model,
  );
  const abilities = await probe(upstream, model, signal);
  const { completions, chat, embeddings, schema } = abilities;
  const completes = completions || chat;
  if (!completes && !embeddings)
    throw loadError(`The server does nothing with "${model}"${because(abilities.refusal)}`);
  const ctx_max = Math.min(ctx ?? Infinity, listed?.ctx ?? Infinity);
  if (!Number.isFinite(ctx_max)) throw loadError('The server does not tell its context; configure ctx.');
  return new OpenAiSession(upstream, model, abilities, {
    engine_version: listed?.owner === undefined ? 'openai-compatible' : `openai-compatible (${listed.owner})`,
    ctx_max,
    slots_total: slots,
    model_id,
    workloads: [
      ...(completes ? (['completion'] as const) : []),
      ...(embeddings ? (['embedding'] as const) : []),
    ],
    features: {
      chat: chat ? 'native' : 'none',
      grammar: false,
      json_schema: schema,
      resume: completions,
      tokenizer: false,
      deterministic: false,
      kv_reuse: false,
    },
  });
}

function because(refusal: string | undefined): string {
  return refusal === undefined ? '.' : `: ${refusal}`;
}

class OpenAiSession implements RemoteSession {
  readonly properties: EngineProperties;
  readonly resumes_chat = false;
  readonly #upstream: Upstream;
  readonly #model: string;
  readonly #completions: boolean;
  #manners: Manners;

  constructor(upstream: Upstream, model: string, abilities: Abilities, properties: EngineProperties) {
    this.properties = properties;
    this.#upstream = upstream;
    this.#model = model;
    this.#completions = abilities.completions;
    this.#manners = abilities.manners;
  }

  async run(call: EngineCall, sink: EngineSink, signal: AbortSignal): Promise<RunResult> {
    const asText = call.input.kind === 'prompt' && this.#completions;
    if (asText && call.output !== undefined) {
      const refused = unsupported(call.output.kind, 'this server keeps to it with messages only');
      return { outcome: failed(refused), broken: false };
    }
    const attempt = (manners: Manners) => {
      const output = new RunOutput(sink, signal, call.max_tokens);
      return runStream(this.#upstream, {
        path: asText ? '/completions' : '/chat/completions',
        body: (asText ? completionBody : chatBody)(call, this.#model, manners),
        correlation_id: call.correlation_id,
        output,
        reader: new OpenAiFrames(output, call.input),
        signal,
      });
    };
    const manners = this.#manners;
    const first = await attempt(manners);
    const { outcome } = first;
    if (outcome.kind !== 'failed' || outcome.failure.code !== 'INVALID_PARAMS') return first;
    // A refusal comes before the first token, so nobody has seen anything of it.
    const better = betterManners(outcome.failure.message, manners);
    if (better === undefined || signal.aborted) return first;
    this.#manners = better;
    return attempt(better);
  }

  embed(
    call: EmbedCall,
    vector: (i: number, vector: readonly number[]) => void,
    signal: AbortSignal,
  ): Promise<RunResult> {
    const { correlation_id } = call;
    const common = {
      upstream: this.#upstream,
      model: this.#model,
      path: '/embeddings',
      correlation_id,
      signal,
    };
    return embedBatches({ ...common, check: () => Promise.resolve() }, call, vector);
  }

  count(): Promise<undefined> {
    return Promise.resolve(undefined);
  }
}
