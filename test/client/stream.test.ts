import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { ClientError, createClient, TaskchartError, type TaskEvent } from '../../src/client/index.ts';
import { request, startTestServer, type TestServer } from '../helpers/server.ts';
import { until } from '../helpers/until.ts';
import { startProxy } from './proxy.ts';
import { waits } from './waits.ts';
import { empty, frame, json, startWire, stream, type Answer } from './wire.ts';

const TASK = '0198c0de-0000-7000-8000-000000000001';
const STARTED = frame(0, 'started', { queue_position: 0, predicted_start_ms: 0 });
const END = { tokens_out: 1, decode_ms: 1, decode_time_ms: 1 };
const token = (id: number, t: string): string => frame(id, 'token', { t, i: id - 1 });

let server: TestServer;
test.before(async () => {
  server = await startTestServer({
    pools: [
      { id: 'fast', engine: 'synthetic', model: 'synthetic' },
      { id: 'slow', engine: 'synthetic', model: 'slow', synthetic: { tokens_per_second: 400 } },
    ],
  });
});
test.after.always(() => server.close());

async function collect(events: AsyncIterable<TaskEvent>): Promise<TaskEvent[]> {
  const all: TaskEvent[] = [];
  for await (const event of events) all.push(event);
  return all;
}

const textOf = (events: readonly TaskEvent[]): string =>
  events.map((event) => (event.type === 'token' ? event.data.t : '')).join('');

/** A client of a program with these answers, whose waits take no time. */
async function clientOf(t: ExecutionContext, ...answers: Answer[]) {
  const wire = await startWire(...answers);
  t.teardown(wire.close);
  const pauses = waits();
  return { wire, pauses, client: createClient({ base_url: wire.url, ...pauses }) };
}

test('a task’s events come in order, from started to end, and later ones after the one that is named', async (t) => {
  const client = createClient({ base_url: server.url });
  const { task_id } = await client.submit({ ...request, max_tokens: 12 });
  const events = await collect(client.stream(task_id));
  t.deepEqual(
    events.map(({ id }) => id),
    events.map((_, i) => i),
  );
  t.is(events[0]?.type, 'started');
  t.is(events.at(-1)?.type, 'end');
  t.is(textOf(events), (await client.task(task_id)).text);
  t.deepEqual(await collect(client.stream(task_id, { after: 5 })), events.slice(6));
});

test('a stream after the last event of a finished task ends at once', async (t) => {
  const pauses = waits();
  const client = createClient({ base_url: server.url, ...pauses });
  const { task_id } = await client.submit(request);
  const events = await collect(client.stream(task_id));
  t.deepEqual(await collect(client.stream(task_id, { after: events.length - 1 })), []);
  t.deepEqual(pauses.waited, []);
});

test('wherever connections are cut, the events are the same', async (t) => {
  const whole = createClient({ base_url: server.url });
  const { task_id } = await whole.submit({ ...request, max_tokens: 40 });
  const events = await collect(whole.stream(task_id));
  const { length } = await server.raw(task_id);
  const cut = fc.integer({ min: 1, max: length + 400 });
  await fc.assert(
    fc.asyncProperty(fc.array(cut, { minLength: 1, maxLength: 6 }), async (cuts) => {
      const proxy = await startProxy(server.url, cuts);
      try {
        const client = createClient({ base_url: proxy.url, ...waits() });
        t.deepEqual(await collect(client.stream(task_id)), events);
        t.true(proxy.connections > 1 || (cuts[0] ?? 0) > length);
      } finally {
        await proxy.close();
      }
    }),
    { numRuns: 60 },
  );
});

