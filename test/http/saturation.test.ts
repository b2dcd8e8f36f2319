import test from 'ava';
import { request, startTestServer } from '../helpers/server.ts';
import { steppedServer, type SteppedServer, type SteppedSettings } from './stepped-server.ts';
import { call, follow, names, type Answer } from './wire.ts';

/** No token for a minute: nothing is measured, and every estimate is made of the numbers that stand in. */
const STILL = { synthetic: { first_token_ms: 60_000 } };

function post(server: SteppedServer, fields: object = {}): Promise<Answer> {
  return call(server, 'POST', '/v1/tasks', { ...request, max_tokens: 1000, ...fields });
}

async function full(
  full_policy: 'reject' | 'drop-lru' | 'shed-low-priority',
  waiting: object[],
): Promise<{ server: SteppedServer; running: string; queued: string[] }> {
  const server = await steppedServer({
    pool: { ...STILL, queue: { capacity: waiting.length, full_policy } },
  });
  // An untried task is expected to take 100 ms, and 10 ms for each token: this one 1000 ms.
  const running = await server.submit({ max_tokens: 1000, expected_tokens: 90 });
  const queued = [];
  for (const fields of waiting) queued.push(await server.submit(fields));
  return { server, running, queued };
}

test('three wait and the run before them has 120 ms to go: position 3, start in 420 ms', async (t) => {
  const server = await steppedServer({ pool: STILL });
  t.teardown(server.close);
  await post(server, { expected_tokens: 2 });
  for (const _ of [0, 1, 2]) await post(server, { expected_tokens: 0 });
  const { status, body } = await post(server);
  t.is(status, 202);
  t.like(body, { queue_position: 3, predicted_start_ms: 420, backoff_ms: 0 });
  const reader = await follow(server, body['task_id'] as string);
  t.teardown(reader.leave);
  await server.cancel(body['task_id'] as string);
  await reader.over;
  t.like(reader.frames()[0], { event: 'started', data: { queue_position: 3, predicted_start_ms: 420 } });
});

test('reject: 429 ADMISSION_REJECT, Retry-After 2 where the next place is free in 2000 ms', async (t) => {
  const server = await steppedServer({ pool: { ...STILL, queue: { capacity: 1, full_policy: 'reject' } } });
  t.teardown(server.close);
  await post(server, { expected_tokens: 190 });
  await post(server);
  const { status, headers, body } = await post(server, { priority: 'batch' });
  t.is(status, 429);
  t.like(body, {
    code: 'ADMISSION_REJECT',
    policy_label: 'reject',
    retriable: true,
    retry_after_ms: 2000,
    engine: 'synthetic',
    pool_id: 'slow',
  });
  t.is(headers.get('retry-after'), '2');
  t.is(headers.get('x-backoff-ms'), '2000');
  server.clock.advance(501);
  const later = await post(server);
  t.is(later.headers.get('x-backoff-ms'), '1499');
  t.is(later.headers.get('retry-after'), '2', 'rounded up');
});

test('reject leaves those who wait where they are', async (t) => {
  const { server, queued } = await full('reject', [{}, { priority: 'batch' }]);
  t.teardown(server.close);
  const before = (await call(server, 'GET', '/v1/tasks')).body;
  for (const priority of ['interactive', 'batch']) t.is((await post(server, { priority })).status, 429);
  t.deepEqual((await call(server, 'GET', '/v1/tasks')).body, before);
  t.deepEqual(queued.map(server.state), ['admitted', 'admitted']);
});

test('drop-lru: the newcomer gets the place of the oldest batch task, whose stream ends with the code', async (t) => {
  const { server, queued } = await full('drop-lru', [{}, { priority: 'batch' }, { priority: 'batch' }]);
  t.teardown(server.close);
  const [interactive, oldest, younger] = queued as [string, string, string];
  const reader = await follow(server, oldest);
  t.is((await post(server)).status, 202);
  await reader.over;
  t.deepEqual(names(reader.frames()), ['started', 'error']);
  t.like(reader.frames()[1]?.data, {
    code: 'QUEUE_FULL_DROP_LRU',
    policy_label: 'drop-lru',
    retriable: true,
    retry_after_ms: 1000,
    engine: 'synthetic',
    pool_id: 'slow',
  });
  t.like((await call(server, 'GET', `/v1/tasks/${oldest}`)).body, {
    state: 'error',
    error: { code: 'QUEUE_FULL_DROP_LRU' },
  });
  t.deepEqual([interactive, younger].map(server.state), ['admitted', 'admitted']);
});

test('drop-lru without a batch task: the oldest interactive one goes', async (t) => {
  const { server, queued, running } = await full('drop-lru', [{}, {}]);
  t.teardown(server.close);
  t.is((await post(server)).status, 202);
  t.deepEqual(queued.map(server.state), ['error', 'admitted']);
  t.is(server.state(running), 'placed');
});

test('drop-lru: a batch newcomer among interactive tasks is refused, Retry-After 1 for 1000 ms', async (t) => {
  const { server, queued } = await full('drop-lru', [{}, {}]);
  t.teardown(server.close);
  const { status, headers, body } = await post(server, { priority: 'batch' });
  t.is(status, 429);
  t.like(body, {
    code: 'QUEUE_FULL_DROP_LRU',
    policy_label: 'drop-lru',
    retriable: true,
    retry_after_ms: 1000,
  });
  t.is(headers.get('retry-after'), '1');
  t.is(headers.get('x-backoff-ms'), '1000');
  t.deepEqual(queued.map(server.state), ['admitted', 'admitted']);
});

