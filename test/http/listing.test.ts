import test from 'ava';
import { request, startTestServer } from '../helpers/server.ts';
import { steppedServer, type SteppedServer } from './stepped-server.ts';
import { call, idOf } from './wire.ts';

type Server = Parameters<typeof call>[0];

async function page(server: Server, query = ''): Promise<{ ids: string[]; next: string | undefined }> {
  const { status, body } = await call(server, 'GET', `/v1/tasks${query}`);
  if (status !== 200) throw new Error(`${query} answered ${status}`);
  return {
    ids: (body['tasks'] as { task_id: string }[]).map(({ task_id }) => task_id),
    next: body['next_cursor'] as string | undefined,
  };
}

async function submitMany(server: SteppedServer, count: number): Promise<string[]> {
  const ids: string[] = [];
  for (let n = 0; n < count; n++) ids.push(await server.submit());
  return ids;
}

test('tasks are listed newest first, and a server without any has an empty page', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  t.deepEqual(await page(server), { ids: [], next: undefined });
  const ids = await submitMany(server, 5);
  t.deepEqual(await page(server), { ids: ids.toReversed(), next: undefined });
});

test('pages go on to the end while tasks arrive and leave: none twice, none lost', async (t) => {
  const server = await steppedServer({ pool: { queue: { capacity: 1000 } } });
  t.teardown(server.close);
  const ids = await submitMany(server, 23);
  const seen: string[] = [];
  let cursor: string | undefined;
  do {
    const { ids: some, next } = await page(server, `?limit=5${cursor ? `&cursor=${cursor}` : ''}`);
    t.true(some.length <= 5);
    seen.push(...some);
    cursor = next;
    await submitMany(server, 3);
    // One that was listed already leaves; the cursor may have been its place.
    const last = some.at(-1) as string;
    if (last !== ids[0]) {
      await server.cancel(last);
      t.is((await call(server, 'DELETE', `/v1/tasks/${last}`)).status, 204);
    }
  } while (cursor);
  t.deepEqual(seen, ids.toReversed());
});

test('a page that is exactly full says that there is no more', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  await submitMany(server, 4);
  const first = await page(server, '?limit=2');
  t.is(first.ids.length, 2);
  t.deepEqual((await page(server, `?limit=2&cursor=${first.next}`)).next, undefined);
  t.is((await page(server, '?limit=4')).next, undefined);
});

test('tasks can be listed by state, pool and session, and by all of them', async (t) => {
  const server = await startTestServer({
    pools: [
      { id: 'one', engine: 'synthetic', model: 'synthetic' },
      { id: 'two', engine: 'synthetic', model: 'other', synthetic: { first_token_ms: 600_000 } },
    ],
  });
  t.teardown(server.close);
  const session_id = idOf(1);
  const ended = await server.submit({ session_id });
  await server.raw(ended);
  const running = await server.submit({ session_id, model_ref: 'other' });
  const queued = await server.submit({ model_ref: 'other' });
  const ids = async (query: string): Promise<string[]> => (await page(server, query)).ids;
  t.deepEqual(await ids('?state=ended'), [ended]);
  t.deepEqual(await ids('?state=placed'), [running]);
  t.deepEqual(await ids('?state=admitted'), [queued]);
  t.deepEqual(await ids('?state=error'), []);
  t.deepEqual(await ids('?pool_id=two'), [queued, running]);
  t.deepEqual(await ids('?pool_id=nowhere'), []);
  t.deepEqual(await ids(`?session_id=${session_id}`), [running, ended]);
  t.deepEqual(await ids(`?session_id=${session_id}&pool_id=two&state=placed`), [running]);
  t.deepEqual(await ids(`?session_id=${session_id}&pool_id=two&state=ended`), []);
});

test('the cursor of a filtered list goes on within the filter', async (t) => {
  const server = await steppedServer({ pool: { queue: { capacity: 100 } } });
  t.teardown(server.close);
  const session_id = idOf(1);
  const mine: string[] = [];
  for (let n = 0; n < 12; n++) {
    const id = await server.submit(n % 2 === 0 ? { session_id } : {});
    if (n % 2 === 0) mine.push(id);
  }
  const first = await page(server, `?session_id=${session_id}&limit=4`);
  const second = await page(server, `?session_id=${session_id}&limit=4&cursor=${first.next}`);
  t.deepEqual([...first.ids, ...second.ids], mine.toReversed());
  t.is(second.next, undefined);
});

const wrong: [query: string, message: RegExp][] = [
  ['limit=0', /^limit: must be a whole number from 1 to 1000, got "0"/],
  ['limit=1001', /^limit: /],
  ['limit=-5', /^limit: /],
  ['limit=1.5', /^limit: /],
  ['limit=ten', /^limit: .*"ten"/],
  ['limit=', /^limit: /],
  ['cursor=here', /^cursor: must be the next_cursor of an earlier page/],
  ['cursor=-1', /^cursor: /],
  ['cursor=99999999999999999999', /^cursor: /],
  ['state=running', /^state: must be one of admitted, provisioning, placed, streaming, ended, error/],
  ['state=', /^state: /],
  ['session_id=mine', /^session_id: must be a UUID/],
];

test('a filter, a limit or a cursor that is none is 400 and named', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  for (const [query, message] of wrong) {
    const { status, body } = await call(server, 'GET', `/v1/tasks?${query}`);
    t.is(status, 400, query);
    t.like(body, { code: 'INVALID_PARAMS', retriable: false });
    t.regex(body['message'] as string, message);
  }
});

test('a finished task can be forgotten: it is 404 from then on, and its id is free', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  const task_id = idOf(1);
  await server.raw(await server.submit({ task_id }));
  t.is((await call(server, 'DELETE', `/v1/tasks/${task_id}`)).status, 204);
  for (const path of [`/v1/tasks/${task_id}`, `/v1/tasks/${task_id}/stream`]) {
    const { status, body } = await call(server, 'GET', path);
    t.is(status, 404);
    t.like(body, { code: 'NOT_FOUND' });
  }
  t.deepEqual((await page(server)).ids, []);
  t.is((await call(server, 'DELETE', `/v1/tasks/${task_id}`)).status, 204);
  t.is((await call(server, 'POST', '/v1/tasks', { ...request, task_id, prompt: 'other' })).status, 202);
  t.like((await server.events(task_id)).at(-1), { event: 'end' });
});

test('a task that waits or runs cannot be forgotten: 409 says what to do, and it goes on', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  const running = await server.submit();
  const queued = await server.submit();
  await server.step(() => server.tokens(running) > 0);
  for (const id of [running, queued]) {
    const { status, body } = await call(server, 'DELETE', `/v1/tasks/${id}`);
    t.is(status, 409);
    t.like(body, { code: 'INVALID_PARAMS', retriable: false });
    t.regex(body['message'] as string, /^task_id: .*cancel it first/);
  }
  await server.step(() => server.state(queued) === 'ended');
  t.is(server.state(running), 'ended');
});

test('a task that is not known is forgotten already', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  for (const id of [idOf(0xdead), 'nonsense'])
    t.is((await call(server, 'DELETE', `/v1/tasks/${id}`)).status, 204);
});

test('a reader that still takes the stream of a forgotten task is not left hanging', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  const id = await server.submit({ max_tokens: 3 });
  await server.raw(id);
  const late = server.fetch(`/v1/tasks/${id}/stream`);
  const [response] = await Promise.all([late, call(server, 'DELETE', `/v1/tasks/${id}`)]);
  t.true([200, 404].includes(response.status));
  await response.text();
});
