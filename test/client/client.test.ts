import test, { type ExecutionContext } from 'ava';
import { ClientError, createClient, TaskchartError, type ClientOptions } from '../../src/client/index.ts';
import { newId } from '../../src/client/transport.ts';
import { request, startTestServer, type TestServer } from '../helpers/server.ts';
import { until } from '../helpers/until.ts';
import { startProxy } from './proxy.ts';
import { waits } from './waits.ts';
import { empty, frame, json, startWire, stream, type Answer } from './wire.ts';

const ID = '0198c0de-0000-7000-8000-000000000001';
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const ADMISSION = { task_id: ID, queue_position: 0, predicted_start_ms: 0, backoff_ms: 0 };
const FULL = {
  code: 'ADMISSION_REJECT',
  message: 'the queue is full',
  retriable: true,
  policy_label: 'reject',
};

let server: TestServer;
test.before(async () => {
  server = await startTestServer();
});
test.after.always(() => server.close());

async function clientOf(t: ExecutionContext, options: ClientOptions, ...answers: Answer[]) {
  const wire = await startWire(...answers);
  t.teardown(wire.close);
  const pauses = waits();
  return { wire, pauses, client: createClient({ base_url: wire.url, ...pauses, ...options }) };
}

test('run posts a task and gives its events and its text', async (t) => {
  const client = createClient({ base_url: `${server.url}/` });
  const run = client.run({ ...request, max_tokens: 5 });
  const types: string[] = [];
  for await (const event of run) if (event.type !== 'metrics') types.push(event.type);
  t.deepEqual(types, ['started', ...Array<string>(5).fill('token'), 'end']);
  const { task_id } = await run.admission;
  const { text, state } = await client.task(task_id);
  t.is(state, 'ended');
  t.not(text, '');
  t.is(await run.text(), text);
  await run.cancel();
  t.is((await client.capabilities()).engines[0]?.engine, 'synthetic');
});

test('a record keeps request, admission, events in their order, the log of the task and what was verified', async (t) => {
  const asked = { ...request, max_tokens: 5 };
  const run = createClient({ base_url: server.url, correlation_id: 'of-this-one' }).run(asked);
  const logs = ['{"correlation_id":"of-this-one"}', '{"correlation_id":"of-another"}'];
  const record = await run.record({ logs, verify: (text) => text.length });
  t.deepEqual(record.request, asked);
  t.deepEqual(record.admission, await run.admission);
  const types = record.transcript.map(({ type }) => type).filter((type) => type !== 'metrics');
  t.deepEqual(types, ['started', ...Array<string>(5).fill('token'), 'end']);
  const times = record.transcript.map(({ ts_ms }) => ts_ms);
  t.deepEqual(
    times,
    times.toSorted((a, b) => a - b),
  );
  t.deepEqual(record.logs, logs.slice(0, 1));
  t.is(record.verification, (await run.text()).length);
});

test('text throws the failure of the task, run the refusal of the post', async (t) => {
  const failed = frame(1, 'error', {
    code: 'WORKER_RESET',
    message: 'it died',
    retriable: true,
    pool_id: 'p',
  });
  const started = frame(0, 'started', { queue_position: 0, predicted_start_ms: 0 });
  const { client } = await clientOf(t, {}, json(202, ADMISSION), stream(started, failed));
  const error = await t.throwsAsync(client.run(request).text(), { instanceOf: TaskchartError });
  t.like(error, { code: 'WORKER_RESET', message: 'it died', failure: { pool_id: 'p' } });
  const refused = createClient({ base_url: server.url }).run({ ...request, ctx: 0 });
  await t.throwsAsync(refused.text(), { code: 'INVALID_PARAMS' });
});

