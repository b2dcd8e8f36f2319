import test from 'ava';
import { startTestServer, SYNTHETIC } from '../helpers/server.ts';
import { steppedServer } from './stepped-server.ts';
import { follow, names, type Frame } from './wire.ts';

interface Token {
  t: string;
  i: number;
}

function tokensOf(frames: readonly Frame[]): Token[] {
  return frames
    .filter(({ event }) => event === 'token')
    .flatMap(({ data }) => (data['batch'] ?? [data]) as Token[]);
}

const BATCHED = { sse: { heartbeat_ms: 0, microbatch: true, microbatch_window_ms: 50 } };

test('tokens of one window leave as one event in their order, and the first one at once', async (t) => {
  const server = await steppedServer(BATCHED);
  t.teardown(server.close);
  const id = await server.submit({ max_tokens: 30 });
  const reader = await follow(server, id);
  await server.step(() => server.state(id) === 'ended');
  await server.step(() => reader.text().includes('event: end'));
  await reader.over;
  const frames = reader.frames();
  t.deepEqual(
    tokensOf(frames),
    Array.from({ length: 30 }, (_, i) => ({ t: ` t${i}`, i })),
  );
  const batches = frames.filter(({ data }) => data['batch'] !== undefined);
  t.true(batches.length > 0 && batches.length < 15);
  t.deepEqual(
    names(frames)
      .filter((name, place, all) => name !== all[place - 1])
      .at(-1),
    'end',
  );
  t.is(names(frames)[0], 'started');
});

test('the id of a batch is that of its last token, so whoever resumes after it misses nothing', async (t) => {
  const server = await startTestServer({ ...SYNTHETIC, ...BATCHED });
  t.teardown(server.close);
  const id = await server.submit({ max_tokens: 200 });
  const whole = await follow(server, id);
  await whole.over;
  const frames = whole.frames();
  let last_id = -1;
  for (const { id: frame_id, data } of frames) {
    const count = (data['batch'] as Token[] | undefined)?.length ?? 1;
    t.is(frame_id, last_id + count);
    last_id = frame_id as number;
  }
  for (const [place, { id: after }] of frames.entries()) {
    const rest = await follow(server, id, '', { 'Last-Event-ID': String(after) });
    await rest.over;
    t.deepEqual(tokensOf(rest.frames()), tokensOf(frames.slice(place + 1)));
  }
});

test('a reader that resumes in the middle of a batch has the rest of it', async (t) => {
  const server = await startTestServer({ ...SYNTHETIC, ...BATCHED });
  t.teardown(server.close);
  const id = await server.submit({ max_tokens: 100 });
  const whole = await follow(server, id);
  await whole.over;
  const batch = whole.frames().findLast(({ data }) => data['batch'] !== undefined) as Frame;
  const middle = (batch.id as number) - 1;
  const rest = await follow(server, id, `?after=${middle}`);
  await rest.over;
  t.deepEqual(tokensOf(rest.frames()), tokensOf(whole.frames()).slice(-tokensOf(rest.frames()).length));
  t.is(tokensOf(rest.frames())[0]?.i, (batch.data['batch'] as Token[]).at(-1)?.i);
});

test('with and without batches a task has the same text', async (t) => {
  const texts = [];
  for (const sse of [{}, BATCHED.sse]) {
    const server = await startTestServer({ ...SYNTHETIC, sse });
    t.teardown(server.close);
    const id = await server.submit({ max_tokens: 300 });
    const reader = await follow(server, id);
    await reader.over;
    texts.push(
      tokensOf(reader.frames())
        .map((token) => token.t)
        .join(''),
    );
  }
  t.is(texts[0], texts[1]);
});

test('batches are batches also where the stream is told in words', async (t) => {
  const server = await startTestServer({ ...SYNTHETIC, ...BATCHED });
  t.teardown(server.close);
  const id = await server.submit({ max_tokens: 200 });
  await server.raw(id).catch(() => undefined);
  const plain = await follow(server, id);
  await plain.over;
  const told = await follow(server, id, '?verbose=true');
  await told.over;
  t.deepEqual(
    told.frames().filter(({ event }) => event !== 'narration'),
    plain.frames(),
  );
});

test('a single token is no batch, and without the setting there are none', async (t) => {
  const batched = await startTestServer({ ...SYNTHETIC, ...BATCHED });
  t.teardown(batched.close);
  const single = await follow(batched, await batched.submit({ max_tokens: 1 }));
  await single.over;
  const plain = await startTestServer();
  t.teardown(plain.close);
  const many = await follow(plain, await plain.submit({ max_tokens: 100 }));
  await many.over;
  for (const reader of [single, many])
    t.false(reader.frames().some(({ data }) => data['batch'] !== undefined));
});
