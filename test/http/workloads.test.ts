import test from 'ava';
import { startFakeLlamaServer } from '../helpers/fake-llama-server.ts';
import { request, startTestServer } from '../helpers/server.ts';
import { until } from '../helpers/until.ts';
import { steppedServer } from './stepped-server.ts';
import { call, follow, names, type Answer } from './wire.ts';

type Server = Parameters<typeof call>[0];

function post(server: Server, fields: object = {}): Promise<Answer> {
  const { prompt: _prompt, ...rest } = request;
  return call(server, 'POST', '/v1/tasks', { ...rest, ...fields });
}

const EMBEDDING = { workload: 'embedding', inputs: ['a fox', 'a hen', 'a fox', 'the barn'] } as const;
const RERANK = {
  workload: 'rerank',
  prompt: 'a red fox',
  inputs: ['the barn', 'a red fox runs', 'a red hen'],
} as const;

test('an embedding streams one vector for each text in order, and the task holds them', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  const { status, body } = await post(server, EMBEDDING);
  t.is(status, 202);
  const id = body['task_id'] as string;
  const reader = await follow(server, id);
  await reader.over;
  const frames = reader.frames();
  t.deepEqual(
    names(frames).filter((name) => name !== 'metrics'),
    ['started', 'embedding', 'embedding', 'embedding', 'embedding', 'end'],
  );
  const vectors = frames.filter(({ event }) => event === 'embedding').map(({ data }) => data);
  t.deepEqual(
    vectors.map(({ i }) => i),
    [0, 1, 2, 3],
  );
  t.deepEqual(vectors[0]?.['vector'], vectors[2]?.['vector'], 'equal texts have equal vectors');
  t.notDeepEqual(vectors[0]?.['vector'], vectors[1]?.['vector']);
  t.like(frames.at(-1)?.data, { tokens_out: 0, finish_reason: 'eos' });
  const info = (await call(server, 'GET', `/v1/tasks/${id}`)).body;
  t.like(info, { state: 'ended', workload: 'embedding', text: '' });
  t.deepEqual(info['embeddings'], vectors);
  t.false('ranking' in info);
});

test('a single text to embed may be the prompt', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  const { body } = await post(server, { workload: 'embedding', prompt: 'a fox' });
  const events = await server.events(body['task_id'] as string);
  t.is(events.filter(({ event }) => event === 'embedding').length, 1);
});

test('a ranking streams the best document first, and the task holds it', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  const { body } = await post(server, RERANK);
  const id = body['task_id'] as string;
  const reader = await follow(server, id);
  await reader.over;
  const ranks = reader.frames().filter(({ event }) => event === 'rerank');
  t.deepEqual(
    ranks.map(({ data }) => [data['i'], data['index']]),
    [
      [0, 1],
      [1, 2],
      [2, 0],
    ],
  );
  const scores = ranks.map(({ data }) => data['score'] as number);
  t.deepEqual(
    scores,
    scores.toSorted((a, b) => b - a),
  );
  const info = (await call(server, 'GET', `/v1/tasks/${id}`)).body;
  t.deepEqual(
    info['ranking'],
    ranks.map(({ data }) => data),
  );
  t.false('embeddings' in info);
});

for (const work of [EMBEDDING, RERANK])
  test(`a reader of the workload ${work.workload} that was away goes on where it was`, async (t) => {
    const server = await steppedServer();
    t.teardown(server.close);
    const { body } = await post(server, work);
    const id = body['task_id'] as string;
    const early = await follow(server, id);
    await until(() => early.frames().length === 1);
    early.leave();
    server.clock.advance(20);
    const during = follow(server, id, '', { 'Last-Event-ID': '0' });
    await server.step(() => server.state(id) === 'ended');
    await (
      await during
    ).over;
    const whole = await follow(server, id);
    await whole.over;
    t.deepEqual((await during).frames(), whole.frames().slice(1));
    for (const after of [1, 3]) {
      const rest = await follow(server, id, `?after=${after}`);
      await rest.over;
      t.deepEqual(rest.frames(), whole.frames().slice(after + 1));
    }
  });

