import type { Engine, EngineCall, EngineProperties, EngineSink } from '../engine.ts';
import { type RunResult, runStream } from '../event-stream.ts';
import { type Upstream, answered } from '../llamacpp/upstream.ts';
import { loadError } from '../outcome.ts';
import {
  RemoteEngine,
  type RemoteOptions,
  type RemoteProtocol,
  type RemoteSession,
} from '../remote-engine.ts';
import { DEFAULT_SLOTS } from '../remote-models.ts';
import { RunOutput } from '../run-output.ts';
import { TritonFrames } from './frames.ts';
import { TritonInputs } from './inputs.ts';

interface Tensor {
  name: string;
}

/** What the answer of `GET /v2/models/<model>/config` has for us. */
interface ModelConfig {
  input?: Tensor[];
  model_transaction_policy?: { decoupled?: boolean };
  parameters?: Record<string, { string_value?: string }>;
}

/**
 * A Triton server that somebody else runs, over its generate extension: a model of the vLLM backend or of
 * TensorRT-LLM. It tells neither its context nor a token count, so `ctx` has to be given.
 */
export function createTritonEngine(options: RemoteOptions): Engine {
  const path = `/v2/models/${encodeURIComponent(options.model ?? options.model_id)}`;
  const protocol: RemoteProtocol = {
    family: 'triton',
    name: 'Triton',
    // 400 is "not ready", of the server and of a model.
    health: { path: `${path}/ready`, starting: [400, 503] },
    attach: (upstream, signal) => attach(upstream, options, path, signal),
  };
  return new RemoteEngine(options, protocol);
}

async function attach(
  upstream: Upstream,
  { model_id, model = model_id, slots = DEFAULT_SLOTS, ctx }: RemoteOptions,
  path: string,
  signal: AbortSignal,
): Promise<RemoteSession> {
  if (ctx === undefined) throw loadError('The server does not tell its context; configure ctx.');
  const server = answered(await upstream.get('/v2', signal)) as { version?: string };
  const { inputs } = answered(await upstream.get(path, signal)) as { inputs?: Tensor[] };
  const configured = await upstream.get(`${path}/config`, signal);
  // An operator may have closed it; the metadata has what is needed.
  const config = (
    configured.kind === 'answer' && configured.status === 200 ? configured.body : {}
  ) as ModelConfig;
  const declared = (inputs ?? config.input ?? []).map(({ name }) => name);
  const takes = new TritonInputs(model, declared);
  if (config.model_transaction_policy?.decoupled === false)
    throw loadError(`The model "${model}" cannot stream: its transaction policy is not decoupled.`);
  return new TritonSession(upstream, `${path}/generate_stream`, takes, {
    engine_version: `triton-${server.version ?? 'unknown'}${backendVersion(takes.flavour, config)}`,
    ctx_max: ctx,
    slots_total: slots,
    model_id,
    workloads: ['completion'],
    features: {
      chat: 'none',
      grammar: false,
      json_schema: false,
      resume: true,
      tokenizer: false,
      deterministic: false,
      kv_reuse: false,
    },
  });
}

/** `+vllm` or `+trtllm`, with the version where the model's parameters tell it. */
function backendVersion(flavour: string, { parameters = {} }: ModelConfig): string {
  const told = Object.entries(parameters).find(([name]) => /(trt|tensorrt|vllm).*version/iu.test(name));
  const version = told?.[1].string_value;
  return version === undefined ? `+${flavour}` : `+${flavour}-${version}`;
}

class TritonSession implements RemoteSession {
  readonly properties: EngineProperties;
  readonly resumes_chat = false;
  readonly #upstream: Upstream;
  readonly #path: string;
  readonly #inputs: TritonInputs;

  constructor(upstream: Upstream, path: string, inputs: TritonInputs, properties: EngineProperties) {
    this.properties = properties;
    this.#upstream = upstream;
    this.#path = path;
    this.#inputs = inputs;
  }

  run(call: EngineCall, sink: EngineSink, signal: AbortSignal): Promise<RunResult> {
    const body = this.#inputs.body(call);
    // TensorRT-LLM lets stop strings through, the end of a run with them.
    const output = new RunOutput(sink, signal, call.max_tokens, call.sampling?.stop);
    return runStream(this.#upstream, {
      path: this.#path,
      body,
      correlation_id: call.correlation_id,
      output,
      reader: new TritonFrames(output, call.input, call.max_tokens, this.#inputs.tellsReason),
      signal,
    });
  }

  count(): Promise<undefined> {
    return Promise.resolve(undefined);
  }
}
