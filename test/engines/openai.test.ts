import { type AddressInfo, createServer } from 'node:net';
import test from 'ava';
import { systemClock } from '../../src/clock.ts';
import { createOpenAiEngine } from '../../src/engines/openai/openai.ts';
import { type FakeOpenAiOptions, startFakeOpenAiServer } from '../helpers/fake-openai-server.ts';
import { conformanceWithoutCount } from './conformance-without-count.ts';
import { errorOf, never, promptCall, record, recordingHost } from './conformance.ts';
import { remoteConformance } from './remote-conformance.ts';
import { type RemoteKind, attachRemote, chatCall, failing, failureOf, remoteSubject } from './remote-rig.ts';
import { recordResults, vectorsConformance } from './vectors-conformance.ts';

const OPENAI: RemoteKind<FakeOpenAiOptions> = { create: createOpenAiEngine, start: startFakeOpenAiServer };
const EMBEDDER = { completions: false, chat: false, embeddings: true };
const WAYS = { path: '/v1/completions', health: '/v1/models', error: /server had an error/u };

conformanceWithoutCount(test, remoteSubject(OPENAI, {}), 'completions and chat');
vectorsConformance(test, 'embedding', remoteSubject(OPENAI, EMBEDDER));
remoteConformance(test, 'openai', OPENAI, {}, WAYS);
remoteConformance(
  test,
  'openai with conversations alone',
  OPENAI,
  { completions: false },
  { ...WAYS, path: '/v1/chat/completions' },
);

test('what it offers is what was seen to work', async (t) => {
  const features = async (options: FakeOpenAiOptions) => {
    const { engine } = await attachRemote(t, OPENAI, options);
    const { workloads, features } = await engine.load(never);
    return { workloads, ...features };
  };
  const fixed = { grammar: false, tokenizer: false, deterministic: false, kv_reuse: false };
  t.deepEqual(await features({}), {
    workloads: ['completion'],
    chat: 'native',
    json_schema: true,
    resume: true,
    ...fixed,
  });
  t.like(await features({ chat: false }), { chat: 'none', json_schema: false, resume: true });
  t.like(await features({ completions: false }), { chat: 'native', resume: false });
  t.like(await features({ schemas: false }), { json_schema: false });
  t.like(await features({ schemas: 'blanks' }), { json_schema: true });
  t.deepEqual((await features({ embeddings: true })).workloads, ['completion', 'embedding']);
  t.deepEqual((await features(EMBEDDER)).workloads, ['embedding']);
});

test('a server that does nothing with the model says why', async (t) => {
  const { engine } = await attachRemote(t, OPENAI, { model: 'other' });
  t.regex(
    errorOf(t, await t.throwsAsync(engine.load(never))).message,
    /^The server does nothing with "story": The engine does not offer this call/u,
  );
});

test('the address is as OpenAI’s clients take it', async (t) => {
  const fake = await startFakeOpenAiServer({ base: '/api/v3' });
  const { engine } = await attachRemote(t, OPENAI, {}, { url: `${fake.url}/api/v3/` });
  await engine.load(never);
  t.is((await record(engine, promptCall('Once'))).tokens, 12);
  await fake.kill();
});

test('the context is the server’s, or the configuration’s, and has to be one of them', async (t) => {
  const ctx = async (options: FakeOpenAiOptions, own: object = {}) => {
    const { engine } = await attachRemote(t, OPENAI, options, own);
    return (await engine.load(never)).ctx_max;
  };
  t.is(await ctx({}), 512);
  t.is(await ctx({}, { ctx: 100 }), 100);
  t.is(await ctx({ lists_ctx: false }, { ctx: 100 }), 100);
  t.is(await ctx({ lists_models: false }, { ctx: 100 }), 100);
  const { engine } = await attachRemote(t, OPENAI, { lists_ctx: false });
  await t.throwsAsync(engine.load(never), { message: /configure ctx/u });
});