test('a vector in the middle of its task can be asked for: GET shows those that are there', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  const { body } = await post(server, EMBEDDING);
  const id = body['task_id'] as string;
  const vectors = async (): Promise<unknown[]> =>
    (await call(server, 'GET', `/v1/tasks/${id}`)).body['embeddings'] as unknown[];
  t.is((await vectors()).length, 0);
  await server.step(() => server.state(id) === 'streaming');
  t.is((await vectors()).length, 1);
  server.clock.advance(10);
  t.is((await vectors()).length, 2);
});

const rules: [title: string, fields: object, message: RegExp][] = [
  [
    'a ranking without a query',
    { workload: 'rerank', inputs: ['a'] },
    /^prompt: is required for workload rerank/,
  ],
  ['a ranking without documents', { workload: 'rerank', prompt: 'a' }, /^inputs: is required/],
  ['a ranking of no documents', { ...RERANK, inputs: [] }, /^inputs: must not be empty/],
  ['an embedding of a prompt and inputs', { ...EMBEDDING, prompt: 'a' }, /^prompt and inputs: only one/],
  ['an embedding of nothing', { workload: 'embedding' }, /^prompt, inputs or messages: one of them/],
  [
    'an embedding of a chat',
    { workload: 'embedding', messages: [{ role: 'user', content: 'a' }] },
    /^messages: only go with workload completion/,
  ],
  [
    'a text that does not fit',
    { ...EMBEDDING, ctx: 10, inputs: ['a', 'x'.repeat(100)] },
    /^inputs\[1\]: has 25 tokens, at most 10 fit in ctx/,
  ],
  [
    'a document that does not fit with its query',
    { ...RERANK, ctx: 10, inputs: ['a', 'x'.repeat(36)] },
    /^inputs\[1\]: has 12 tokens, at most 10/,
  ],
  ['an unknown workload', { workload: 'poetry', prompt: 'a' }, /^workload: must be one of/],
];

for (const [title, fields, message] of rules)
  test(`${title} is 400 and says which field`, async (t) => {
    const server = await startTestServer();
    t.teardown(server.close);
    const { status, body } = await post(server, fields);
    t.is(status, 400);
    t.like(body, { code: 'INVALID_PARAMS', engine: 'synthetic' });
    t.regex(body['message'] as string, message);
    t.deepEqual((await call(server, 'GET', '/v1/tasks')).body['tasks'], []);
  });

test('a grammar or a schema that the engine cannot hold to is refused before it is queued', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  for (const [name, sampling] of Object.entries({
    grammar: { grammar: 'root ::= "a"' },
    json_schema: { json_schema: { type: 'object' } },
  })) {
    const { status, body } = await post(server, { prompt: 'a', sampling });
    t.is(status, 400);
    t.like(body, { code: 'INVALID_PARAMS', engine: 'synthetic', retriable: false });
    t.regex(body['message'] as string, new RegExp(`^sampling\\.${name}: this engine cannot`));
  }
  t.deepEqual((await call(server, 'GET', '/v1/tasks')).body['tasks'], []);
});

test('messages for a model without a chat template are refused before they are queued', async (t) => {
  const fake = await startFakeLlamaServer({ chat_template: false });
  t.teardown(() => fake.kill());
  const server = await startTestServer({
    pools: [
      {
        id: 'plain',
        engine: 'llamacpp',
        model: 'fake',
        provisioning: { mode: 'external', external: { url: fake.url } },
      },
    ],
  });
  t.teardown(server.close);
  await until(() => server.orchestrator.core.pools.get('plain')?.isReady);
  const [pool] = (await call(server, 'GET', '/v1/capabilities')).body['engines'] as { model_id: string }[];
  const { status, body } = await post(server, {
    engine: 'llamacpp',
    model_ref: pool?.model_id,
    ctx: 100,
    messages: [{ role: 'user', content: 'Hello' }],
  });
  t.is(status, 400);
  t.like(body, { code: 'INVALID_PARAMS', engine: 'llamacpp' });
  t.regex(body['message'] as string, /^messages: /);
  t.is(fake.completions.length, 0);
});
