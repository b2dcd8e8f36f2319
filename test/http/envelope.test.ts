import test from 'ava';
import { operations } from '../../src/contract/generated/operations.ts';
import { MemoryStore } from '../../src/store/memory-store.ts';
import { request, startTestServer, type TestServer } from '../helpers/server.ts';
import { steppedServer } from './stepped-server.ts';
import { call, idOf } from './wire.ts';

let server: TestServer;

test.before(async () => {
  server = await startTestServer({
    server: { body_limit_bytes: 200_000 },
    pools: [{ id: 'fast', engine: 'synthetic', model: 'synthetic', ctx: 4096 }],
  });
});
test.after.always(() => server.close());

const MINE = { 'X-Correlation-Id': 'from-the-client' };

test('every status carries the correlation id of its caller', async (t) => {
  const full = await steppedServer({
    pool: { queue: { capacity: 1 }, synthetic: { first_token_ms: 60_000 } },
  });
  t.teardown(full.close);
  const task_id = idOf(1);
  await full.submit({ task_id });
  await full.submit();
  const cases: [status: number, method: string, path: string, body?: unknown][] = [
    [200, 'GET', '/v1/tasks'],
    [200, 'POST', '/v1/tasks/preview', request],
    [202, 'POST', '/v1/tasks', { ...request, task_id }],
    [204, 'POST', `/v1/tasks/${idOf(2)}/cancel`],
    [204, 'OPTIONS', '/v1/tasks'],
    [400, 'POST', '/v1/tasks', { ...request, ctx: 0 }],
    [404, 'GET', `/v1/tasks/${idOf(2)}`],
    [404, 'GET', '/nowhere'],
    [405, 'PUT', '/v1/tasks'],
    [409, 'DELETE', `/v1/tasks/${task_id}`],
    [413, 'POST', '/v1/tasks', `"${'x'.repeat(11_000_000)}"`],
    [429, 'POST', '/v1/tasks', request],
    [503, 'POST', '/v1/tasks', { ...request, model_ref: 'none' }],
  ];
  for (const [status, method, path, body] of cases) {
    const answer = await call(full, method, path, body, MINE);
    t.is(answer.status, status, `${method} ${path}`);
    t.is(answer.headers.get('x-correlation-id'), 'from-the-client');
    if (status >= 400) t.is(typeof answer.body['message'], 'string');
  }
  const stream = await full.fetch(`/v1/tasks/${task_id}/stream`, { headers: MINE, method: 'HEAD' });
  t.is(stream.headers.get('x-correlation-id'), 'from-the-client');
});

test('a failure of the server’s own is 500 INTERNAL, without its cause, and the next request is served', async (t) => {
  const store = new MemoryStore();
  const commit = store.commit.bind(store);
  let isBroken = true;
  store.commit = (change) => {
    if (isBroken) throw new Error('disk 7 at /var/secret is on fire');
    return commit(change);
  };
  const broken = await steppedServer({}, { store });
  t.teardown(broken.close);
  const { status, body, headers } = await call(broken, 'POST', '/v1/tasks', request, MINE);
  t.is(status, 500);
  t.like(body, { code: 'INTERNAL', retriable: false, engine: 'synthetic' });
  t.notRegex(JSON.stringify(body), /secret|fire/);
  t.is(headers.get('x-correlation-id'), 'from-the-client');
  isBroken = false;
  t.is((await call(broken, 'POST', '/v1/tasks', request)).status, 202);
});

test('a known path under another method is 405 with those that it has, and OPTIONS is 204 with the same', async (t) => {
  for (const path of new Set(operations.map((operation) => operation.path))) {
    const url = path.replaceAll(/:\w+/g, idOf(1));
    const options = await call(server, 'OPTIONS', url);
    t.is(options.status, 204);
    const allow = options.headers.get('allow')?.split(', ') ?? [];
    for (const operation of operations.filter((each) => each.path === path))
      t.true(allow.includes(operation.method.toUpperCase()), `${operation.method} ${path}`);
    t.is(allow.includes('HEAD'), allow.includes('GET'));
    const { status, headers, body } = await call(server, 'PATCH', url);
    t.is(status, 405);
    t.is(headers.get('allow'), options.headers.get('allow'));
    t.regex(body['message'] as string, /^there is no PATCH /);
  }
  t.is((await call(server, 'OPTIONS', '/nowhere')).status, 404);
});

