import test from 'ava';
import { request, startTestServer } from '../helpers/server.ts';
import { steppedServer } from './stepped-server.ts';
import { call, idOf, type Answer } from './wire.ts';

type Server = Parameters<typeof call>[0];
const SESSION = idOf(1);

function preview(server: Server, fields: object = {}): Promise<Answer> {
  return call(server, 'POST', '/v1/tasks/preview', { ...request, ...fields });
}

function post(server: Server, fields: object = {}): Promise<Answer> {
  return call(server, 'POST', '/v1/tasks', { ...request, ...fields });
}

test('a preview says the position and the start that the task would be told', async (t) => {
  const server = await steppedServer({ pool: { synthetic: { first_token_ms: 60_000 } } });
  t.teardown(server.close);
  t.deepEqual((await preview(server)).body, { feasible: true, queue_position: 0, predicted_start_ms: 0 });
  for (const _ of [1, 2, 3]) await post(server, { expected_tokens: 10 });
  const { status, body } = await preview(server);
  t.is(status, 200);
  const { queue_position, predicted_start_ms } = (await post(server)).body;
  t.deepEqual(body, { feasible: true, queue_position, predicted_start_ms });
  t.is(queue_position, 2);
  t.is((await preview(server, { priority: 'batch' })).body['queue_position'], 3);
});

/** Each refusal, and what it takes to get there. */
const refusals: [
  title: string,
  fields: object,
  expected: { code: string; retriable: boolean },
  reason: RegExp,
][] = [
  [
    'a deadline that has passed',
    { deadline_ms: 0 },
    { code: 'DEADLINE_UNMET', retriable: false },
    /^deadline_ms: /,
  ],
  [
    'a deadline that cannot be kept',
    { deadline_ms: 5 },
    { code: 'DEADLINE_UNMET', retriable: false },
    /^deadline_ms: /,
  ],
  [
    'an engine that nobody runs',
    { engine: 'vllm' },
    { code: 'POOL_UNAVAILABLE', retriable: false },
    /^engine: /,
  ],
  [
    'a model that nobody serves',
    { model_ref: 'none' },
    { code: 'POOL_UNAVAILABLE', retriable: false },
    /^model_ref: /,
  ],
  ['a context that is too long', { ctx: 9999 }, { code: 'INVALID_PARAMS', retriable: false }, /^ctx: /],
  [
    'more output than allowed',
    { max_tokens: 65 },
    { code: 'INVALID_PARAMS', retriable: false },
    /^max_tokens: /,
  ],
  [
    'a prompt that does not fit',
    { ctx: 20, prompt: 'x'.repeat(400) },
    { code: 'INVALID_PARAMS', retriable: false },
    /^prompt: /,
  ],
  [
    'a grammar',
    { sampling: { grammar: 'root ::= "a"' } },
    { code: 'INVALID_PARAMS', retriable: false },
    /^sampling\.grammar: /,
  ],
  [
    'a pool that is not there',
    { placement: { mode: 'pin', pin_pool_id: 'x' } },
    { code: 'INVALID_PARAMS', retriable: false },
    /^placement\.pin_pool_id: /,
  ],
  [
    'no pool that it would accept',
    { placement: { avoid_pools: ['slow'] } },
    { code: 'POOL_UNAVAILABLE', retriable: false },
    /^placement\.avoid_pools: /,
  ],
  [
    'a sampler profile nobody has',
    { sampler_profile_version: 'v9' },
    { code: 'INVALID_PARAMS', retriable: false },
    /^sampler_profile_version: /,
  ],
  [
    'more tokens than the session has',
    { max_tokens: 50 },
    { code: 'ADMISSION_REJECT', retriable: false },
    /tokens are left/,
  ],
  [
    'a class above its rate',
    { priority: 'batch' },
    { code: 'ADMISSION_REJECT', retriable: true },
    /^priority: too many batch/,
  ],
  ['a full queue', {}, { code: 'ADMISSION_REJECT', retriable: true }, /the queue of pool slow is full/],
];

