import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { openStorage } from '../../src/storage.ts';
import { request } from '../helpers/server.ts';
import { SimulatedClock } from '../helpers/simulated-clock.ts';
import { steppedServer, type SteppedServer, type SteppedSettings } from './stepped-server.ts';
import { call, follow, idOf, names } from './wire.ts';
import { until } from '../helpers/until.ts';

type Restartable = SteppedServer & {
  /** Stops at once, as SIGTERM with no time would, and starts again a second later on the same files. */
  restart: (settings?: SteppedSettings) => Promise<SteppedServer>;
};

async function durableServer(t: ExecutionContext, settings: SteppedSettings = {}): Promise<Restartable> {
  const folder = mkdtempSync(join(tmpdir(), 'taskchart-http-'));
  let current: SteppedServer | undefined;
  t.teardown(async () => {
    await current?.close();
    rmSync(folder, { recursive: true, force: true });
  });
  const start = async (changed: SteppedSettings): Promise<SteppedServer> => {
    const storage = await openStorage(folder);
    const clock = new SimulatedClock(current && current.clock.wall() + 1000);
    return (current = await steppedServer(changed, { ...storage, clock }));
  };
  return {
    ...(await start(settings)),
    async restart(changed = settings) {
      await current?.close();
      return start(changed);
    },
  };
}

test('after a restart a finished task is read, listed and streamed as before, from anywhere', async (t) => {
  const before = await durableServer(t);
  const id = await before.submit({ max_tokens: 9, session_id: idOf(1) });
  await before.step(() => before.state(id) === 'ended');
  const stream = await before.raw(id);
  const info = (await call(before, 'GET', `/v1/tasks/${id}`)).body;
  const server = await before.restart();
  t.is(await server.raw(id), stream);
  const frames = stream.split('\n\n').slice(0, -1);
  for (const after of [0, 4, frames.length - 2])
    t.is(await server.raw(id, { lastEventId: after }), `${frames.slice(after + 1).join('\n\n')}\n\n`);
  t.is(await server.raw(id, { lastEventId: frames.length - 1 }), '');
  const again = (await call(server, 'GET', `/v1/tasks/${id}`)).body;
  t.deepEqual(
    { ...again, timings: undefined, usage: undefined },
    { ...info, timings: undefined, usage: undefined },
  );
  t.like(again, { state: 'ended', text: ' t0 t1 t2 t3 t4 t5 t6 t7 t8', finish_reason: 'limit' });
  t.deepEqual(again['usage'], info['usage']);
  t.deepEqual(again['timings'], info['timings']);
  const { body } = await call(server, 'GET', `/v1/tasks?session_id=${idOf(1)}`);
  t.deepEqual(
    (body['tasks'] as { task_id: string }[]).map(({ task_id }) => task_id),
    [id],
  );
});

test('after a restart tasks that waited run in their old order, and the one that ran goes on where it was', async (t) => {
  const before = await durableServer(t);
  const running = await before.submit({ max_tokens: 30 });
  const waiting = [await before.submit({ max_tokens: 2 }), await before.submit({ max_tokens: 2 })];
  await before.step(() => before.tokens(running) === 10);
  const reader = await follow(before, running);
  const server = await before.restart();
  await reader.over;
  const seen = reader.frames();
  t.not(seen.at(-1)?.event, 'end', 'a stream that is cut off has no end');
  const resumed = await follow(server, running, '', { 'Last-Event-ID': String(seen.at(-1)?.id) });
  await server.step(() => waiting.every((id) => server.state(id) === 'ended'));
  await resumed.over;
  const rest = resumed.frames();
  t.is(rest[0]?.id, (seen.at(-1)?.id as number) + 1);
  const tokens = [...seen, ...rest].filter(({ event }) => event === 'token').map(({ data }) => data);
  t.deepEqual(
    tokens,
    Array.from({ length: 30 }, (_, i) => ({ t: ` t${i}`, i })),
  );
  t.true(rest.some(({ event, data }) => event === 'metrics' && data['resumed'] === true));
  t.like(rest.at(-1), { event: 'end', data: { tokens_out: 30 } });
  const placed = await Promise.all(
    [running, ...waiting].map(
      async (id) =>
        ((await call(server, 'GET', `/v1/tasks/${id}`)).body['timings'] as { placed_ms: number }).placed_ms,
    ),
  );
  t.deepEqual(
    placed.slice(1),
    placed.slice(1).toSorted((a, b) => a - b),
  );
  for (const id of waiting) {
    const events = names(await server.events(id));
    t.is(events.filter((name) => name === 'started').length, 1);
    t.is(events.at(-1), 'end');
  }
});

test('after a restart a key and an id still stand for their tasks', async (t) => {
  const before = await durableServer(t);
  const headers = { 'Idempotency-Key': 'k' };
  const post = (server: SteppedServer, body: object, more: Record<string, string> = {}) =>
    call(server, 'POST', '/v1/tasks', { ...request, ...body }, more);
  const keyed = (await post(before, {}, headers)).body['task_id'];
  const ended = idOf(3);
  await post(before, { task_id: ended, max_tokens: 1 });
  await before.step(() => before.state(ended) === 'ended');
  const server = await before.restart();
  const again = await post(server, {}, headers);
  t.is(again.status, 202);
  t.is(again.body['task_id'], keyed);
  t.is((await post(server, { prompt: 'another' }, headers)).status, 409);
  t.is((await post(server, { task_id: ended, max_tokens: 1 })).status, 202);
  t.is((await post(server, { task_id: ended, max_tokens: 2 })).status, 409);
  t.is(((await call(server, 'GET', '/v1/tasks')).body['tasks'] as unknown[]).length, 2);
});

