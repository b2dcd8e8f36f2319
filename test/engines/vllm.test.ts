import test from 'ava';
import { systemClock } from '../../src/clock.ts';
import { createVllmEngine } from '../../src/engines/vllm/vllm.ts';
import { type FakeVllmOptions, startFakeVllmServer } from '../helpers/fake-vllm-server.ts';
import { conformance, errorOf, never, promptCall, record, recordingHost } from './conformance.ts';
import { remoteConformance } from './remote-conformance.ts';
import { type RemoteKind, attachRemote, chatCall, failing, failureOf, remoteSubject } from './remote-rig.ts';
import { recordResults, vectorsConformance } from './vectors-conformance.ts';

const VLLM: RemoteKind<FakeVllmOptions> = { create: createVllmEngine, start: startFakeVllmServer };

conformance(test, remoteSubject(VLLM, {}));
vectorsConformance(test, 'embedding', remoteSubject(VLLM, { task: 'embed' }));
vectorsConformance(test, 'rerank', remoteSubject(VLLM, { task: 'score' }));
remoteConformance(
  test,
  'vllm',
  VLLM,
  {},
  { path: '/v1/completions', health: '/health', error: /EngineCore died/u },
);

test('it says what it is', async (t) => {
  const { engine } = await attachRemote(t, VLLM, {}, { ctx: 300, slots: 5 });
  t.deepEqual(await engine.load(never), {
    engine_version: 'vllm-0.11.2',
    ctx_max: 300,
    slots_total: 5,
    model_id: 'story',
    workloads: ['completion'],
    features: {
      chat: 'native',
      grammar: true,
      json_schema: true,
      resume: true,
      tokenizer: true,
      deterministic: false,
      kv_reuse: true,
    },
  });
});

test('slots are eight where nobody says, and the context is the server’s even where more is configured', async (t) => {
  const fake = await startFakeVllmServer({ ctx: 128, lists_ctx: false });
  const engine = createVllmEngine({
    url: `${fake.url}/v1/`,
    model_id: 'story',
    ctx: 4096,
    clock: systemClock,
    host: recordingHost(),
  });
  t.like(await engine.load(never), { slots_total: 8, ctx_max: 128 });
  await engine.unload();
  await fake.kill();
});

test('a model that the server does not have is named with those that it has', async (t) => {
  const { engine } = await attachRemote(t, VLLM, { model: 'org/other' });
  const error = errorOf(t, await t.throwsAsync(engine.load(never)));
  t.is(error.message, 'The server has no model "story", it has "org/other".');
  const named = await attachRemote(t, VLLM, { model: 'org/other' }, { model: 'org/other' });
  t.is((await named.engine.load(never)).model_id, 'story');
  await record(named.engine, promptCall('Once'));
  t.is(named.fake.askedFor('/v1/completions').at(-1)?.body['model'], 'org/other');
});

test('a greedy run names every sampler, so that none comes from the model’s own settings', async (t) => {
  const { fake, engine } = await attachRemote(t, VLLM, {});
  await engine.load(never);
  await record(engine, promptCall('Once', { seed: -3 }));
  t.like(fake.askedFor('/v1/completions').at(-1)?.body, {
    model: 'story',
    prompt: 'Once',
    max_tokens: 12,
    stream: true,
    stream_options: { include_usage: true, continuous_usage_stats: true },
    seed: -3,
    temperature: 0,
    top_p: 1,
    top_k: -1,
    min_p: 0,
    repetition_penalty: 1,
    presence_penalty: 0,
    frequency_penalty: 0,
  });
  const sampling = {
    temperature: 0.7,
    top_k: 40,
    top_p: 0.9,
    min_p: 0.05,
    repeat_penalty: 1.1,
    stop: ['\n\n'],
  };
  await record(engine, promptCall('Once', { sampling }));
  t.like(fake.askedFor('/v1/completions').at(-1)?.body, {
    temperature: 0.7,
    top_k: 40,
    top_p: 0.9,
    min_p: 0.05,
    repetition_penalty: 1.1,
    stop: ['\n\n'],
  });
});

test('a stop string that the engine found is told as one', async (t) => {
  const { engine } = await attachRemote(t, VLLM, {});
  await engine.load(never);
  const whole = await record(engine, promptCall('Once'));
  const stop = [whole.deltas[4]?.text ?? ''];
  const run = await record(engine, promptCall('Once', { sampling: { stop } }));
  t.like(run.outcome, { kind: 'finished', reason: 'stop' });
});

