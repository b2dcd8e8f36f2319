import test from 'ava';
import { startTestServer, SYNTHETIC, request } from '../helpers/server.ts';
import { steppedServer } from './stepped-server.ts';
import { call, follow, idOf } from './wire.ts';

const SESSION = idOf(1);
const PATH = `/v1/sessions/${SESSION}`;

test('a session comes into being when it is read, and says its life time, turns and cache', async (t) => {
  const server = await steppedServer({ session: { ttl_ms: 5000 } });
  t.teardown(server.close);
  const first = await call(server, 'GET', PATH);
  t.is(first.status, 200);
  t.deepEqual(first.body, { ttl_ms_remaining: 5000, turns: 0, kv_bytes: 0, kv_warmth: false });
  server.clock.advance(1000);
  t.is((await call(server, 'GET', PATH)).body['ttl_ms_remaining'], 4000, 'reading is no use');
});

test('a session is kept alive by a POST, and one that has expired or never was is 404', async (t) => {
  const server = await steppedServer({ session: { ttl_ms: 5000 } });
  t.teardown(server.close);
  t.is((await call(server, 'POST', PATH)).status, 404);
  await call(server, 'GET', PATH);
  server.clock.advance(4999);
  t.is((await call(server, 'POST', PATH)).status, 204);
  t.is((await call(server, 'GET', PATH)).body['ttl_ms_remaining'], 5000);
  server.clock.advance(5000);
  t.is((await call(server, 'POST', PATH)).status, 404);
});

test('a session is ended by DELETE, again and again, and begins anew when it is read', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  await server.submit({ session_id: SESSION });
  t.is((await call(server, 'GET', PATH)).body['turns'], 1);
  for (const _ of [1, 2]) t.is((await call(server, 'DELETE', PATH)).status, 204);
  t.is((await call(server, 'POST', PATH)).status, 404);
  t.is((await call(server, 'GET', PATH)).body['turns'], 0);
});

test('the running task of a session that is ended goes on to its end', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  const id = await server.submit({ session_id: SESSION, max_tokens: 20 });
  await server.step(() => server.tokens(id) >= 3);
  t.is((await call(server, 'DELETE', PATH)).status, 204);
  await server.step(() => server.state(id) === 'ended');
  t.like((await server.events(id)).at(-1), { event: 'end', data: { tokens_out: 20 } });
  t.is((await call(server, 'GET', PATH)).body['turns'], 0);
});

test('a session id that is no UUID is 400 and named, for every method', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  for (const method of ['GET', 'POST', 'DELETE'])
    for (const id of ['abc', '0198c0de', `${SESSION}0`, '%00']) {
      const { status, body } = await call(server, method, `/v1/sessions/${id}`);
      t.is(status, 400);
      t.like(body, { code: 'INVALID_PARAMS' });
      t.regex(body['message'] as string, /^session_id: must be a UUID, got/);
    }
});

test('turns count accepted tasks only, and an engine that reuses no cache leaves none warm', async (t) => {
  const server = await steppedServer({ pool: { queue: { capacity: 1 } } });
  t.teardown(server.close);
  const id = await server.submit({ session_id: SESSION });
  await server.submit({ session_id: SESSION });
  t.is((await server.post({ session_id: SESSION })).status, 429);
  t.is((await server.post({ session_id: SESSION, deadline_ms: 0 })).status, 400);
  t.like((await call(server, 'GET', PATH)).body, { turns: 2, kv_warmth: false });
  await server.step(() => server.tokens(id) === 1);
  t.like((await call(server, 'GET', PATH)).body, { turns: 2, kv_warmth: false });
});

test('a session that was left out gets an id, which the answer names', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  const { body } = await call(server, 'POST', '/v1/tasks', request);
  t.regex(body['session_id'] as string, /^[0-9a-f-]{14}7/);
  t.is((await call(server, 'GET', `/v1/sessions/${body['session_id'] as string}`)).body['turns'], 1);
});

const BUDGETS = { session: { budgets: { tokens: 100, time_ms: 60_000, cost: 0.0002 } } };
const HEADERS = ['x-budget-tokens-remaining', 'x-budget-time-remaining-ms', 'x-budget-cost-remaining'];

test('with three budgets, 202, stream, metrics and session say what is left of each', async (t) => {
  const server = await steppedServer(BUDGETS);
  t.teardown(server.close);
  const left = (headers: Headers): (string | null)[] => HEADERS.map((name) => headers.get(name));
  const admitted = await call(server, 'POST', '/v1/tasks', {
    ...request,
    session_id: SESSION,
    max_tokens: 10,
  });
  t.is(admitted.status, 202);
  t.deepEqual(left(admitted.headers), ['90', '60000', '0.00018'], 'what it may write is reserved');
  const id = admitted.body['task_id'] as string;
  await server.step(() => server.state(id) === 'ended');
  const second = await call(server, 'POST', '/v1/tasks', { ...request, session_id: SESSION, max_tokens: 4 });
  t.deepEqual(left(second.headers), ['86', '59910', '0.000172']);
  const reader = await follow(server, second.body['task_id'] as string);
  t.deepEqual(left(reader.headers), ['86', '59910', '0.000172']);
  await server.step(() => server.state(second.body['task_id'] as string) === 'ended');
  await reader.over;
  t.like(reader.frames().findLast(({ event }) => event === 'metrics')?.data, {
    tokens_budget_remaining: 86,
    time_budget_remaining_ms: 59_910,
    cost_budget_remaining: 0.000172,
  });
  t.like((await call(server, 'GET', PATH)).body, {
    turns: 2,
    tokens_budget_remaining: 86,
    time_budget_remaining_ms: 59_880,
    cost_budget_remaining: 0.000172,
  });
});