test('after a restart every key that a task was posted with stands for it, and the same body is the same', async (t) => {
  const before = await durableServer(t, { admission: { idempotency_ttl_ms: 60_000 } });
  const body = `{"task_id":"${idOf(1)}","sampling":{"temperature":-0.0},${JSON.stringify(request).slice(1)}`;
  const post = (server: SteppedServer, key: string) =>
    call(server, 'POST', '/v1/tasks', body, { 'Idempotency-Key': key });
  for (const key of ['first', 'second']) t.is((await post(before, key)).status, 202);
  const server = await before.restart();
  for (const key of ['first', 'second']) t.is((await post(server, key)).status, 202);
  const other = await call(server, 'POST', '/v1/tasks', request, { 'Idempotency-Key': 'second' });
  t.is(other.status, 409);
  server.clock.advance(60_000);
  const free = await call(server, 'POST', '/v1/tasks', request, { 'Idempotency-Key': 'second' });
  t.is(free.status, 202);
  const last = await before.restart();
  const again = await call(last, 'POST', '/v1/tasks', request, { 'Idempotency-Key': 'second' });
  t.is(again.body['task_id'], free.body['task_id']);
});

test('after a restart a key stands for its task no longer than before', async (t) => {
  const before = await durableServer(t, { admission: { idempotency_ttl_ms: 60_000 } });
  const headers = { 'Idempotency-Key': 'k' };
  const first = (await call(before, 'POST', '/v1/tasks', request, headers)).body['task_id'];
  before.clock.advance(30_000);
  const server = await before.restart();
  const post = async (): Promise<unknown> =>
    (await call(server, 'POST', '/v1/tasks', request, headers)).body['task_id'];
  server.clock.advance(25_000);
  t.is(await post(), first);
  server.clock.advance(5000);
  t.not(await post(), first);
});

test('after a restart a session has the turns and the budgets that it had', async (t) => {
  const settings = {
    session: { max_turns: 3, budgets: { tokens: 100, time_ms: 60_000, cost: 1 } },
  };
  const before = await durableServer(t, settings);
  const session_id = idOf(4);
  const id = await before.submit({ session_id, max_tokens: 20 });
  await before.step(() => before.state(id) === 'ended');
  await before.submit({ session_id: idOf(5), max_tokens: 2000, ctx: 4000 }).catch(() => undefined);
  const read = async (): Promise<Record<string, unknown>> =>
    (await call(before, 'GET', `/v1/sessions/${session_id}`)).body;
  // A session is charged with what the store keeps of the task, a moment after the stream has its end.
  await until(
    async () =>
      (await read())['tokens_budget_remaining'] === 80 &&
      (await read())['time_budget_remaining_ms'] !== 60_000,
  );
  const info = await read();
  t.like(info, { turns: 1, tokens_budget_remaining: 80, kv_warmth: false });
  const server = await before.restart();
  const again = (await call(server, 'GET', `/v1/sessions/${session_id}`)).body;
  t.deepEqual(
    { ...again, kv_bytes: 0, ttl_ms_remaining: 0 },
    { ...info, kv_bytes: 0, ttl_ms_remaining: 0, kv_warmth: false },
    'its cache went with its engine',
  );
  const posted = await call(server, 'POST', '/v1/tasks', { ...request, session_id, max_tokens: 81 });
  t.is(posted.status, 429);
  t.is(posted.body['policy_label'], 'budget.tokens');
  t.is((await server.post({ session_id, max_tokens: 80 })).headers.get('x-budget-tokens-remaining'), '0');
});

test('after a restart an unfinished task still holds what it has reserved', async (t) => {
  const settings = { session: { budgets: { tokens: 50 } } };
  const before = await durableServer(t, settings);
  const session_id = idOf(6);
  const first = await before.submit({ session_id, max_tokens: 30 });
  await before.step(() => before.tokens(first) === 3);
  const server = await before.restart();
  t.is((await server.post({ session_id, max_tokens: 21 })).status, 429);
  await server.step(() => server.state(first) === 'ended');
  t.like((await call(server, 'GET', `/v1/sessions/${session_id}`)).body, {
    turns: 1,
    tokens_budget_remaining: 20,
  });
});

test('after a restart a canceled and a forgotten task are canceled and forgotten', async (t) => {
  const before = await durableServer(t);
  const canceled = await before.submit();
  await before.cancel(canceled);
  const forgotten = await before.submit();
  await before.cancel(forgotten);
  t.is((await call(before, 'DELETE', `/v1/tasks/${forgotten}`)).status, 204);
  const server = await before.restart();
  t.like((await call(server, 'GET', `/v1/tasks/${canceled}`)).body, { state: 'ended', canceled: true });
  t.like((await server.events(canceled)).at(-1), { event: 'end', data: { canceled: true } });
  for (const path of ['', '/stream'])
    t.is((await call(server, 'GET', `/v1/tasks/${forgotten}${path}`)).status, 404);
});

test('pages of a list go on across a restart', async (t) => {
  const before = await durableServer(t);
  const ids: string[] = [];
  for (let n = 0; n < 6; n++) ids.push(await before.submit({ max_tokens: 1 }));
  const first = (await call(before, 'GET', '/v1/tasks?limit=4')).body;
  const server = await before.restart();
  await server.submit({ max_tokens: 1 });
  const second = (await call(server, 'GET', `/v1/tasks?limit=4&cursor=${first['next_cursor'] as string}`))
    .body;
  const listed = [first, second].flatMap(({ tasks }) => tasks as { task_id: string }[]);
  t.deepEqual(
    listed.map(({ task_id }) => task_id),
    ids.toReversed(),
  );
});