for (const [version, field] of [
  ['0.10.1', 'guided'],
  ['0.11.0', 'structured'],
  ['0.33.1rc1', 'structured'],
  ['0.1.dev1+gabc', 'structured'],
  ['1.0.0', 'structured'],
] as const) {
  test(`constraints have the name that version ${version} enforces`, async (t) => {
    const { fake, engine } = await attachRemote(t, VLLM, { version });
    await engine.load(never);
    const schema = { type: 'object' };
    const gbnf = 'root ::= "a"';
    await record(engine, promptCall('Once', { output: { kind: 'json_schema', schema } }));
    await record(engine, promptCall('Once', { output: { kind: 'grammar', gbnf } }));
    const [json, grammar] = fake.askedFor('/v1/completions').slice(-2);
    if (field === 'guided') {
      t.deepEqual(json?.body['guided_json'], schema);
      t.is(grammar?.body['guided_grammar'], gbnf);
      t.is(json?.body['structured_outputs'], undefined);
    } else {
      t.deepEqual(json?.body['structured_outputs'], { json: schema });
      t.deepEqual(grammar?.body['structured_outputs'], { grammar: gbnf });
      t.is(json?.body['guided_json'], undefined);
    }
  });
}

test('a conversation goes on in the middle of an answer', async (t) => {
  const { fake, engine } = await attachRemote(t, VLLM, {});
  await engine.load(never);
  const whole = await record(engine, chatCall({ max_tokens: 12 }));
  const head = await record(engine, chatCall({ max_tokens: 5 }));
  const resume = { text: head.text, tokens_out: head.tokens };
  const tail = await record(engine, chatCall({ max_tokens: 7, resume }));
  t.is(head.text + tail.text, whole.text);
  t.like(fake.askedFor('/v1/chat/completions').at(-1)?.body, {
    add_generation_prompt: false,
    continue_final_message: true,
  });
});

test('a prompt that nearly fills the context is counted first, and its output clamped', async (t) => {
  const { fake, engine } = await attachRemote(t, VLLM, {});
  await engine.load(never);
  const counted = fake.askedFor('/tokenize').length;
  await record(engine, promptCall('Once'));
  t.is(fake.askedFor('/tokenize').length, counted);
  const run = await record(engine, promptCall('a '.repeat(505), { max_tokens: 100 }));
  t.is(fake.askedFor('/tokenize').length, counted + 1);
  t.is(fake.askedFor('/v1/completions').at(-1)?.body['max_tokens'], 6);
  t.like(run.outcome, { kind: 'finished', reason: 'limit' });
});

test('a model without a template takes no messages', async (t) => {
  const { engine } = await attachRemote(t, VLLM, { chat_template: false });
  t.is((await engine.load(never)).features.chat, 'none');
  t.is(failureOf(await record(engine, chatCall())).code, 'INVALID_PARAMS');
});

test('a run that the engine gives up is a WORKER_RESET', async (t) => {
  const { failure } = await failing(t, VLLM, {
    refuse: {
      status: 200,
      headers: { 'content-type': 'text/event-stream' },
      body: 'data: {"choices":[{"index":0,"text":" w","finish_reason":"abort"}]}\n\ndata: [DONE]\n\n',
    },
  });
  t.is(failure.code, 'WORKER_RESET');
});

test('texts are embedded in batches, and the one that the server refuses is found', async (t) => {
  const { fake, engine } = await attachRemote(t, VLLM, { task: 'embed' });
  await engine.load(never);
  const texts = Array.from({ length: 70 }, (_, i) => `text ${i}`);
  const before = fake.askedFor('/v1/embeddings').length;
  const run = await recordResults(engine, 'embedding', texts);
  t.deepEqual(run.places, [...texts.keys()]);
  t.is(fake.askedFor('/v1/embeddings').length - before, 3);
  const empty = await recordResults(engine, 'embedding', ['a', '']);
  t.regex(failureOf(empty).message, /inputs\[1\]/u);
});

for (const [kind, code] of [
  ['error', 'POOL_UNAVAILABLE'],
  ['garbage', 'WORKER_RESET'],
  ['null', 'WORKER_RESET'],
  ['short', 'WORKER_RESET'],
  ['reset', 'WORKER_RESET'],
] as const) {
  test(`a batch of vectors that fails by ${kind} is ${code}, and what came before it stays`, async (t) => {
    const host = recordingHost();
    // The first is the probe at load.
    const { engine } = await attachRemote(
      t,
      VLLM,
      { task: 'embed', vector_fault: { kind, at: 2 } },
      { host },
    );
    await engine.load(never);
    const run = await recordResults(
      engine,
      'embedding',
      Array.from({ length: 40 }, (_, i) => `text ${i}`),
    );
    t.is(run.places.length, 32);
    t.is(failureOf(run).code, code);
    t.is((await recordResults(engine, 'embedding', ['a dog'])).outcome.kind, 'finished');
    t.deepEqual(host.losses, []);
  });
}
