import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import { Heartbeats } from '../../src/http/sse.ts';
import { SimulatedClock } from '../helpers/simulated-clock.ts';
import { until } from '../helpers/until.ts';
import { steppedServer } from './stepped-server.ts';
import { follow } from './wire.ts';

const PERIOD_MS = 1000;

/** A response that somebody reads, and the stream that is written to. */
async function open(t: ExecutionContext): Promise<{ response: ServerResponse; text: () => string }> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => void server.close());
  const asked = once(server, 'request');
  const fetching = fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  const [, response] = (await asked) as [unknown, ServerResponse];
  response.writeHead(200).flushHeaders();
  const { body } = await fetching;
  let text = '';
  void (async () => {
    for await (const part of (body as ReadableStream<Uint8Array>).pipeThrough(new TextDecoderStream()))
      text += part;
  })().catch(() => undefined);
  t.teardown(() => void response.destroy());
  return { response, text: () => text };
}

test('comments come at each period, on every stream, and none without a period', async (t) => {
  const clock = new SimulatedClock();
  const heartbeats = new Heartbeats(clock, PERIOD_MS);
  const streams = [await open(t), await open(t)];
  for (const { response } of streams) heartbeats.add(response);
  for (const beats of [1, 2]) {
    clock.advance(PERIOD_MS);
    await until(() => streams.every(({ text }) => text() === ': keep-alive\n\n'.repeat(beats)));
  }
  heartbeats.close();
  t.is(clock.pending, 0);
  const none = new Heartbeats(clock, 0);
  none.add((streams[0] as { response: ServerResponse }).response);
  t.is(clock.pending, 0);
});

test('a stream that has ended, but whose last bytes are still on their way, gets no comment', async (t) => {
  const clock = new SimulatedClock();
  const heartbeats = new Heartbeats(clock, PERIOD_MS);
  t.teardown(() => heartbeats.close());
  const { response, text } = await open(t);
  heartbeats.add(response);
  // What a reader that does not read brings about: nothing leaves.
  response.socket?.cork();
  response.end('event: end\n\n');
  let failed: unknown;
  response.once('error', (error) => (failed = error));
  clock.advance(PERIOD_MS);
  let turns = 0;
  await until(() => ++turns > 20);
  t.is(failed, undefined);
  response.socket?.uncork();
  await until(() => text() === 'event: end\n\n');
});

test('the timer is gone with the last stream', async (t) => {
  const clock = new SimulatedClock();
  const heartbeats = new Heartbeats(clock, PERIOD_MS);
  const { response, text } = await open(t);
  heartbeats.add(response);
  const closed = once(response, 'close');
  response.end('bye');
  await closed;
  await until(() => text() === 'bye');
  clock.advance(PERIOD_MS);
  t.is(clock.pending, 0);
  t.is(text(), 'bye');
});

test('a task that waits long sends comments only, and they are no resume points', async (t) => {
  const server = await steppedServer({
    sse: { heartbeat_ms: PERIOD_MS },
    pool: { synthetic: { first_token_ms: 60_000 } },
  });
  t.teardown(server.close);
  const id = await server.submit({ max_tokens: 1 });
  const reader = await follow(server, id);
  await until(() => reader.text().includes('event: started'));
  for (const beats of [1, 2, 3]) {
    server.clock.advance(PERIOD_MS);
    await until(() => reader.text().split(': keep-alive\n\n').length === beats + 1);
  }
  await server.step(() => server.state(id) === 'ended');
  await reader.over;
  t.deepEqual(
    reader.frames().map((frame) => frame.id),
    reader.frames().map((_, place) => place),
  );
});

test('without a period there are no comments', async (t) => {
  const server = await steppedServer({ sse: { heartbeat_ms: 0 } });
  t.teardown(server.close);
  const id = await server.submit({ max_tokens: 300 });
  const reader = await follow(server, id);
  await server.step(() => server.state(id) === 'ended');
  await reader.over;
  t.notRegex(reader.text(), /^:/m);
});