test('a full server is asked again after X-Backoff-Ms, or else Retry-After, or else a wait of its own', async (t) => {
  const { client, wire, pauses } = await clientOf(
    t,
    {},
    json(429, { ...FULL, retry_after_ms: 1500 }, { 'X-Backoff-Ms': '1500', 'Retry-After': '2' }),
    json(503, { code: 'POOL_UNREADY', message: 'starting', retriable: true }, { 'Retry-After': '3' }),
    json(429, FULL, { 'X-Backoff-Ms': '0', 'Retry-After': '1' }),
    json(202, ADMISSION),
  );
  t.deepEqual(await client.submit(request), ADMISSION);
  t.deepEqual(pauses.waited, [1500, 3000, 400]);
  const ids = new Set(wire.received.map(({ body }) => (body as { task_id: string }).task_id));
  t.is(ids.size, 1);
  t.regex([...ids][0] ?? '', UUID);
});

test('attempts and the time between them are bounded, and the last refusal is thrown as it is', async (t) => {
  const full = json(429, FULL, { 'X-Backoff-Ms': '20000' });
  const { client, wire } = await clientOf(t, {}, full);
  t.like(await t.throwsAsync(client.submit(request), { instanceOf: TaskchartError }), {
    status: 429,
    failure: { ...FULL, retry_after_ms: 20_000 },
  });
  t.is(wire.received.length, 4);
  const short = await clientOf(t, { retry_wait_ms: 30_000 }, full);
  await t.throwsAsync(short.client.submit(request));
  t.deepEqual(short.pauses.waited, [20_000]);
  const once = await clientOf(t, { attempts: 1 }, full);
  await t.throwsAsync(once.client.submit(request));
  t.is(once.wire.received.length, 1);
});

test('a refusal that will not pass is thrown at once', async (t) => {
  const { client, wire } = await clientOf(
    t,
    {},
    json(429, { ...FULL, retriable: false }),
    json(202, ADMISSION),
  );
  await t.throwsAsync(client.submit(request), { code: 'ADMISSION_REJECT' });
  t.is(wire.received.length, 1);
});

test('a post whose answer is lost is one task', async (t) => {
  // The connection breaks within the answer: the server has the task, the client does not know.
  const proxy = await startProxy(server.url, [40, 40]);
  t.teardown(proxy.close);
  const admitted = new Set<string>();
  const watching = server.orchestrator.observe((event) => {
    if (event.type === 'task.admitted') admitted.add(event.record.id);
  });
  t.teardown(watching);
  const client = createClient({ base_url: proxy.url, ...waits() });
  const { task_id } = await client.submit(request);
  t.is(proxy.connections, 3);
  t.true(admitted.has(task_id));
  t.is((await client.task(task_id)).state, 'ended');
});

test('a request with an idempotency key is sent as it is', async (t) => {
  const { client, wire } = await clientOf(t, {}, json(202, ADMISSION));
  await client.submit(request, { idempotency_key: 'order-7' });
  t.is(wire.received[0]?.headers['idempotency-key'], 'order-7');
  t.deepEqual(wire.received[0]?.body, request);
  await t.throwsAsync(client.submit(request, { idempotency_key: 'a b' }), {
    message: /^idempotency_key: must be/,
  });
});

test('an abort ends the waiting between posts', async (t) => {
  const { client, wire } = await clientOf(t, {}, json(429, FULL, { 'X-Backoff-Ms': '30000' }));
  const controller = new AbortController();
  const reason = new Error('enough');
  // With its own waits, which take their time.
  const waiting = createClient({ base_url: wire.url }).submit(request, { signal: controller.signal });
  await until(() => wire.received.length === 1);
  setImmediate(() => controller.abort(reason));
  t.is(await t.throwsAsync(waiting), reason);
  t.is(await t.throwsAsync(client.submit(request, { signal: AbortSignal.abort(reason) })), reason);
});