test('HEAD has the status and the headers of GET, and no body', async (t) => {
  const id = await server.submit();
  await server.raw(id);
  for (const path of [
    `/v1/tasks/${id}`,
    '/v1/tasks',
    '/v1/capabilities',
    '/healthz',
    `/v1/tasks/${idOf(9)}`,
  ]) {
    const get = await server.fetch(path);
    const head = await server.fetch(path, { method: 'HEAD' });
    t.is(head.status, get.status, path);
    t.is(head.headers.get('content-type'), get.headers.get('content-type'), path);
    t.is(await head.text(), '');
    await get.text();
  }
  const stream = await server.fetch(`/v1/tasks/${id}/stream`, { method: 'HEAD' });
  t.is(stream.headers.get('content-type'), 'text/event-stream');
  t.is(await stream.text(), '');
});

function nested(levels: number): string {
  return '{"a":'.repeat(levels) + '{}' + '}'.repeat(levels);
}

test('a schema nested 20,000 levels deep is 400 and named', async (t) => {
  const body = JSON.stringify({ ...request, sampling: { json_schema: 'HERE' } });
  for (const levels of [65, 20_000]) {
    const answer = await call(server, 'POST', '/v1/tasks', body.replace('"HERE"', nested(levels)));
    t.is(answer.status, 400);
    t.like(answer.body, { code: 'INVALID_PARAMS', engine: 'synthetic' });
    t.regex(answer.body['message'] as string, /^sampling\.json_schema: .*64 levels/);
  }
});

test('what nobody knows may be nested as deep as it likes, anywhere: it is not kept', async (t) => {
  const deep = `${'['.repeat(20_000)}${']'.repeat(20_000)}`;
  const { prompt: _prompt, ...rest } = request;
  const bodies = [
    { ...request, unknown: 'HERE' },
    { ...request, placement: { unknown: 'HERE' } },
    { ...request, sampling: { unknown: 'HERE' } },
    { ...rest, messages: [{ role: 'user', content: 'hello', unknown: 'HERE' }] },
  ];
  for (const [n, body] of bodies.entries()) {
    const text = JSON.stringify({ ...body, task_id: idOf(100 + n) }).replace('"HERE"', deep);
    for (const _ of ['posted', 'posted again'])
      t.is((await call(server, 'POST', '/v1/tasks', text)).status, 202);
    t.like((await server.events(idOf(100 + n))).at(-1), { event: 'end' });
    t.is((await call(server, 'POST', '/v1/tasks', text)).status, 202, 'and once it is over');
  }
});

test('a value that is nested deeply where a text is asked for is 400', async (t) => {
  const deep = `${'['.repeat(20_000)}${']'.repeat(20_000)}`;
  for (const field of ['prompt', 'inputs', 'messages', 'placement', 'task_id', 'seed', 'deadline_ms']) {
    const text = JSON.stringify({ ...request, [field]: 'HERE' }).replace('"HERE"', deep);
    const { status, body } = await call(server, 'POST', '/v1/tasks', text);
    t.is(status, 400, field);
    t.regex(body['message'] as string, new RegExp(`^${field}`));
  }
  t.is((await call(server, 'POST', '/v1/tasks', deep)).status, 400);
});

test('names that mean something to JavaScript mean nothing here', async (t) => {
  const text = JSON.stringify({ ...request, max_tokens: 2 }).replace(
    '{',
    '{"__proto__":{"prompt":"x"},"constructor":1,"toString":2,',
  );
  const { status, body } = await call(server, 'POST', '/v1/tasks', text);
  t.is(status, 202);
  t.like((await server.events(body['task_id'] as string)).at(-1), { event: 'end' });
  const without = await call(
    server,
    'POST',
    '/v1/tasks',
    '{"__proto__":{"workload":"completion","prompt":"x"}}',
  );
  t.is(without.status, 400);
  t.is((await call(server, 'GET', '/v1/pools/constructor/health')).status, 404);
  t.is((await call(server, 'GET', '/v1/tasks/__proto__')).status, 404);
});

test('paths that are encoded badly, or lead elsewhere, are 404 or 400 and never 500', async (t) => {
  for (const path of [
    '/v1/tasks/%',
    '/v1/tasks/%ff',
    '/v1/tasks/%00',
    '/v1/tasks/..%2f..%2fetc%2fpasswd',
    '/v1/sessions/%zz',
    `/v1/tasks/${'x'.repeat(8000)}`,
    '/v1//tasks',
    '/%2e%2e/%2e%2e/etc/passwd',
  ]) {
    const { status, body } = await call(server, 'GET', path);
    t.true(status === 404 || status === 400, path);
    t.true((body['message'] as string).length < 9000);
  }
});
