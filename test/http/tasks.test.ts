import test from 'ava';
import { validateEvent, validateResponse } from '../helpers/contract.ts';
import { parseSse, startTestServer, SYNTHETIC } from '../helpers/server.ts';
import { steppedServer } from './stepped-server.ts';
import { call } from './wire.ts';

test('answers 202 at once with the id, a position and a predicted start, and echoes the correlation id', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  const task_id = '0198c0de-0000-7000-8000-000000000001';
  const response = await server.fetch('/v1/tasks', {
    method: 'POST',
    headers: { 'X-Correlation-Id': 'from-the-client' },
    body: JSON.stringify({
      task_id,
      workload: 'completion',
      model_ref: 'synthetic',
      engine: 'synthetic',
      ctx: 100,
      priority: 'batch',
      max_tokens: 4,
      deadline_ms: 60_000,
      prompt: 'hello',
    }),
  });
  t.is(response.status, 202);
  t.is(response.headers.get('x-correlation-id'), 'from-the-client');
  const body = (await response.json()) as { task_id: string };
  validateResponse('submitTask', 202, body);
  t.is(body.task_id, task_id);
});

test('streams started, tokens, metrics and end, in order, numbered from 0 without gaps', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  const events = await server.events(await server.submit({ max_tokens: 5 }));
  t.deepEqual(
    events.map(({ id }) => id),
    events.map((_, index) => index),
  );
  for (const { event, data } of events) validateEvent(event, data);
  t.deepEqual(
    events.filter(({ event }) => event !== 'metrics').map(({ event }) => event),
    ['started', 'token', 'token', 'token', 'token', 'token', 'end'],
  );
  const metrics = events.findIndex(({ event }) => event === 'metrics');
  t.true(metrics > 0);
  t.deepEqual(
    events.filter(({ event }) => event === 'token').map(({ data }) => data),
    [0, 1, 2, 3, 4].map((i) => ({ t: ` t${i}`, i })),
  );
  t.like(events.at(-1)?.data, { tokens_out: 5, finish_reason: 'limit' });
});

test('a stream opened late, twice, after the end or resumed in the middle has the same bytes', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  const id = await server.submit({ max_tokens: 20 });
  const early = server.raw(id);
  await server.step(() => server.tokens(id) >= 7);
  const late = server.raw(id);
  await server.step(() => server.state(id) === 'ended');
  const whole = await server.raw(id);
  t.is(await early, whole);
  t.is(await late, whole);
  const frames = whole.split('\n\n').filter((frame) => frame !== '');
  for (const after of [0, 3, 11]) {
    const rest = `${frames.slice(after + 1).join('\n\n')}\n\n`;
    t.is(await server.raw(id, { after }), rest);
    t.is(await server.raw(id, { lastEventId: after }), rest);
  }
  t.is(await server.raw(id, { after: frames.length - 1 }), '');
});

test('a reader that resumes while the task runs misses nothing', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  const id = await server.submit({ max_tokens: 12 });
  await server.step(() => server.tokens(id) >= 5);
  const resumed = server.events(id, { lastEventId: 3 });
  await server.step(() => server.state(id) === 'ended');
  const whole = await server.events(id);
  t.deepEqual(await resumed, whole.slice(4));
});

test('a queued task that is canceled never runs: its stream is started, then end', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  const running = await server.submit();
  const queued = await server.submit();
  const behind = await server.submit();
  t.is(server.orchestrator.core.place(server.orchestrator.core.record(behind) as never).queue_position, 1);
  t.is((await server.cancel(queued)).status, 204);
  t.is(server.orchestrator.core.place(server.orchestrator.core.record(behind) as never).queue_position, 0);
  const events = await server.events(queued);
  t.deepEqual(
    events.map(({ event }) => event),
    ['started', 'end'],
  );
  t.like(events[1]?.data, { canceled: true, tokens_out: 0 });
  await server.step(() => server.state(running) === 'ended');
});

test('after the 204 of a cancel no token follows, and the slot goes to the next task', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  const id = await server.submit({ max_tokens: 1000 });
  const next = await server.submit({ max_tokens: 2 });
  await server.step(() => server.tokens(id) >= 3);
  const before = server.tokens(id);
  t.is((await server.cancel(id)).status, 204);
  const stream = await server.raw(id);
  await server.step(() => server.state(next) === 'ended');
  t.is(await server.raw(id), stream);
  const events = parseSse(stream);
  t.is(events.filter(({ event }) => event === 'token').length, before);
  t.is(events.at(-2)?.event, 'token');
  t.like(events.at(-1), { event: 'end', data: { canceled: true, tokens_out: before } });
});

test('a cancel is safe to repeat, and to send for a task that is unknown or over', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  const id = await server.submit();
  const whole = await server.raw(id);
  for (const target of [id, id, '0198c0de-0000-7000-8000-00000000dead', 'nonsense']) {
    const response = await server.cancel(target);
    t.is(response.status, 204);
    t.is(await response.text(), '');
    t.truthy(response.headers.get('x-correlation-id'));
  }
  t.is(await server.raw(id), whole);
});