test('what is left of a budget is written as a plain decimal, in headers and in words', async (t) => {
  const server = await steppedServer({
    session: { budgets: { cost: 0.0000005 } },
    budget: { cost_per_output_token: 0.0000001 },
  });
  t.teardown(server.close);
  const body = { ...request, session_id: SESSION, max_tokens: 1 };
  const first = await call(server, 'POST', '/v1/tasks', body);
  t.is(first.headers.get('x-budget-cost-remaining'), '0.0000004');
  const refused = await call(server, 'POST', '/v1/tasks', { ...body, max_tokens: 9 });
  t.regex(refused.body['message'] as string, /0\.0000004 of 0\.0000005 .*asks for 0\.0000009/);
});

test('vectors cost no tokens: none are reserved, and none need be left', async (t) => {
  const server = await steppedServer({ session: { budgets: { tokens: 10 } } });
  t.teardown(server.close);
  const body = { ...request, session_id: SESSION, workload: 'embedding', max_tokens: 50 };
  const { status, headers } = await call(server, 'POST', '/v1/tasks', body);
  t.is(status, 202);
  t.is(headers.get('x-budget-tokens-remaining'), '10');
  t.is(
    (await call(server, 'POST', '/v1/tasks', { ...request, session_id: SESSION, max_tokens: 10 })).status,
    202,
  );
  t.is((await call(server, 'POST', '/v1/tasks', body)).status, 202);
});

test('without budgets nothing is said of them', async (t) => {
  const server = await startTestServer(SYNTHETIC);
  t.teardown(server.close);
  const { headers, body } = await call(server, 'POST', '/v1/tasks', { ...request, session_id: SESSION });
  const reader = await follow(server, body['task_id'] as string);
  await reader.over;
  for (const name of HEADERS) {
    t.is(headers.get(name), null);
    t.is(reader.headers.get(name), null);
  }
  for (const { data } of reader.frames()) t.false(Object.keys(data).some((key) => key.includes('budget')));
});

const exhausted = [
  { budget: 'tokens', budgets: { tokens: 15 } },
  { budget: 'time', budgets: { time_ms: 90 } },
  { budget: 'cost', budgets: { cost: 0.00003 } },
];

for (const { budget, budgets } of exhausted)
  test(`a session whose ${budget} are used is refused with 429, budget.${budget}, until it has expired`, async (t) => {
    const server = await steppedServer({ session: { ttl_ms: 5000, budgets } });
    t.teardown(server.close);
    const body = { ...request, session_id: SESSION, max_tokens: 10 };
    const id = await server.submit(body);
    await server.step(() => server.state(id) === 'ended');
    server.clock.advance(1500);
    const refused = await call(server, 'POST', '/v1/tasks', body);
    t.is(refused.status, 429);
    t.is(refused.body['retry_after_ms'], 3500);
    t.is(refused.headers.get('retry-after'), '4');
    t.like(refused.body, {
      code: 'ADMISSION_REJECT',
      policy_label: `budget.${budget}`,
      retriable: false,
      engine: 'synthetic',
    });
    t.is((await call(server, 'POST', '/v1/tasks', { ...body, session_id: idOf(2) })).status, 202);
    server.clock.advance(3500);
    t.is((await call(server, 'POST', '/v1/tasks', body)).status, 202);
  });

test('a task that would fit once others have given theirs back is refused for now, with a time', async (t) => {
  const server = await steppedServer({ session: { budgets: { tokens: 15 } } });
  t.teardown(server.close);
  const body = { ...request, session_id: SESSION, max_tokens: 10 };
  await server.submit(body);
  const refused = await call(server, 'POST', '/v1/tasks', body);
  t.is(refused.status, 429);
  t.like(refused.body, { policy_label: 'budget.tokens', retriable: true });
  t.is(refused.headers.get('retry-after'), '1');
});

test('a session that has had all its turns is ended with 400, and its id begins anew', async (t) => {
  const server = await startTestServer({ ...SYNTHETIC, session: { max_turns: 2 } });
  t.teardown(server.close);
  const body = { ...request, session_id: SESSION };
  for (const _ of [1, 2]) t.is((await call(server, 'POST', '/v1/tasks', body)).status, 202);
  const refused = await call(server, 'POST', '/v1/tasks', body);
  t.is(refused.status, 400);
  t.like(refused.body, { code: 'INVALID_PARAMS', engine: 'synthetic' });
  t.regex(refused.body['message'] as string, /^session_id: .*session\.max_turns is 2/);
  t.is((await call(server, 'POST', '/v1/tasks', body)).status, 202);
  t.is((await call(server, 'GET', PATH)).body['turns'], 1);
});
