import test from 'ava';
import { loadConfig } from '../../src/config.ts';
import { parseSse, startTestServer, SYNTHETIC } from '../helpers/server.ts';
import { steppedServer } from './stepped-server.ts';
import { call, follow, names, type Frame } from './wire.ts';

function told(frames: readonly Frame[]): string[] {
  return frames.filter(({ event }) => event === 'narration').map(({ data }) => data['human'] as string);
}

function numbered(frames: readonly Frame[]): Frame[] {
  return frames.filter(({ event }) => event !== 'narration');
}

async function stream(
  server: Parameters<typeof follow>[0],
  id: string,
  query: string,
  headers?: Record<string, string>,
): Promise<Frame[]> {
  const reader = await follow(server, id, query, headers);
  await reader.over;
  return reader.frames();
}

test('?verbose=true tells start and end in words, in frames without an id; the others keep theirs', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  const id = await server.submit({ max_tokens: 5 });
  const plain = await stream(server, id, '');
  const verbose = await stream(server, id, '?verbose=true');
  t.deepEqual(told(verbose), [
    'The task joins the queue of pool fast with nothing ahead of it.',
    'The task ends after 5 tokens.',
  ]);
  t.deepEqual(names(verbose).slice(0, 2), ['started', 'narration']);
  t.deepEqual(names(verbose).slice(-2), ['narration', 'end']);
  for (const frame of verbose) t.is(frame.id === undefined, frame.event === 'narration');
  t.deepEqual(numbered(verbose), plain);
});

test('a cancel and a failure are told in words, and a singular is one', async (t) => {
  const server = await steppedServer({ pool: { timeouts: { first_token_ms: 1000 } } });
  t.teardown(server.close);
  const running = await server.submit({ max_tokens: 1000 });
  await server.submit();
  const canceled = await server.submit();
  await server.step(() => server.tokens(running) === 1);
  for (const id of [canceled, running]) await call(server, 'POST', `/v1/tasks/${id}/cancel`);
  t.deepEqual(told(await stream(server, canceled, '?verbose=1')), [
    'The task joins the queue of pool slow with 1 task ahead of it.',
    'The task is canceled after 0 tokens.',
  ]);
  t.is(told(await stream(server, running, '?verbose=1'))[1], 'The task is canceled after 1 token.');
});

test('a failure is told in words before its error event, which stays the last', async (t) => {
  const server = await steppedServer({
    pool: { timeouts: { first_token_ms: 50 }, synthetic: { first_token_ms: 10_000 } },
  });
  t.teardown(server.close);
  const id = await server.submit();
  await server.step(() => server.state(id) === 'error');
  const frames = await stream(server, id, '?verbose=true');
  t.deepEqual(names(frames), ['started', 'narration', 'narration', 'error']);
  t.is(told(frames)[1], 'The task fails with DECODE_TIMEOUT.');
});

test('no sentence is longer than 100 characters, also with the longest name of a pool', async (t) => {
  const id = 'p'.repeat(64);
  const server = await steppedServer({ pool: { id, queue: { capacity: 2000 } } });
  t.teardown(server.close);
  const ids: string[] = [];
  for (let n = 0; n < 13; n++) ids.push(await server.submit());
  for (const task of ids) await server.cancel(task);
  for (const task of ids) {
    for (const human of told(await stream(server, task, '?verbose=true')))
      t.true(human.length <= 100, `${human.length}: ${human}`);
  }
});

test('there is never one sentence per token', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  const frames = await stream(server, await server.submit({ max_tokens: 500 }), '?verbose=true');
  t.true(told(frames).length <= 3);
});

test('a reader that resumes a told stream has the rest of it, numbered as before', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  const id = await server.submit({ max_tokens: 12 });
  const live = await follow(server, id, '?verbose=true');
  await server.step(() => server.tokens(id) === 6);
  const resumed = await follow(server, id, '?verbose=true', { 'Last-Event-ID': '3' });
  await server.step(() => server.state(id) === 'ended');
  await Promise.all([live.over, resumed.over]);
  t.deepEqual(numbered(resumed.frames()), numbered(live.frames()).slice(4));
  t.deepEqual(told(resumed.frames()), ['The task ends after 12 tokens.']);
  const last = numbered(live.frames()).at(-1)?.id;
  t.deepEqual(await stream(server, id, `?verbose=true&after=${last}`), []);
});