test('samplers that OpenAI does not have are sent only where the caller sets them', async (t) => {
  const { fake, engine } = await attachRemote(t, OPENAI, {});
  await engine.load(never);
  await record(engine, promptCall('Once'));
  t.deepEqual(fake.askedFor('/v1/completions').at(-1)?.body, {
    prompt: 'Once',
    max_tokens: 12,
    model: 'story',
    stream: true,
    stream_options: { include_usage: true },
    seed: 7,
    temperature: 0,
    top_p: 1,
  });
  const sampling = { temperature: 1, top_k: 5, min_p: 0.1, repeat_penalty: 1.1, stop: ['x'] };
  await record(engine, promptCall('Once', { sampling }));
  t.like(fake.askedFor('/v1/completions').at(-1)?.body, {
    top_k: 5,
    min_p: 0.1,
    repetition_penalty: 1.1,
    repeat_penalty: 1.1,
    stop: ['x'],
  });
});

for (const usage of ['taken', 'refused', 'ignored', 'with_last'] as const) {
  test(`usage is exact where it is told, and estimated where it is not (stream_options ${usage})`, async (t) => {
    const { fake, engine } = await attachRemote(t, OPENAI, { usage });
    await engine.load(never);
    for (let n = 0; n < 2; n++) {
      const run = await record(engine, promptCall('Once upon a time'));
      t.is(run.outcome.kind, 'finished');
      t.is(run.tokens, 12);
      t.is(run.outcome.usage.tokens_out, 12);
      t.is(run.outcome.usage.tokens_in, usage === 'taken' || usage === 'with_last' ? 5 : 4);
    }
    // What it did not take is not sent again.
    const asked = fake.askedFor('/v1/completions').filter(({ body }) => body['stream_options'] !== undefined);
    t.is(asked.length, usage === 'refused' ? 1 : 2);
  });
}

test('a model that takes max_completion_tokens alone is found out at load', async (t) => {
  const options: FakeOpenAiOptions = { completions: false, max_tokens_name: 'max_completion_tokens' };
  const { fake, engine } = await attachRemote(t, OPENAI, options);
  await engine.load(never);
  t.is((await record(engine, chatCall())).tokens, 12);
  t.like(fake.askedFor('/v1/chat/completions').at(-1)?.body, { max_completion_tokens: 12 });
});

test('a prompt is the one message where there are no completions, and cannot be resumed then', async (t) => {
  const { fake, engine } = await attachRemote(t, OPENAI, { completions: false });
  await engine.load(never);
  t.is((await record(engine, promptCall('Once'))).tokens, 12);
  t.deepEqual(fake.askedFor('/v1/chat/completions').at(-1)?.body['messages'], [
    { role: 'user', content: 'Once' },
  ]);
});

test('a conversation cannot be resumed, and says so with a code that may be tried again', async (t) => {
  const { fake, engine } = await attachRemote(t, OPENAI, {});
  await engine.load(never);
  const asked = fake.asked.length;
  const run = await record(engine, chatCall({ resume: { text: 'It was', tokens_out: 2 } }));
  t.like(failureOf(run), { code: 'WORKER_RESET', retriable: true });
  t.is(fake.asked.length, asked);
});

test('reasoning is a channel of its own', async (t) => {
  const { engine } = await attachRemote(t, OPENAI, { reasoning: 'Hm, a story.' });
  await engine.load(never);
  const run = await record(engine, chatCall());
  t.deepEqual(run.deltas[0], { channel: 'reasoning', text: 'Hm, a story.', tokens: 1 });
  t.true(run.deltas.slice(1).every(({ channel }) => channel === 'text'));
});