test('every call has the token, a correlation id, its method and its path', async (t) => {
  const { client, wire } = await clientOf(
    t,
    { token: 's3cret', correlation_id: 'mine' },
    json(200, { feasible: true }),
    json(200, { ttl_ms_remaining: 1, turns: 2, kv_bytes: 0, kv_warmth: false }),
    empty,
    empty,
    empty,
    empty,
    json(200, { count: 5, exact: true }),
  );
  t.deepEqual(await client.preview(request), { feasible: true });
  const session = client.session(ID);
  t.is((await session.info()).turns, 2);
  await session.touch();
  await session.remove();
  await client.remove(ID);
  await client.cancel('a/b', { correlation_id: 'this-one' });
  t.is((await client.tokenize({ model_ref: 'm', text: 'a b' })).count, 5);
  t.deepEqual(
    wire.received.map(({ method, url }) => `${method} ${url}`),
    [
      'POST /v1/tasks/preview',
      `GET /v1/sessions/${ID}`,
      `POST /v1/sessions/${ID}`,
      `DELETE /v1/sessions/${ID}`,
      `DELETE /v1/tasks/${ID}`,
      'POST /v1/tasks/a%2Fb/cancel',
      'POST /v1/tokenize',
    ],
  );
  t.deepEqual(wire.received.at(-1)?.body, { model_ref: 'm', text: 'a b' });
  t.true(wire.received.every(({ headers }) => headers.authorization === 'Bearer s3cret'));
  const ids = wire.received.map(({ headers }) => headers['x-correlation-id']);
  t.is(ids[5], 'this-one');
  t.deepEqual(new Set(ids), new Set(['mine', 'this-one']));
});

test('a task’s post and its stream have one correlation id, another task has another', async (t) => {
  const end = frame(0, 'end', { tokens_out: 0, decode_ms: 0, decode_time_ms: 0 });
  const { client, wire } = await clientOf(
    t,
    {},
    json(202, ADMISSION),
    stream(end),
    json(202, ADMISSION),
    stream(end),
  );
  await client.run(request).text();
  await client.run(request).text();
  const [a, b, c, d] = wire.received.map(({ headers }) => headers['x-correlation-id'] as string);
  t.regex(a ?? '', UUID);
  t.is(a, b);
  t.is(c, d);
  t.not(a, c);
});

test('the list of tasks is read page by page, as far as the loop goes', async (t) => {
  const { client, wire } = await clientOf(
    t,
    {},
    json(200, { tasks: [{ task_id: 'a' }, { task_id: 'b' }], next_cursor: 'x y' }),
    json(200, { tasks: [{ task_id: 'c' }] }),
  );
  const filter = { state: 'ended', pool_id: 'p&q', limit: 2 } as const;
  const ids: string[] = [];
  for await (const { task_id } of client.tasks(filter)) ids.push(task_id);
  t.deepEqual(ids, ['a', 'b', 'c']);
  t.deepEqual(
    wire.received.map(({ url }) => url),
    [
      '/v1/tasks?state=ended&pool_id=p%26q&limit=2',
      '/v1/tasks?state=ended&pool_id=p%26q&limit=2&cursor=x%20y',
    ],
  );
  const same = await clientOf(t, {}, json(200, { tasks: [], next_cursor: 'z' }));
  await t.throwsAsync(
    async () => {
      for await (const task of same.client.tasks()) t.fail(task.task_id);
    },
    { message: /next page/ },
  );
});

test('a refused token is an error with the number of the refusal, and never shows the token', async (t) => {
  const body = { code: 40102, message: 'BAD_TOKEN', hint: 'Send Authorization: Bearer <token>.' };
  const { client } = await clientOf(t, { token: 's3cret' }, json(401, body));
  const error = await t.throwsAsync(client.task(ID), { instanceOf: ClientError });
  t.like(error, { reason: 'unauthorized', status: 401, auth_code: 40102 });
  t.is(error?.message, 'token: refused, BAD_TOKEN. Send Authorization: Bearer <token>.');
  const failing = createClient({
    token: 's3cret',
    fetch: () => Promise.reject(new TypeError('invalid header: Bearer s3cret')),
  });
  const leak = await t.throwsAsync(failing.task(ID), { instanceOf: ClientError });
  t.is(leak?.message, 'nobody answers at http://127.0.0.1:8080 (invalid header: Bearer …)');
});

