/** A Triton server without a model: the real wire of its generate extension, and faults on demand. */
import {
  type Asked,
  type FakeEngine,
  type FakeEngineOptions,
  type Reply,
  ok,
  runFake,
  startFakeEngine,
} from './fake-engine.ts';
import { countTokens } from './fake-engine-texts.ts';

export interface FakeTritonOptions extends FakeEngineOptions {
  /** @default 'story' */
  model?: string;
  /** Who stands behind the model. @default 'vllm' */
  backend?: 'vllm' | 'trtllm' | 'llmapi';
  /** Inputs of the model instead of those of its backend. */
  inputs?: readonly string[];
  /** @default true */
  decoupled?: boolean;
  /** Whether `/config` is open. @default true */
  config?: boolean;
}

const INPUTS: Record<string, readonly string[]> = {
  vllm: [
    'text_input',
    'image',
    'stream',
    'sampling_parameters',
    'exclude_input_in_output',
    'return_finish_reason',
    'return_cumulative_logprob',
    'return_logprobs',
    'return_num_input_tokens',
    'return_num_output_tokens',
  ],
  trtllm: [
    'text_input',
    'max_tokens',
    'bad_words',
    'stop_words',
    'exclude_input_in_output',
    'end_id',
    'pad_id',
    'top_k',
    'top_p',
    'temperature',
    'repetition_penalty',
    'min_p',
    'seed',
    'stream',
    'stop',
  ],
  llmapi: [
    'text_input',
    'streaming',
    'sampling_param_max_tokens',
    'sampling_param_top_k',
    'sampling_param_top_p',
    'sampling_param_temperature',
    'sampling_param_seed',
    'exclude_input_in_output',
    'return_finish_reason',
  ],
};

export function startFakeTritonServer(options: FakeTritonOptions = {}): Promise<FakeEngine> {
  const { model = 'story', backend = 'vllm', ctx = 512, decoupled = true } = options;
  const inputs = (options.inputs ?? INPUTS[backend] ?? []).map((name) => ({
    name,
    datatype: 'BYTES',
    shape: [1],
  }));
  return startFakeEngine(
    {
      loading_status: 400,
      needsKey: () => true,
      unauthorized: { status: 403, body: { error: 'This API is restricted' } },
      reply(asked) {
        const { path } = asked;
        const base = `/v2/models/${model}`;
        if (path === '/v2') return ok({ name: 'triton', version: '2.60.0', extensions: ['generate'] });
        if (path === `${base}/ready`) return { kind: 'answer', status: 200 };
        if (path === base) return ok({ name: model, versions: ['1'], platform: '', inputs, outputs: [] });
        if (path === `${base}/config` && options.config !== false) {
          const parameters = backend === 'vllm' ? {} : { trtllm_version: { string_value: '0.18.0' } };
          return ok({
            name: model,
            backend,
            model_transaction_policy: { decoupled },
            parameters,
            input: inputs,
          });
        }
        if (path === `${base}/generate_stream`) return generate(asked, backend, ctx);
        if (path.endsWith('/ready')) return { kind: 'answer', status: 400 };
        return { kind: 'answer', status: 404, body: { error: 'Not Found' } };
      },
    },
    options,
  );
}

function generate({ body }: Asked, backend: string, ctx: number): Reply {
  const tokens_in = countTokens(String(body['text_input']));
  const sampling = (backend === 'vllm' ? JSON.parse(String(body['sampling_parameters'])) : body) as Record<
    string,
    unknown
  >;
  if (tokens_in >= ctx) {
    const error = `Error generating stream: The decoder prompt (length ${tokens_in}) is longer than the maximum model length of ${ctx}.`;
    return { kind: 'answer', status: 500, body: { error } };
  }
  const reports = body['return_finish_reason'] === true;
  const max = sampling['max_tokens'] ?? sampling['sampling_param_max_tokens'] ?? 16;
  return {
    kind: 'stream',
    tokens_in,
    max_tokens: Number(max),
    seed: Number(sampling['seed'] ?? sampling['sampling_param_seed'] ?? 0),
    stops: (sampling['stop'] ?? sampling['stop_words'] ?? []) as string[],
    leaks_stops: backend !== 'vllm',
    late_headers: true,
    token: (text, _n, end, fresh) => [
      {
        ...(body['id'] === undefined ? {} : { id: body['id'] }),
        model_name: 'story',
        model_version: '1',
        text_output: text,
        ...(reports ? { finish_reason: end ? (end.reason === 'limit' ? 'length' : 'stop') : 'None' } : {}),
        ...(body['return_num_input_tokens'] === true ? { num_input_tokens: tokens_in } : {}),
        ...(body['return_num_output_tokens'] === true ? { num_output_tokens: fresh } : {}),
      },
    ],
    error: { error: 'Error generating stream: CUDA error' },
    done: false,
  };
}

if (import.meta.main) await runFake(startFakeTritonServer);