test('what is being prepared is said in words and steps, without an id, to those who ask and wait', async (t) => {
  const server = await steppedServer({ pool: { preload: false, synthetic: { load_ms: 1000 } } });
  t.teardown(server.close);
  const id = await server.submit();
  const live = await follow(server, id, '?verbose=true');
  await server.step(() => server.state(id) === 'ended');
  await live.over;
  const verbose = live.frames();
  const prepared = verbose.find(({ data }) => data['prep'] !== undefined);
  t.like(prepared, { event: 'metrics', id: undefined });
  t.regex(prepared?.data['human'] as string, /model|engine/i);
  t.deepEqual(Object.keys(prepared?.data['prep'] as object), ['model', 'engine']);
  t.is(verbose[0]?.event, 'started');
  const plain = await stream(server, id, '');
  t.false(plain.some(({ data }) => 'prep' in data || 'human' in data));
  t.deepEqual(
    verbose.filter((frame) => frame.id !== undefined && frame.event !== 'narration').map((frame) => frame.id),
    plain.map((frame) => frame.id),
  );
});

test('the stream of an unfinished task tells its start and its end to everybody who does not say no', async (t) => {
  const server = await steppedServer({ sse: { narration_enabled: true, heartbeat_ms: 0 } });
  t.teardown(server.close);
  const id = await server.submit({ max_tokens: 2 });
  const silent = await follow(server, id, '?verbose=false');
  const live = await follow(server, id);
  await server.step(() => server.state(id) === 'ended');
  await Promise.all([live.over, silent.over]);
  t.deepEqual(told(live.frames()), [
    'The task joins the queue of pool slow with nothing ahead of it.',
    'The task ends after 2 tokens.',
  ]);
  t.false(live.frames().some(({ event, data }) => event === 'metrics' && 'human' in data));
  t.deepEqual(told(silent.frames()), []);
  t.deepEqual(numbered(live.frames()), silent.frames());
});

test('a stream that is opened after the cancel is the log and nothing else, unless it asks for words', async (t) => {
  const server = await steppedServer({ sse: { narration_enabled: true } });
  t.teardown(server.close);
  await server.submit();
  const id = await server.submit();
  await server.cancel(id);
  t.deepEqual(names(await stream(server, id, '')), ['started', 'end']);
  t.is(told(await stream(server, id, '?verbose=true')).length, 2);
});

test('words are on where the configuration says nothing, and none of them comes by the clock', (t) => {
  const { sse } = loadConfig({ overrides: SYNTHETIC });
  t.like(sse, { narration_enabled: true, narration_period_ms: 0 });
});

test('sse.narration_period_ms says where the task is, at most that often and only where it has moved', async (t) => {
  const server = await steppedServer({
    sse: { narration_enabled: true, narration_period_ms: 100, heartbeat_ms: 0 },
    pool: { timeouts: { wall_ms: 3_600_000 } },
  });
  t.teardown(server.close);
  const first = await server.submit({ max_tokens: 50 });
  await server.step(() => server.tokens(first) === 1);
  const second = await server.submit({ max_tokens: 5 });
  const [running, waiting] = [await follow(server, first), await follow(server, second)];
  await server.step(() => server.state(second) === 'ended');
  await Promise.all([running.over, waiting.over]);
  const progress = (frames: readonly Frame[]): string[] =>
    told(frames.filter(({ data }) => data['action'] === 'progress'));
  const far = progress(running.frames()).map((human) =>
    Number(/^The task has (\d+) tokens so far/.exec(human)?.[1]),
  );
  t.true(far.length >= 3 && far.length <= 5, `${far}`);
  for (const [i, tokens] of far.entries()) t.true(Math.abs(tokens - 10 * (i + 1)) <= 2, `${far}`);
  t.is(progress(waiting.frames())[0], 'The task waits with nothing ahead of it.');
  t.is(new Set(progress(waiting.frames())).size, progress(waiting.frames()).length);
  for (const { frames } of [running, waiting]) {
    t.is(names(frames())[0], 'started');
    t.is(names(frames()).at(-1), 'end');
  }
});

test('without verbose what is over has no narration; a word that is neither yes nor no is 400', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  const id = await server.submit({ max_tokens: 2 });
  for (const query of ['', '?verbose=false', '?verbose=0']) {
    const text = await (await server.fetch(`/v1/tasks/${id}/stream${query}`)).text();
    t.notThrows(() => parseSse(text));
  }
  for (const query of ['?verbose=1', '?verbose=TRUE', '?verbose'])
    t.is(told(await stream(server, id, query)).length, 2, query);
  const { status, body } = await call(server, 'GET', `/v1/tasks/${id}/stream?verbose=maybe`);
  t.is(status, 400);
  t.regex(body['message'] as string, /^verbose: must be one of true, false/);
});

test('a narration has the time of what it tells, whenever it is read', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  const admitted = server.clock.wall();
  const id = await server.submit({ max_tokens: 3 });
  await server.step(() => server.state(id) === 'ended');
  const ended = server.clock.wall();
  server.clock.advance(60_000);
  const frames = await stream(server, id, '?verbose=true');
  t.deepEqual(
    frames.filter(({ event }) => event === 'narration').map(({ data }) => data['ts']),
    [admitted, ended],
  );
});