test('shed-low-priority: an interactive newcomer takes the place of a batch task, a batch one is refused', async (t) => {
  const { server, queued } = await full('shed-low-priority', [
    {},
    { priority: 'batch' },
    { priority: 'batch' },
  ]);
  t.teardown(server.close);
  const refused = await post(server, { priority: 'batch' });
  t.is(refused.status, 429);
  t.like(refused.body, { code: 'ADMISSION_REJECT', policy_label: 'shed-low-priority', retriable: true });
  t.is((await post(server)).status, 202);
  t.deepEqual(queued.map(server.state), ['admitted', 'admitted', 'error']);
  t.like((await server.events(queued[2] as string)).at(-1), {
    event: 'error',
    data: { code: 'ADMISSION_REJECT', policy_label: 'shed-low-priority', retriable: true },
  });
  t.is((await post(server)).status, 202);
  t.is((await post(server)).status, 429, 'no interactive task goes');
  t.is(server.state(queued[0] as string), 'admitted');
});

test('what one caller was told is still right while another one gets 429', async (t) => {
  const { server, queued } = await full('reject', [{}, {}]);
  t.teardown(server.close);
  const readers = await Promise.all(queued.map((id) => follow(server, id)));
  const refusals = await Promise.all(Array.from({ length: 20 }, () => post(server)));
  t.true(refusals.every(({ status }) => status === 429));
  for (const [place, id] of queued.entries())
    t.is((await call(server, 'GET', `/v1/tasks/${id}`)).body['queue_position'], place);
  for (const [place, reader] of readers.entries()) {
    await server.cancel(queued[place] as string);
    await reader.over;
    t.like(reader.frames()[0], { event: 'started', data: { queue_position: place } });
  }
});

test('a queued task that is canceled moves those behind it up, and makes room', async (t) => {
  const { server, queued } = await full('reject', [{}, {}, {}]);
  t.teardown(server.close);
  const positions = async (): Promise<unknown[]> =>
    Promise.all(
      queued.map(async (id) => (await call(server, 'GET', `/v1/tasks/${id}`)).body['queue_position']),
    );
  t.deepEqual(await positions(), [0, 1, 2]);
  t.deepEqual(await positions(), [0, 1, 2], 'stable');
  await server.cancel(queued[0] as string);
  t.deepEqual(await positions(), [undefined, 0, 1]);
  t.like((await post(server)).body, { queue_position: 2 });
});

test('a class whose own part of the queue is full is refused while the other one is not', async (t) => {
  const server = await steppedServer({
    pool: { ...STILL, admission: { priorities: [{ name: 'batch', queue_capacity: 1 }] } },
  });
  t.teardown(server.close);
  await post(server);
  t.is((await post(server, { priority: 'batch' })).status, 202);
  t.is((await post(server, { priority: 'batch' })).status, 429);
  t.is((await post(server)).status, 202);
});

test('above its rate a class is refused with 429 rate-limit and the time of the next, the other one is not', async (t) => {
  const settings: SteppedSettings = {
    pool: { ...STILL, admission: { priorities: [{ name: 'interactive', rate_limit_rps: 2 }] } },
  };
  const server = await steppedServer(settings);
  t.teardown(server.close);
  for (const _ of [1, 2]) t.is((await post(server)).status, 202);
  const { status, headers, body } = await post(server);
  t.is(status, 429);
  t.like(body, {
    code: 'ADMISSION_REJECT',
    policy_label: 'rate-limit',
    retriable: true,
    retry_after_ms: 500,
    pool_id: 'slow',
  });
  t.is(headers.get('retry-after'), '1');
  t.is((await post(server, { priority: 'batch' })).status, 202);
  server.clock.advance(499);
  t.is((await post(server)).headers.get('x-backoff-ms'), '1');
  server.clock.advance(1);
  t.is((await post(server)).status, 202);
  t.is((await post(server)).status, 429);
});

test('backoff_ms is 0 while the queue is at most half full, and grows above that', async (t) => {
  const server = await steppedServer({ pool: { ...STILL, queue: { capacity: 4 } } });
  t.teardown(server.close);
  await post(server);
  const told: number[] = [];
  for (const _ of [1, 2, 3, 4]) told.push((await post(server)).body['backoff_ms'] as number);
  t.deepEqual(told.slice(0, 2), [0, 0]);
  t.true((told[2] as number) > 0 && (told[3] as number) > (told[2] as number));
});

test('more texts than the tokenizer threads take are refused with 429 tokenizer', async (t) => {
  // Its model file is there to count by; no engine is needed.
  const server = await startTestServer({
    pools: [{ id: 'words', engine: 'llamacpp', model: 'storyteller', preload: false }],
  });
  t.teardown(server.close);
  const count = (text: string): Promise<Answer> =>
    call(server, 'POST', '/v1/tokenize', { model_ref: 'storyteller', text });
  const long = 'Once upon a time there was a fox. '.repeat(50_000);
  let refused: Answer[] = [];
  // A thread is busy with the long text, or only begins to live: the short ones wait, and there is room for 64.
  for (let round = 0; round < 20 && refused.length === 0; round++) {
    const texts = [long, ...Array.from({ length: 100 }, () => 'a fox')];
    const answers = await Promise.all(texts.map(count));
    refused = answers.filter(({ status }) => status === 429);
    const counted = answers.slice(1).filter(({ status }) => status === 200);
    t.true(counted.length >= 60);
    t.is(new Set(counted.map(({ body }) => body['count'])).size, 1);
  }
  t.true(refused.length > 0);
  for (const { body } of refused)
    t.like(body, {
      code: 'ADMISSION_REJECT',
      policy_label: 'tokenizer',
      retriable: true,
      engine: 'llamacpp',
    });
});
