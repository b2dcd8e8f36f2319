import test from 'ava';
import { createTritonEngine } from '../../src/engines/triton/triton.ts';
import { type FakeTritonOptions, startFakeTritonServer } from '../helpers/fake-triton-server.ts';
import { conformanceWithoutCount } from './conformance-without-count.ts';
import { errorOf, never, promptCall, record } from './conformance.ts';
import { remoteConformance } from './remote-conformance.ts';
import { type RemoteKind, attachRemote, failing, failureOf, remoteSubject } from './remote-rig.ts';

const TRITON: RemoteKind<FakeTritonOptions> = {
  create: createTritonEngine,
  start: startFakeTritonServer,
  settings: { ctx: 512 },
};
const PATH = '/v2/models/story/generate_stream';
const WAYS = { path: PATH, health: '/v2/models/story/ready', error: /CUDA error/u };

conformanceWithoutCount(test, remoteSubject(TRITON, {}), 'vLLM backend');
conformanceWithoutCount(test, remoteSubject(TRITON, { backend: 'trtllm' }), 'TensorRT-LLM', {
  tells_reason: false,
});
conformanceWithoutCount(test, remoteSubject(TRITON, { backend: 'llmapi' }), 'LLM API of TensorRT-LLM');
remoteConformance(test, 'triton', TRITON, {}, WAYS);
remoteConformance(
  test,
  'triton with TensorRT-LLM',
  TRITON,
  { backend: 'trtllm' },
  { ...WAYS, truncated: 'finished' },
);

test('it says what it is, the version of TensorRT-LLM included', async (t) => {
  const { engine } = await attachRemote(t, TRITON, {});
  t.deepEqual(await engine.load(never), {
    engine_version: 'triton-2.60.0+vllm',
    ctx_max: 512,
    slots_total: 2,
    model_id: 'story',
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
  const trt = await attachRemote(t, TRITON, { backend: 'trtllm' });
  t.is((await trt.engine.load(never)).engine_version, 'triton-2.60.0+trtllm-0.18.0');
});

test('the context has to be given, and the model has to be one that streams text', async (t) => {
  const message = async (options: FakeTritonOptions, own: object = {}) => {
    const { engine } = await attachRemote(t, TRITON, options, own);
    return errorOf(t, await t.throwsAsync(engine.load(never))).message;
  };
  t.regex(await message({}, { ctx: undefined }), /configure ctx/u);
  t.is(
    await message({ inputs: ['IMAGE'] }),
    'The model "story" is none of vLLM or TensorRT-LLM; its inputs are IMAGE.',
  );
  t.regex(await message({ inputs: ['text_input', 'max_tokens'] }), /cannot stream/u);
  t.regex(await message({ decoupled: false }), /not decoupled/u);
});

test('a closed model configuration is no hindrance', async (t) => {
  const { engine } = await attachRemote(t, TRITON, { config: false });
  await engine.load(never);
  t.is((await record(engine, promptCall('Once'))).tokens, 12);
});

test('settings go to vLLM as one text, with the names that every version knows', async (t) => {
  const { fake, engine } = await attachRemote(t, TRITON, {});
  await engine.load(never);
  await record(engine, promptCall('Once', { sampling: { stop: ['\n\n'] } }));
  const { sampling_parameters, ...body } = fake.askedFor(PATH).at(-1)?.body ?? {};
  t.deepEqual(body, {
    id: 'task',
    text_input: 'Once',
    stream: true,
    exclude_input_in_output: true,
    return_finish_reason: true,
    return_num_input_tokens: true,
    return_num_output_tokens: true,
  });
  t.deepEqual(JSON.parse(String(sampling_parameters)), {
    max_tokens: 12,
    temperature: 0,
    top_p: 1,
    top_k: -1,
    min_p: 0,
    repetition_penalty: 1,
    seed: 7,
    stop: ['\n\n'],
  });
});

test('settings go to TensorRT-LLM under the names that the model declares', async (t) => {
  const ensemble = await attachRemote(t, TRITON, { backend: 'trtllm' });
  await ensemble.engine.load(never);
  await record(ensemble.engine, promptCall('Once'));
  t.deepEqual(ensemble.fake.askedFor(PATH).at(-1)?.body, {
    id: 'task',
    text_input: 'Once',
    stream: true,
    exclude_input_in_output: true,
    max_tokens: 12,
    top_k: 1,
    seed: 7,
  });
  const api = await attachRemote(t, TRITON, { backend: 'llmapi' });
  await api.engine.load(never);
  await record(api.engine, promptCall('Once', { sampling: { temperature: 0.5, top_p: 0.9 }, seed: -2 }));
  t.deepEqual(api.fake.askedFor(PATH).at(-1)?.body, {
    id: 'task',
    text_input: 'Once',
    streaming: true,
    exclude_input_in_output: true,
    return_finish_reason: true,
    sampling_param_max_tokens: 12,
    sampling_param_temperature: 0.5,
    sampling_param_top_p: 0.9,
    sampling_param_seed: Number.MAX_SAFE_INTEGER - 2,
  });
  const refused = await record(api.engine, promptCall('Once', { sampling: { temperature: 1, min_p: 0.1 } }));
  t.regex(failureOf(refused).message, /sampling\.min_p/u);
});

test('an overflow that the backend calls an error of its own is the caller’s', async (t) => {
  const { failure } = await failing(t, TRITON, {}, promptCall('a '.repeat(600)));
  t.is(failure.code, 'INVALID_PARAMS');
  t.regex(failure.message, /601.*512/u);
});

test('a model of another name is asked for by its own', async (t) => {
  const { fake, engine } = await attachRemote(t, TRITON, { model: 'llama 8b' }, { model: 'llama 8b' });
  t.is(failureOf(await record(engine, promptCall('Once'))).code, 'POOL_UNAVAILABLE');
  const abort = new AbortController();
  const loading = engine.load(abort.signal);
  while (fake.asked.length === 0) await new Promise(setImmediate);
  abort.abort();
  await t.throwsAsync(loading);
  t.is(fake.asked[0]?.path, '/v2/models/llama%208b/ready');
});