test('tells a task’s state, times, usage and text at any moment', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  const id = await server.submit({ max_tokens: 6 });
  const queued = await server.submit();
  const info = async (task: string): Promise<Record<string, unknown>> => {
    const body = (await (await server.fetch(`/v1/tasks/${task}`)).json()) as Record<string, unknown>;
    validateResponse('getTask', 200, body);
    return body;
  };
  t.like(await info(queued), { state: 'admitted', queue_position: 0, text: '' });
  await server.step(() => server.tokens(id) === 3);
  t.like(await info(id), { state: 'streaming', text: ' t0 t1 t2' });
  await server.step(() => server.state(id) === 'ended');
  t.like(await info(id), {
    state: 'ended',
    finish_reason: 'limit',
    text: ' t0 t1 t2 t3 t4 t5',
    usage: { tokens_in: 4, tokens_cached: 0, tokens_out: 6 },
  });
});

test('the same task posted again has its current place; another body under its id is refused', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  const task_id = '0198c0de-0000-7000-8000-000000000002';
  await server.submit();
  await server.submit({ task_id });
  const again = await server.post({ task_id });
  t.is(again.status, 202);
  t.like(await again.json(), { task_id, queue_position: 0 });
  t.is(server.orchestrator.core.pools.get('slow')?.queue_depth, 1);
  const other = await server.post({ task_id, prompt: 'something else' });
  t.is(other.status, 409);
  const body = (await other.json()) as { code: string; message: string };
  validateResponse('submitTask', 409, body);
  t.like(body, { code: 'INVALID_PARAMS' });
  t.regex(body.message, /^task_id: .* was accepted with another body/);
});

test('a full queue answers 429 with both backoff headers and the policy, and takes the next when one has left', async (t) => {
  const server = await steppedServer({ pool: { queue: { capacity: 1 } } });
  t.teardown(server.close);
  await server.submit();
  const queued = await server.submit();
  const response = await server.post();
  t.is(response.status, 429);
  const body = (await response.json()) as { retry_after_ms: number };
  validateResponse('submitTask', 429, body);
  t.like(body, {
    code: 'ADMISSION_REJECT',
    policy_label: 'reject',
    retriable: true,
    engine: 'synthetic',
    pool_id: 'slow',
  });
  t.is(response.headers.get('x-backoff-ms'), String(body.retry_after_ms));
  t.is(response.headers.get('retry-after'), String(Math.ceil(body.retry_after_ms / 1000)));
  await server.cancel(queued);
  t.is((await server.post()).status, 202);
});

test('an engine that dies in the middle ends the stream with one error, and nothing after it', async (t) => {
  const server = await startTestServer({
    pools: [{ id: 'frail', engine: 'synthetic', model: 'synthetic', synthetic: { fail: { at_token: 3 } } }],
  });
  t.teardown(server.close);
  const id = await server.submit({ max_tokens: 8 });
  const events = await server.events(id);
  t.is(events.filter(({ event }) => event === 'token').length, 3);
  const last = events.at(-1);
  validateEvent('error', last?.data);
  t.like(last, {
    event: 'error',
    data: { code: 'WORKER_RESET', retriable: true, pool_id: 'frail', engine: 'synthetic' },
  });
  t.is(events.filter(({ event }) => event === 'end').length, 0);
  t.like(await (await server.fetch(`/v1/tasks/${id}`)).json(), {
    state: 'error',
    error: { code: 'WORKER_RESET' },
  });
});

test('a reader that does not read stalls neither the engine nor other readers', async (t) => {
  const server = await startTestServer({
    pools: [{ id: 'fast', engine: 'synthetic', model: 'synthetic', ctx: 200_000 }],
  });
  t.teardown(server.close);
  const id = await server.submit({ max_tokens: 50_000, ctx: 100_000 });
  const stalled = await server.fetch(`/v1/tasks/${id}/stream`);
  const events = await server.events(id);
  t.is(events.filter(({ event }) => event === 'token').length, 50_000);
  const text = await stalled.text();
  t.is(parseSse(text).length, events.length);
});

test('a stream of an unknown task is 404, and a resume point that is no number is 400', async (t) => {
  const server = await startTestServer(SYNTHETIC);
  t.teardown(server.close);
  const unknown = await server.fetch('/v1/tasks/0198c0de-0000-7000-8000-00000000dead/stream');
  t.is(unknown.status, 404);
  validateResponse('streamTask', 404, await unknown.json());
  const id = await server.submit();
  const bad = await server.fetch(`/v1/tasks/${id}/stream?after=soon`);
  t.is(bad.status, 400);
  t.like(await bad.json(), {
    code: 'INVALID_PARAMS',
    message: 'after: must be the id of an event (a whole number from 0), got "soon"',
  });
});

test('a reader that has the last event is told that nothing follows, and one that has more is told so', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  const id = await server.submit({ max_tokens: 3 });
  const beyond = await call(server, 'GET', `/v1/tasks/${id}/stream`, undefined, { 'Last-Event-ID': '5000' });
  t.is(beyond.status, 400);
  t.like(beyond.body, { code: 'INVALID_PARAMS', retriable: false });
  t.regex(beyond.body['message'] as string, /^Last-Event-ID, after: must be at most 0\b/);
  await server.step(() => server.state(id) === 'ended');
  const last = (await server.events(id)).length - 1;
  for (const method of ['GET', 'HEAD']) {
    const over = await server.fetch(`/v1/tasks/${id}/stream?after=${last}`, { method });
    t.is(over.status, 204);
    t.is(await over.text(), '');
  }
  t.is((await server.events(id, { after: last - 1 })).length, 1);
  t.is((await call(server, 'GET', `/v1/tasks/${id}/stream?after=${last + 1}`)).status, 400);
});