test('a running task is followed across cuts and a restart, and nothing is missing or twice', async (t) => {
  const proxy = await startProxy(server.url, [900, 1500, 700]);
  t.teardown(proxy.close);
  const pauses = waits((count) => (count >= 8 ? proxy.up() : undefined));
  const client = createClient({ base_url: proxy.url, ...pauses });
  const { task_id } = await createClient({ base_url: server.url }).submit({
    ...request,
    model_ref: 'slow',
    max_tokens: 150,
  });
  const events: TaskEvent[] = [];
  for await (const event of client.stream(task_id)) {
    events.push(event);
    if (event.id === 60) await proxy.down();
  }
  t.true(proxy.connections >= 5);
  t.deepEqual(
    events.map(({ id }) => id),
    events.map((_, i) => i),
  );
  t.is(textOf(events), (await server.orchestrator.task(task_id).info()).text);
  t.is(events.filter(({ type }) => type === 'token').length, 150);
});

test('leaving the loop closes the connection at once, and the task goes on', async (t) => {
  const client = createClient({ base_url: server.url });
  const { task_id } = await client.submit({ ...request, model_ref: 'slow', max_tokens: 4000 });
  const proxy = await startProxy(server.url);
  t.teardown(proxy.close);
  for await (const event of createClient({ base_url: proxy.url }).stream(task_id))
    if (event.type === 'token') break;
  await until(() => proxy.open === 0);
  t.is((await client.task(task_id)).state, 'streaming');
  await client.cancel(task_id);
  t.like((await collect(client.stream(task_id))).at(-1), { type: 'end', data: { canceled: true } });
});

test('an abort ends the loop with its own reason', async (t) => {
  const client = createClient({ base_url: server.url });
  const { task_id } = await client.submit({ ...request, model_ref: 'slow', max_tokens: 4000 });
  const controller = new AbortController();
  const reason = new Error('enough');
  const error = await t.throwsAsync(async () => {
    for await (const event of client.stream(task_id, { signal: controller.signal }))
      if (event.type === 'token') controller.abort(reason);
  });
  t.is(error, reason);
  await client.cancel(task_id);
});

test('a task that is not there is refused at once', async (t) => {
  const client = createClient({ base_url: server.url });
  await t.throwsAsync(collect(client.stream(TASK)), { instanceOf: TaskchartError, code: 'NOT_FOUND' });
});

test('a batch arrives as single tokens, each with its own id, also where a cut went through it', async (t) => {
  const batch = (id: number, ...tokens: [string, number][]): string =>
    frame(id, 'token', { batch: tokens.map(([text, i]) => ({ t: text, i })) });
  const { wire, client } = await clientOf(
    t,
    stream(STARTED, batch(2, ['a', 0], ['b', 1])),
    json(200, { state: 'streaming', last_event_id: 4 }),
    // A log that makes its batches anew puts a known token into one with new ones.
    stream(batch(4, ['b', 1], ['c', 2], ['d', 3]), frame(5, 'end', END)),
  );
  t.deepEqual(
    (await collect(client.stream(TASK))).map(({ id, type, data }) => [id, type === 'token' ? data.t : type]),
    [
      [0, 'started'],
      [1, 'a'],
      [2, 'b'],
      [3, 'c'],
      [4, 'd'],
      [5, 'end'],
    ],
  );
  t.is(wire.received[2]?.headers['last-event-id'], '2');
});

test('embeddings, rankings, metrics and narration arrive; names that are not known are passed over, fields kept', async (t) => {
  const { client, wire } = await clientOf(
    t,
    stream(
      STARTED,
      frame(1, 'embedding', { i: 0, vector: [1, 2] }),
      frame(2, 'rerank', { i: 0, index: 1, score: 0.5, later: true }),
      frame(3, 'from-the-future', { x: 1 }),
      frame(undefined, 'narration', {
        actor: 'pool',
        action: 'load',
        target: 'm',
        human: 'It loads.',
        ts: 1,
      }),
      frame(4, 'metrics', { queue_depth: 0, on_time_probability: 1 }),
      frame(5, 'end', END),
    ),
  );
  const events = await collect(client.stream(TASK, { verbose: true }));
  t.deepEqual(
    events.map(({ type }) => type),
    ['started', 'embedding', 'rerank', 'narration', 'metrics', 'end'],
  );
  t.like(events[2], { id: 2, data: { score: 0.5, later: true } });
  t.false('id' in (events[3] ?? {}));
  t.is(wire.received[0]?.url, `/v1/tasks/${TASK}/stream?verbose=true`);
});