test('a schema goes along with messages, and is refused for a bare prompt', async (t) => {
  const { fake, engine } = await attachRemote(t, OPENAI, {});
  await engine.load(never);
  const output = { kind: 'json_schema', schema: { type: 'object' } } as const;
  await record(engine, chatCall({ output }));
  t.like(fake.askedFor('/v1/chat/completions').at(-1)?.body, {
    response_format: { type: 'json_schema', json_schema: { strict: true, schema: { type: 'object' } } },
  });
  t.is(failureOf(await record(engine, promptCall('Once', { output }))).code, 'INVALID_PARAMS');
});

for (const [body, words] of [
  [{ error: 'plain words' }, /plain words/u],
  [{ object: 'error', message: 'flat words', code: 400 }, /flat words/u],
  [{ detail: 'detail words' }, /detail words/u],
  [{ detail: [{ loc: ['body'], input: 'x' }] }, /not valid/u],
  ['<html>', /HTTP 400/u],
] as const) {
  test(`a complaint may have the shape ${JSON.stringify(body)}`, async (t) => {
    const { failure } = await failing(t, OPENAI, { refuse: { status: 400, body } });
    t.is(failure.code, 'INVALID_PARAMS');
    t.regex(failure.message, words);
  });
}

test('what a content filter cuts off is not passed off as finished', async (t) => {
  const body =
    'data: {"choices":[{"index":0,"text":" w","finish_reason":null}]}\n\ndata: {"choices":[{"index":0,"text":"","finish_reason":"content_filter"}]}\n\ndata: [DONE]\n\n';
  const headers = { 'content-type': 'text/event-stream' };
  const { failure, text } = await failing(t, OPENAI, { refuse: { status: 200, body, headers } });
  t.is(text, ' w');
  t.like(failure, { code: 'INVALID_PARAMS', retriable: false });
});

test('an end without a word on how it ended is not success, though it says [DONE]', async (t) => {
  const body = 'data: {"choices":[{"index":0,"text":" w","finish_reason":null}]}\n\ndata: [DONE]\n\n';
  const headers = { 'content-type': 'text/event-stream' };
  const { failure } = await failing(t, OPENAI, { refuse: { status: 200, body, headers } });
  t.is(failure.code, 'WORKER_RESET');
});

test('a connection that breaks after the finish reason takes nothing back', async (t) => {
  const body = 'data: {"choices":[{"index":0,"text":" w","finish_reason":"length"}]}\n\n';
  const headers = { 'content-type': 'text/event-stream', 'content-length': '5000' };
  const { fake, engine } = await attachRemote(t, OPENAI, { refuse: { status: 200, body, headers } });
  await engine.load(never);
  const running = record(engine, promptCall('Once', { max_tokens: 1 }), {
    onDelta: () => void setImmediate(() => void fake.kill()),
  });
  t.like((await running).outcome, { kind: 'finished', reason: 'limit', usage: { tokens_out: 1 } });
});

test('texts are embedded without a tokenizer, and the one that is too long is named', async (t) => {
  const { engine } = await attachRemote(t, OPENAI, EMBEDDER);
  await engine.load(never);
  const run = await recordResults(engine, 'embedding', ['a', 'b', 'a dog and '.repeat(512), 'c']);
  t.regex(failureOf(run).message, /`inputs\[2\]`.*512/u);
  t.deepEqual(run.places, []);
});

test('a connection that does not come about is given up, and asked for again', async (t) => {
  // It takes the connection, and never says a word of TLS.
  const silent = createServer((socket) => socket.on('error', () => undefined));
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
  t.teardown(() => silent.close());
  const { promise: told, resolve: waiting } = Promise.withResolvers<string>();
  const url = `https://127.0.0.1:${(silent.address() as AddressInfo).port}`;
  const engine = createOpenAiEngine({
    url,
    model_id: 'story',
    ctx: 64,
    clock: systemClock,
    host: { ...recordingHost(), waiting },
  });
  const loading = t.throwsAsync(engine.load(never), { message: 'Loading was aborted.' });
  t.is(await told, 'The engine cannot be reached (UND_ERR_CONNECT_TIMEOUT).');
  await engine.unload();
  await loading;
});
