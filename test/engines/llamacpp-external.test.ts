import { createServer } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import { systemClock } from '../../src/clock.ts';
import type { EngineHost } from '../../src/engines/engine.ts';
import { createExternalLlamaEngine } from '../../src/engines/llamacpp/external.ts';
import { type FakeLlamaOptions, startFakeLlamaServer } from '../helpers/fake-llama-server.ts';
import { until } from '../helpers/until.ts';
import {
  type FixtureKind,
  type Subject,
  conformance,
  errorOf,
  never,
  promptCall,
  record,
  recordingHost,
} from './conformance.ts';
import { failureOf as refusalOf, recordResults, vectorsConformance } from './vectors-conformance.ts';

function subject(options: FakeLlamaOptions): Subject {
  return {
    reloads: false,
    async start(kind: FixtureKind, host: EngineHost) {
      if (kind === 'unloadable') {
        const other = createServer((_req, res) => void res.writeHead(404).end());
        await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
        const url = `http://127.0.0.1:${(other.address() as AddressInfo).port}`;
        const engine = createExternalLlamaEngine({ url, clock: systemClock, host });
        return { engine, crash: () => undefined, close: () => void other.close() };
      }
      const fake = await startFakeLlamaServer(kind === 'crashing' ? { ...options, hold_at: 3 } : options);
      const engine = createExternalLlamaEngine({ url: fake.url, clock: systemClock, host });
      return { engine, crash: () => fake.kill(), close: () => fake.kill() };
    },
  };
}

conformance(test, subject({}));
vectorsConformance(test, 'embedding', subject({ embeddings: 'pooled' }));
vectorsConformance(test, 'rerank', subject({ reranking: true, completes: false }));

async function attach(
  t: ExecutionContext,
  options: FakeLlamaOptions,
  { host = recordingHost(), api_key }: { host?: EngineHost; api_key?: string } = {},
) {
  const fake = await startFakeLlamaServer(options);
  const key = api_key === undefined ? {} : { api_key };
  const engine = createExternalLlamaEngine({ url: fake.url, clock: systemClock, host, ...key });
  t.teardown(async () => {
    await engine.unload();
    await fake.kill();
  });
  return { fake, engine };
}

async function failureOf(t: ExecutionContext, options: FakeLlamaOptions) {
  const { engine } = await attach(t, options);
  await engine.load(never);
  const run = await record(engine, promptCall('Once'));
  if (run.outcome.kind !== 'failed') throw new Error(run.outcome.kind);
  return { ...run, failure: run.outcome.failure };
}

test('loading waits while the server says 503, and an abort ends the wait', async (t) => {
  const { fake, engine } = await attach(t, { loading: 'held' });
  const abort = new AbortController();
  const given_up = engine.load(abort.signal);
  t.deepEqual(await engine.health(never), { live: true, ready: false });
  abort.abort();
  await t.throwsAsync(given_up, { message: 'Loading was aborted.' });
  const loading = engine.load(never);
  fake.release();
  const properties = await loading;
  t.like(properties, {
    slots_total: 2,
    ctx_max: 512,
    model_id: 'fake.gguf',
    engine_version: 'llama.cpp-b1-fake',
  });
});

test('loading waits for a server that is not there yet', async (t) => {
  const { fake } = await attach(t, {});
  await fake.kill();
  const engine = createExternalLlamaEngine({ url: fake.url, clock: systemClock, host: recordingHost() });
  const loading = engine.load(never);
  t.true((await engine.health(never)).live === false);
  const late = await startFakeLlamaServer({ port: Number(new URL(fake.url).port) });
  t.is((await loading).slots_total, 2);
  await engine.unload();
  await late.kill();
});

test('a refused key fails the load without telling it', async (t) => {
  const { engine } = await attach(t, { api_key: 'right' }, { api_key: 'secret-wrong' });
  const error = errorOf(t, await t.throwsAsync(engine.load(never)));
  t.is(error.code, 'INTERNAL');
  t.false(error.message.includes('secret'));
  const { engine: keyed } = await attach(t, { api_key: 'right' }, { api_key: 'right' });
  await keyed.load(never);
  t.is((await record(keyed, promptCall('Once'))).outcome.kind, 'finished');
});

test('a URL that is none fails the load', async (t) => {
  const engine = createExternalLlamaEngine({ url: 'not a url', clock: systemClock, host: recordingHost() });
  t.is(errorOf(t, await t.throwsAsync(engine.load(never))).code, 'INVALID_PARAMS');
});

