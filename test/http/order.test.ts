import test from 'ava';
import { validateEvent } from '../helpers/contract.ts';
import { startTestServer } from '../helpers/server.ts';
import { steppedServer } from './stepped-server.ts';
import { call, follow, names, type Frame } from './wire.ts';

function places(frames: readonly Frame[], event: string): number[] {
  return frames.flatMap((frame, place) => (frame.event === event ? [place] : []));
}

test('started comes first and once, the first metrics after the first token, and end last', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  for (const max_tokens of [1, 2, 40]) {
    const id = await server.submit({ max_tokens });
    const reader = await follow(server, id);
    await reader.over;
    const frames = reader.frames();
    t.deepEqual(places(frames, 'started'), [0]);
    t.deepEqual(places(frames, 'end'), [frames.length - 1]);
    const tokens = places(frames, 'token');
    const metrics = places(frames, 'metrics');
    t.is(tokens.length, max_tokens);
    t.true((metrics[0] as number) > (tokens[0] as number));
    t.true((metrics.at(-1) as number) > (tokens.at(-1) as number), 'one more before end');
    t.deepEqual(
      frames.map(({ id: number }) => number),
      frames.map((_, index) => index),
    );
  }
});

test('every metrics says how many wait and how likely the deadline is met', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  const id = await server.submit({ max_tokens: 250, deadline_ms: 60_000 });
  await server.submit();
  await server.submit();
  await server.step(() => server.state(id) === 'ended');
  const metrics = (await server.events(id)).filter(({ event }) => event === 'metrics');
  t.true(metrics.length >= 3, 'one a second, and one before the end');
  for (const { data } of metrics) validateEvent('metrics', data);
  t.deepEqual(new Set(metrics.map(({ data }) => data['queue_depth'])), new Set([2]));
  for (const { data } of metrics) t.true((data['on_time_probability'] as number) > 0.9);
});

test('the chance to be on time falls as the deadline comes nearer', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  // It needs 5 s, of which it has 4.
  const id = await server.submit({ max_tokens: 500, deadline_ms: 4000 });
  await server.step(() => server.state(id) === 'error');
  const events = await server.events(id);
  const chances = events
    .filter(({ event }) => event === 'metrics')
    .map(({ data }) => data['on_time_probability'] as number);
  t.true(chances.length >= 3);
  t.deepEqual(
    chances.slice(1),
    chances.slice(1).toSorted((a, b) => b - a),
  );
  t.true((chances.at(-1) as number) < 0.5);
  t.like(events.at(-1), { event: 'error', data: { code: 'DEADLINE_UNMET', retriable: false } });
  t.is(events.filter(({ event }) => event === 'end').length, 0);
});

test('end says its duration under both names, and how many tokens were sent', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  const id = await server.submit({ max_tokens: 11 });
  await server.step(() => server.state(id) === 'ended');
  const end = (await server.events(id)).at(-1)?.data ?? {};
  t.is(end['tokens_out'], 11);
  t.is(end['decode_ms'], 100);
  t.is(end['decode_time_ms'], 100);
});

test('a task that is canceled before anybody reads has started and end, no tokens and no metrics', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  await server.submit({ max_tokens: 1000 });
  const id = await server.submit();
  t.is((await call(server, 'POST', `/v1/tasks/${id}/cancel`)).status, 204);
  const events = await server.events(id);
  t.deepEqual(names(events), ['started', 'end']);
  t.like(events[1]?.data, { canceled: true, tokens_out: 0, decode_ms: 0, decode_time_ms: 0 });
});

test('a task that is canceled while its pool comes up has started and end, no tokens and no metrics', async (t) => {
  const server = await steppedServer({ pool: { preload: false, synthetic: { load_ms: 10_000 } } });
  t.teardown(server.close);
  const id = await server.submit();
  t.is((await call(server, 'POST', `/v1/tasks/${id}/cancel`)).status, 204);
  t.deepEqual(names(await server.events(id)), ['started', 'end']);
});

test('the first metrics come after the first token where the pool had to come up too', async (t) => {
  const server = await steppedServer({ pool: { preload: false, synthetic: { load_ms: 1000 } } });
  t.teardown(server.close);
  const id = await server.submit({ max_tokens: 3 });
  await server.step(() => server.state(id) === 'ended');
  t.is((await server.events(id))[1]?.event, 'token');
});

for (const count of [1, 2]) {
  test(`a task that is canceled after ${count} of its tokens has those, and no metrics`, async (t) => {
    const server = await steppedServer({ pool: { synthetic: { tokens_per_second: 1000 / 30 } } });
    t.teardown(server.close);
    const id = await server.submit({ max_tokens: 100 });
    await server.step(() => server.tokens(id) === count);
    server.clock.advance(5);
    t.is((await call(server, 'POST', `/v1/tasks/${id}/cancel`)).status, 204);
    server.clock.advance(60_000);
    t.deepEqual(names(await server.events(id)), [
      'started',
      ...Array.from({ length: count }, () => 'token'),
      'end',
    ]);
  });
}

test('tokens 30 ms apart and a cancel 5 ms after the first: one token is all there is, for every reader', async (t) => {
  const server = await steppedServer({ pool: { synthetic: { tokens_per_second: 1000 / 30 } } });
  t.teardown(server.close);
  const id = await server.submit({ max_tokens: 100 });
  const early = await follow(server, id);
  await server.step(() => server.tokens(id) === 1);
  server.clock.advance(5);
  t.is((await call(server, 'POST', `/v1/tasks/${id}/cancel`)).status, 204);
  const after = await server.raw(id);
  server.clock.advance(60_000);
  await early.over;
  t.is(early.text(), after);
  t.is(await server.raw(id), after);
  t.is(places(early.frames(), 'token').length, 1);
  t.like(early.frames().at(-1), { event: 'end', data: { canceled: true, tokens_out: 1 } });
});

test('a stream that fails has one error with its envelope, and no end', async (t) => {
  const server = await steppedServer({
    pool: { timeouts: { idle_ms: 50, first_token_ms: 100 }, synthetic: { first_token_ms: 10_000 } },
  });
  t.teardown(server.close);
  const id = await server.submit();
  await server.step(() => server.state(id) === 'error');
  const reader = await follow(server, id);
  await reader.over;
  t.is(reader.status, 200);
  t.deepEqual(names(reader.frames()), ['started', 'error']);
  t.like(reader.frames()[1]?.data, {
    code: 'DECODE_TIMEOUT',
    retriable: true,
    engine: 'synthetic',
    pool_id: 'slow',
  });
});

test('every stream may be neither cached nor held back', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  const reader = await follow(server, await server.submit(), '', { 'X-Correlation-Id': 'mine' });
  await reader.over;
  t.is(reader.headers.get('content-type'), 'text/event-stream');
  t.is(reader.headers.get('cache-control'), 'no-cache');
  t.is(reader.headers.get('x-accel-buffering'), 'no');
  t.is(reader.headers.get('x-correlation-id'), 'mine');
  t.is(reader.headers.get('connection'), 'keep-alive');
});