for (const [title, fields, expected, reason] of refusals)
  test(`a preview is refused for ${title} as the post is, and leaves no trace`, async (t) => {
    const server = await steppedServer({
      session: { budgets: { tokens: 40 } },
      pool: {
        ctx: 128,
        max_tokens_out: 64,
        queue: { capacity: 2 },
        admission: { priorities: [{ name: 'batch', rate_limit_rps: 0.001 }] },
        synthetic: { first_token_ms: 60_000 },
      },
    });
    t.teardown(server.close);
    const base = { ctx: 100, max_tokens: 8 };
    await post(server, { ...base, expected_tokens: 0 });
    await post(server, { ...base, priority: 'batch' });
    if (title === 'a full queue') await post(server, base);
    const body = { ...base, session_id: SESSION, ...fields };
    const before = await traces(server);
    const { status, body: verdict } = await preview(server, body);
    t.is(status, 200);
    t.like(verdict, { feasible: false, ...expected });
    t.regex(verdict['reason'] as string, reason);
    t.deepEqual(await traces(server), before);
    const posted = await post(server, body);
    t.true(posted.status >= 400);
    t.is(posted.body['code'], expected.code);
    t.is(posted.body['message'], verdict['reason']);
  });

async function traces(server: Server): Promise<unknown> {
  const { body: tasks } = await call(server, 'GET', '/v1/tasks');
  const { body: session } = await call(server, 'GET', `/v1/sessions/${SESSION}`);
  const { body: health } = await call(server, 'GET', '/v1/pools/slow/health');
  return { tasks, session, health };
}

test('however often it is asked, a preview uses no turn, no budget, no rate and no place', async (t) => {
  const server = await steppedServer({
    session: { max_turns: 3, budgets: { tokens: 100, time_ms: 1000, cost: 1 } },
    pool: { queue: { capacity: 2 }, admission: { priorities: [{ name: 'interactive', rate_limit_rps: 2 }] } },
  });
  t.teardown(server.close);
  await call(server, 'GET', `/v1/sessions/${SESSION}`);
  const before = await traces(server);
  for (let n = 0; n < 20; n++) {
    const { body } = await preview(server, { session_id: SESSION, task_id: idOf(5) });
    t.deepEqual(body, { feasible: true, queue_position: 0, predicted_start_ms: 0 });
  }
  t.deepEqual(await traces(server), before);
  for (const _ of [1, 2]) t.is((await post(server, { session_id: SESSION })).status, 202);
  t.is((await call(server, 'GET', `/v1/tasks/${idOf(5)}`)).status, 404);
});

test('a preview in a session that has had all its turns does not end the session', async (t) => {
  const server = await startTestServer({
    pools: [{ id: 'slow', engine: 'synthetic', model: 'synthetic' }],
    session: { max_turns: 1 },
  });
  t.teardown(server.close);
  await server.raw(await server.submit({ session_id: SESSION }));
  t.like((await preview(server, { session_id: SESSION })).body, { feasible: false, code: 'INVALID_PARAMS' });
  t.is((await call(server, 'GET', `/v1/sessions/${SESSION}`)).body['turns'], 1);
});

test('a preview of an unready pool says so, and does not bring a cold one up', async (t) => {
  const server = await startTestServer({
    pools: [
      { id: 'gone', engine: 'llamacpp', model: 'file:/nowhere/model.gguf' },
      { id: 'cold', engine: 'synthetic', model: 'synthetic', preload: false },
    ],
  });
  t.teardown(server.close);
  const unready = await preview(server, {
    engine: 'llamacpp',
    model_ref: 'file:/nowhere/model.gguf',
    ctx: 64,
  });
  t.like(unready.body, { feasible: false, code: 'POOL_UNREADY', retriable: true });
  const cold = await preview(server);
  t.like(cold.body, { feasible: true, queue_position: 0 });
  t.true((cold.body['predicted_start_ms'] as number) > 0);
  t.is(server.orchestrator.core.pools.get('cold')?.phase, 'cold');
});

test('a preview of what is no request is 400 and names the field', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  const { status, body } = await preview(server, { ctx: 0 });
  t.is(status, 400);
  t.like(body, { code: 'INVALID_PARAMS', engine: 'synthetic' });
  t.regex(body['message'] as string, /^ctx: /);
});

test('a preview of a task that is accepted already says what posting it again would', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  const task_id = idOf(1);
  await server.submit();
  await post(server, { task_id });
  const same = await preview(server, { task_id });
  t.like(same.body, { feasible: true, queue_position: 0 });
  const other = await preview(server, { task_id, prompt: 'Another' });
  t.like(other.body, { feasible: false, code: 'INVALID_PARAMS', retriable: false });
  t.is(other.body['reason'], (await post(server, { task_id, prompt: 'Another' })).body['message']);
});