test('a server that speaks no HTTP fails the load', async (t) => {
  const other = createTcpServer((socket) => socket.on('error', () => undefined).write('220 mail ready\r\n'));
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(other.address() as AddressInfo).port}`;
  const engine = createExternalLlamaEngine({ url, clock: systemClock, host: recordingHost() });
  await t.throwsAsync(engine.load(never), { message: 'The engine cannot be reached (not HTTP).' });
  other.close();
});

test('the request names every sampler, and forwards only the correlation id', async (t) => {
  const { fake, engine } = await attach(t, {});
  await engine.load(never);
  const correlation_id = 'c-1';
  await record(
    engine,
    promptCall('Once', { correlation_id, sampling: { temperature: 0.5, top_k: 4 }, seed: -1 }),
  );
  t.like(fake.completions[0]?.body, {
    stream: true,
    n_predict: 12,
    seed: 0xfffffffe,
    temperature: 0.5,
    top_k: 4,
    top_p: 1,
    min_p: 0,
    repeat_penalty: 1,
    cache_prompt: true,
  });
  t.is(fake.completions[0]?.headers['x-correlation-id'], 'c-1');
  t.is(fake.completions[0]?.headers['x-conversation-id'], undefined);
});

for (const chop of [1, 2, 3, 7, 64]) {
  test(`frames and characters may be split anywhere (${chop} bytes a chunk)`, async (t) => {
    const plain = await attach(t, {});
    await plain.engine.load(never);
    const expected = await record(plain.engine, promptCall('Once', { max_tokens: 30 }));
    t.true(expected.text.includes('🎈'));
    const { engine } = await attach(t, { chop, crlf: chop % 2 === 1, pings: true, half_characters: true });
    await engine.load(never);
    const run = await record(engine, promptCall('Once', { max_tokens: 30 }));
    t.is(run.text, expected.text);
    t.is(run.tokens, 30);
    t.deepEqual(run.outcome, expected.outcome);
  });
}

test('the mark at which the model says it is done has no text, and does not count', async (t) => {
  const { engine } = await attach(t, { eos_at: 4 });
  await engine.load(never);
  const run = await record(engine, promptCall('Once'));
  t.is(run.outcome.kind === 'finished' && run.outcome.reason, 'eos');
  t.is(run.tokens, 4);
  t.is(run.outcome.usage.tokens_out, 4);
  t.true(run.deltas.every(({ text }) => text !== ''));
});

test('a cold call leaves what the server has cached alone, and with one slot gives the same again', async (t) => {
  for (const slots of [1, 2]) {
    const { engine, fake } = await attach(t, { slots });
    const { features } = await engine.load(never);
    t.like(features, { deterministic: false, deterministic_cold: slots === 1, kv_reuse: true });
    await record(engine, promptCall('Once'));
    await record(engine, promptCall('Once', { cold: true }));
    t.deepEqual(
      fake.completions.map(({ body }) => body['cache_prompt']),
      [true, false],
    );
  }
});

test('the input is told before the first token, so that a canceled run has one', async (t) => {
  const { engine } = await attach(t, {});
  await engine.load(never);
  const abort = new AbortController();
  const run = await record(engine, promptCall('Once upon'), {
    signal: abort.signal,
    onDelta: () => abort.abort(),
  });
  t.is(run.prefilled, 3);
  t.like(run.outcome, { kind: 'aborted', usage: { tokens_in: 3 } });
});

test('a stop string is reported as such', async (t) => {
  const { engine } = await attach(t, {});
  await engine.load(never);
  const whole = await record(engine, promptCall('Once'));
  const stop = [whole.deltas[4]?.text ?? ''];
  const run = await record(engine, promptCall('Once', { sampling: { stop } }));
  t.is(run.outcome.kind === 'finished' && run.outcome.reason, 'stop');
  t.is(
    run.text,
    whole.deltas
      .slice(0, 4)
      .map((delta) => delta.text)
      .join(''),
  );
  t.is(run.outcome.usage.tokens_out, run.tokens);
  t.is(run.tokens, 4, 'what completed the stop string does not count');
});

test('an error frame inside a 200 is a failure', async (t) => {
  const { failure, text, outcome, tokens } = await failureOf(t, { fault: { kind: 'error_frame', at: 3 } });
  t.is(failure.code, 'WORKER_RESET');
  t.regex(failure.message, /Context size has been exceeded/u);
  t.true(text.length > 0);
  t.is(outcome.usage.tokens_out, tokens);
});

test('a body that ends without its last frame was truncated by the engine', async (t) => {
  const truncated = await failureOf(t, { fault: { kind: 'truncate', at: 3 } });
  t.like(truncated.failure, { code: 'WORKER_RESET', retriable: true });
  t.regex(truncated.failure.message, /truncated by the engine/u);
  const nulled = await failureOf(t, { fault: { kind: 'null_frame', at: 3 } });
  t.is(nulled.failure.code, 'WORKER_RESET');
  t.is(nulled.tokens, 3);
  const garbled = await failureOf(t, { fault: { kind: 'garbage', at: 3 } });
  t.is(garbled.failure.code, 'WORKER_RESET');
});

test('a reset is a WORKER_RESET, and no loss while the server still answers', async (t) => {
  const host = recordingHost();
  const { engine } = await attach(t, { fault: { kind: 'reset', at: 3 } }, { host });
  await engine.load(never);
  const run = await record(engine, promptCall('Once'));
  t.like(run.outcome, { kind: 'failed', failure: { code: 'WORKER_RESET', retriable: true } });
  t.deepEqual(await engine.health(never), { live: true, ready: true });
  t.deepEqual(host.losses, []);
});

test('a connection that breaks before the first byte is POOL_UNAVAILABLE, and not tried again', async (t) => {
  let asked = 0;
  const server = createServer((req, res) => {
    if (req.url === '/health') return void res.end('{}');
    if (req.url === '/embedding') return void res.writeHead(501).end('{}');
    if (req.url === '/props') {
      return void res.end(JSON.stringify({ total_slots: 1, default_generation_settings: { n_ctx: 64 } }));
    }
    if (++asked % 3 !== 0) return void req.socket.destroy();
    res.end(
      'data: {"content":"hi","stop":true,"stop_type":"limit","tokens_predicted":1,"tokens_evaluated":2}\n\n',
    );
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const engine = createExternalLlamaEngine({ url, clock: systemClock, host: recordingHost() });
  t.teardown(async () => {
    await engine.unload();
    server.close();
  });
  await engine.load(never);
  const broken = await record(engine, promptCall('Once'));
  t.like(broken.outcome, { kind: 'failed', failure: { code: 'POOL_UNAVAILABLE', retriable: true } });
  t.is(asked, 1);
});

for (const [status, code] of [
  [400, 'INVALID_PARAMS'],
  [401, 'INTERNAL'],
  [403, 'INTERNAL'],
  [404, 'POOL_UNAVAILABLE'],
  [429, 'ADMISSION_REJECT'],
  [500, 'POOL_UNAVAILABLE'],
  [503, 'POOL_UNAVAILABLE'],
] as const) {
  test(`HTTP ${status} before the start is ${code}`, async (t) => {
    const refuse = { status, body: { error: { message: 'no', type: 'x' } }, headers: { 'retry-after': '2' } };
    const { failure, deltas } = await failureOf(t, { refuse });
    t.is(failure.code, code);
    t.is(deltas.length, 0);
    if (status === 429) t.like(failure, { retry_after_ms: 2000, policy_label: 'engine' });
  });
}

test('cancel closes the socket, of a stream and of a request that waits for a slot', async (t) => {
  const { fake, engine } = await attach(t, { slots: 1, hold_at: 1 });
  await engine.load(never);
  const [first, second] = [new AbortController(), new AbortController()];
  const running = record(engine, promptCall('one'), { signal: first.signal });
  await fake.streaming(1);
  const waiting = record(engine, promptCall('two'), { signal: second.signal });
  second.abort();
  t.is((await waiting).outcome.kind, 'aborted');
  first.abort();
  t.is((await running).outcome.kind, 'aborted');
  await fake.clientLeft();
  t.is((await engine.health(never)).live, true);
});

test('a server that answers health checks and decodes nothing is found by a probe that is given up', async (t) => {
  const { fake, engine } = await attach(t, {});
  await engine.load(never);
  t.true(await engine.probe?.(never));
  fake.deafen();
  t.deepEqual(await engine.health(never), { live: true, ready: true });
  const patience = new AbortController();
  const answer = engine.probe?.(patience.signal);
  await until(() => fake.busySlots === 1);
  patience.abort();
  t.false(await answer);
  // It takes no slot with it.
  await until(() => fake.busySlots === 0);
});

test('a server is offered for what it was started for, and for no more', async (t) => {
  const offered = async (options: FakeLlamaOptions) => {
    const { fake, engine } = await attach(t, options);
    const { workloads, features } = await engine.load(never);
    const { chat, ...able } = features;
    const completes = workloads.includes('completion');
    t.is(chat, completes ? 'rendered' : 'none');
    t.like(able, { grammar: completes, json_schema: completes, resume: completes, deterministic: false });
    t.true(fake.completions.every(({ body }) => body['n_predict'] === 1));
    return { workloads, completions: fake.completions.length };
  };
  t.deepEqual(await offered({}), { workloads: ['completion'], completions: 0 });
  t.deepEqual((await offered({ embeddings: 'pooled' })).workloads, ['completion', 'embedding']);
  t.deepEqual((await offered({ embeddings: 'tokens', completes: false })).workloads, ['embedding']);
  t.deepEqual((await offered({ reranking: true })).workloads, ['completion', 'rerank']);
  t.deepEqual((await offered({ reranking: true, completes: false })).workloads, ['rerank']);
});

test('without pooling, the vector is that of the last token', async (t) => {
  const [pooled, tokens] = [
    await attach(t, { embeddings: 'pooled' }),
    await attach(t, { embeddings: 'tokens' }),
  ];
  await Promise.all([pooled.engine.load(never), tokens.engine.load(never)]);
  const inputs = ['a little dog', 'the moon'];
  t.deepEqual(
    await recordResults(tokens.engine, 'embedding', inputs),
    await recordResults(pooled.engine, 'embedding', inputs),
  );
});

test('an input that does not fit the physical batch is named with both numbers', async (t) => {
  const { engine } = await attach(t, { embeddings: 'pooled', batch: 8 });
  await engine.load(never);
  const embedded = refusalOf(t, await recordResults(engine, 'embedding', ['a', 'a dog and '.repeat(5)]));
  t.is(embedded.code, 'INVALID_PARAMS');
  t.is(embedded.message, '`inputs[1]`: The input is 16 tokens and the engine takes 8 at once.');
  const ranker = await attach(t, { reranking: true, batch: 12 });
  await ranker.engine.load(never);
  const run = await recordResults(ranker.engine, 'rerank', ['a', 'a dog and '.repeat(5)]);
  t.regex(refusalOf(t, run).message, /^`inputs\[1\]`: The input is 22 tokens/u);
});

for (const [kind, code] of [
  ['error', 'POOL_UNAVAILABLE'],
  ['garbage', 'WORKER_RESET'],
  ['null', 'WORKER_RESET'],
  ['reset', 'WORKER_RESET'],
] as const) {
  test(`a vector that fails by ${kind} is ${code}, and what came before it stays`, async (t) => {
    const host = recordingHost();
    const { engine } = await attach(t, { embeddings: 'pooled', vector_fault: { kind, at: 1 } }, { host });
    await engine.load(never);
    const run = await recordResults(engine, 'embedding', ['a dog', 'the moon', 'a bear']);
    t.deepEqual(run.places, [0]);
    t.is(refusalOf(t, run).code, code);
    t.is((await recordResults(engine, 'embedding', ['a dog'])).outcome.kind, 'finished');
    t.deepEqual(host.losses, []);
  });
}

test('a call takes one slot of the server, however many inputs it has', async (t) => {
  const { fake, engine } = await attach(t, { embeddings: 'pooled', slots: 4, hold_at: 2 });
  await engine.load(never);
  const abort = new AbortController();
  const run = recordResults(engine, 'embedding', ['a', 'b', 'c', 'd', 'e'], { signal: abort.signal });
  await fake.streaming(3);
  t.is(fake.busySlots, 1);
  abort.abort();
  t.is((await run).outcome.kind, 'aborted');
  await fake.clientLeft();
});

test('what the server says about a constraint is passed on, and one that goes too deep never gets there', async (t) => {
  const refuse = {
    status: 400,
    body: { error: { message: 'Failed to initialize samplers: failed to parse grammar' } },
  };
  const { fake, engine } = await attach(t, { refuse });
  await engine.load(never);
  const bad = await record(engine, promptCall('x', { output: { kind: 'grammar', gbnf: 'root ::= (' } }));
  t.is(refusalOf(t, bad).code, 'INVALID_PARAMS');
  t.regex(refusalOf(t, bad).message, /parse grammar/u);
  let schema: object = { type: 'boolean' };
  for (let depth = 0; depth < 20_000; depth++) schema = { type: 'array', items: schema };
  const deep = await record(engine, promptCall('x', { output: { kind: 'json_schema', schema } }));
  t.is(refusalOf(t, deep).code, 'INVALID_PARAMS');
  t.is(fake.completions.length, 1);
});