test('an error event is the last one', async (t) => {
  const { client } = await clientOf(
    t,
    stream(STARTED, frame(1, 'error', { code: 'WORKER_RESET', message: 'it died', retriable: true })),
  );
  t.like((await collect(client.stream(TASK))).at(-1), { type: 'error', data: { code: 'WORKER_RESET' } });
});

test('a missing event is an error, a repeated one is left out', async (t) => {
  const { client } = await clientOf(t, stream(STARTED, token(1, 'a'), token(1, 'a'), token(3, 'c')));
  const seen: unknown[] = [];
  const error = await t.throwsAsync(
    async () => {
      for await (const { id } of client.stream(TASK)) seen.push(id);
    },
    { instanceOf: ClientError, message: 'stream: event 2 is missing, the next one is 3' },
  );
  t.is(error?.reason, 'stream_gap');
  t.deepEqual(seen, [0, 1]);
});

test('a server in trouble is asked again after the time it names, or after longer and longer waits', async (t) => {
  const trouble = { code: 'POOL_UNREADY', message: 'starting', retriable: true };
  const page: Answer = (response) => response.writeHead(502).end('<html>');
  const { client, pauses } = await clientOf(
    t,
    page,
    json(500, { code: 'INTERNAL', message: 'oh', retriable: false }),
    json(503, trouble, { 'Retry-After': '7' }),
    page,
    stream(STARTED, frame(1, 'end', END)),
  );
  t.is((await collect(client.stream(TASK))).length, 2);
  t.deepEqual(pauses.waited, [100, 200, 7000, 800]);
});

test('a server that stays away is given up after reconnect_ms without an event', async (t) => {
  const { client, pauses, wire } = await clientOf(t, stream(STARTED), (response) => response.destroy());
  const error = await t.throwsAsync(collect(client.stream(TASK)), { instanceOf: ClientError });
  t.is(error?.reason, 'stream_lost');
  t.regex(error?.message ?? '', /broke and could not be taken up again within 60000 ms .*nobody answers at /);
  const total = pauses.waited.reduce((sum, ms) => sum + ms, 0);
  t.true(total > 57_000 && total <= 60_000, String(total));
  t.is(wire.received.at(-1)?.headers['last-event-id'], '0');
});

test('a stream without ids is not taken up again, since events would come twice', async (t) => {
  const { client, pauses } = await clientOf(t, stream(frame(undefined, 'token', { t: 'a', i: 0 })));
  await t.throwsAsync(collect(client.stream(TASK)), { message: /its events have no ids/ });
  t.deepEqual(pauses.waited, []);
});

test('a connection that is silent for idle_ms is made anew', async (t) => {
  const wire = await startWire(
    (response) => response.writeHead(200, { 'Content-Type': 'text/event-stream' }).write(STARTED),
    stream(token(1, 'a'), frame(2, 'end', END)),
  );
  t.teardown(wire.close);
  const client = createClient({ base_url: wire.url, idle_ms: 40, ...waits() });
  t.is((await collect(client.stream(TASK))).length, 3);
  t.is(wire.received[1]?.headers['last-event-id'], '0');
});

test('pages and data that are not taskchart’s are named', async (t) => {
  const page: Answer = (response) => response.writeHead(200, { 'Content-Type': 'text/html' }).end('<html>');
  for (const [answer, message] of [
    [page, 'stream: must be text/event-stream, got text/html'],
    [stream('id: x\nevent: token\ndata: {}\n\n'), 'stream: an event\'s id must be a whole number, got "x"'],
    [stream('id: 0\nevent: token\ndata: {secret\n\n'), 'stream: the data of "token" must be a JSON object'],
  ] as const) {
    const { client } = await clientOf(t, answer);
    const error = await t.throwsAsync(collect(client.stream(TASK)), { instanceOf: ClientError, message });
    t.is(error?.reason, 'bad_answer');
  }
  const { client } = await clientOf(t, empty);
  await t.throwsAsync(collect(client.stream(TASK, { after: -1 })), { message: /^after: must be/ });
});