test('answers that are not taskchart’s become errors of the family', async (t) => {
  const page =
    (status: number): Answer =>
    (response) =>
      response.writeHead(status, { 'Content-Type': 'text/html' }).end('<html>secret</html>');
  for (const [status, code] of [
    [400, 'INVALID_PARAMS'],
    [404, 'NOT_FOUND'],
    [418, 'INTERNAL'],
    [429, 'ADMISSION_REJECT'],
    [502, 'POOL_UNAVAILABLE'],
    [500, 'INTERNAL'],
  ] as const) {
    const { client, wire } = await clientOf(t, {}, page(status));
    const error = await t.throwsAsync(client.tokenize({ model_ref: 'm', text: 'x' }), {
      instanceOf: ClientError,
    });
    t.like(error, {
      code,
      status,
      reason: 'bad_answer',
      message: `${wire.url}/v1/tokenize answered ${status}`,
    });
  }
  const { client } = await clientOf(t, {}, page(200));
  await t.throwsAsync(client.task(ID), { message: /must answer with a JSON object$/ });
});

test('a code of a later version keeps its name in the message', async (t) => {
  const { client } = await clientOf(
    t,
    {},
    json(418, { code: 'TEAPOT', message: 'short and stout', retriable: true }),
  );
  t.like(await t.throwsAsync(client.task(ID), { instanceOf: TaskchartError }), {
    status: 418,
    message: 'TEAPOT: short and stout',
    failure: { code: 'INTERNAL', retriable: true },
  });
});

test('nobody there, and a server that does not answer in time', async (t) => {
  const gone = createClient({ base_url: 'http://127.0.0.1:9' });
  const error = await t.throwsAsync(gone.capabilities(), { instanceOf: ClientError });
  t.is(error?.reason, 'unreachable');
  t.regex(error?.message ?? '', /^nobody answers at http:\/\/127\.0\.0\.1:9 \(/);
  const { client, wire } = await clientOf(t, { timeout_ms: 30 }, () => undefined);
  const slow = await t.throwsAsync(client.capabilities(), { instanceOf: ClientError });
  t.is(slow?.reason, 'timeout');
  t.is(slow?.message, `${wire.url}/v1/capabilities has not answered within 30 ms (timeout_ms)`);
  // A body counts as well: headers alone are no answer.
  const half: Answer = (response) => response.writeHead(200).write('{');
  const stuck = await clientOf(t, { timeout_ms: 30 }, half);
  t.is((await t.throwsAsync(stuck.client.capabilities(), { instanceOf: ClientError }))?.reason, 'timeout');
});

test('options that cannot be meant are named', (t) => {
  const cases: [ClientOptions, RegExp][] = [
    [{ base_url: 'localhost:8080' }, /^base_url: must be an http or https URL/],
    [{ base_url: 'http://user:s3cret@host' }, /^base_url: must be .* without user name and password/],
    [{ token: 's3cret\n' }, /^token: must be printable ASCII without spaces$/],
    [{ attempts: 0 }, /^attempts: must be a number from 1 to \d+, got 0$/],
    [{ timeout_ms: Infinity }, /^timeout_ms: must be/],
    [{ idle_ms: Number.NaN }, /^idle_ms: must be/],
  ];
  for (const [options, message] of cases) {
    const error = t.throws(() => createClient(options), { instanceOf: ClientError, message });
    t.is(error?.reason, 'bad_request');
    t.notRegex(error?.message ?? '', /s3cret/);
  }
  t.notThrows(() => createClient({ base_url: '/behind/a/proxy' }));
});

test.serial('ids need no secure page', (t) => {
  const own = Object.getOwnPropertyDescriptor(crypto, 'randomUUID');
  t.regex(newId(), UUID);
  Object.defineProperty(crypto, 'randomUUID', { value: undefined, configurable: true });
  t.teardown(() => {
    if (own) Object.defineProperty(crypto, 'randomUUID', own);
    else Reflect.deleteProperty(crypto, 'randomUUID');
  });
  t.regex(newId(), UUID);
  t.not(newId(), newId());
});
