import { connect } from 'node:net';
import test from 'ava';
import { until } from '../helpers/until.ts';
import { steppedServer, type SteppedServer, type SteppedSettings } from './stepped-server.ts';
import { call, follow, type Reader } from './wire.ts';

const GRACE_MS = 5000;
const GRACE = { sse: { heartbeat_ms: 0, disconnect_grace_ms: GRACE_MS } };
/** Long enough to be still there when a grace is over. */
const LONG = { max_tokens: 2000 };

interface WatchedServer extends SteppedServer {
  /** Ends the connection, and waits until the server knows. */
  leave: (reader: Reader) => Promise<void>;
  /** Readers that have come and have not left. */
  readers: () => number;
  /** Readers that have ever come. */
  seen: () => number;
}

/** Counts who has left: the moment from which on a grace runs. */
async function watchedServer(settings: SteppedSettings = GRACE): Promise<WatchedServer> {
  const server = await steppedServer(settings);
  const { core } = server.orchestrator;
  const attachReader = core.attachReader.bind(core);
  let seen = 0;
  let left = 0;
  core.attachReader = (record) => {
    seen++;
    const leave = attachReader(record);
    return () => {
      leave();
      left++;
    };
  };
  return {
    ...server,
    readers: () => seen - left,
    seen: () => seen,
    async leave(reader) {
      const before = left;
      reader.leave();
      await until(() => left === before + 1);
    },
  };
}

/** A reader that has begun to read. */
async function attach(server: SteppedServer, id: string): Promise<Reader> {
  const reader = await follow(server, id);
  await until(() => reader.text().includes('event: started'));
  return reader;
}

async function stateOf(server: SteppedServer, id: string): Promise<Record<string, unknown>> {
  return (await call(server, 'GET', `/v1/tasks/${id}`)).body;
}

test('an interactive task is canceled once its last reader has been gone for the grace, not before', async (t) => {
  const server = await watchedServer();
  t.teardown(server.close);
  const id = await server.submit(LONG);
  const next = await server.submit({ max_tokens: 1 });
  await server.leave(await attach(server, id));
  server.clock.advance(GRACE_MS - 1);
  t.is(server.state(id), 'streaming');
  server.clock.advance(1);
  await until(() => server.state(id) === 'ended');
  t.like(await stateOf(server, id), { state: 'ended', canceled: true });
  t.like((await server.events(id)).at(-1), {
    event: 'end',
    data: { canceled: true, cancel_reason: 'disconnect' },
  });
  const metrics = await (await server.fetch('/metrics')).text();
  t.regex(metrics, /tasks_canceled_total\{[^}]*reason="disconnect"[^}]*\} 1/);
  await server.step(() => server.state(next) === 'ended');
});

test('an interactive task that waits is given up as well', async (t) => {
  const server = await watchedServer();
  t.teardown(server.close);
  await server.submit(LONG);
  const id = await server.submit(LONG);
  await server.leave(await attach(server, id));
  server.clock.advance(GRACE_MS);
  t.is(server.state(id), 'ended');
});

test('while one of two readers is there the task goes on, and its grace begins with the last', async (t) => {
  const server = await watchedServer();
  t.teardown(server.close);
  const id = await server.submit(LONG);
  const first = await attach(server, id);
  const second = await attach(server, id);
  await server.leave(first);
  server.clock.advance(GRACE_MS * 2);
  t.is(server.state(id), 'streaming');
  await server.leave(second);
  server.clock.advance(GRACE_MS - 1);
  t.is(server.state(id), 'streaming');
  server.clock.advance(1);
  t.is(server.state(id), 'ended');
});

test('a reader that comes back in time finds its task, and misses nothing', async (t) => {
  const server = await watchedServer();
  t.teardown(server.close);
  const id = await server.submit({ max_tokens: 1200 });
  const reader = await attach(server, id);
  await server.step(() => server.tokens(id) > 5);
  await until(() => reader.frames().length > 5);
  await server.leave(reader);
  const last = reader.frames().at(-1)?.id as number;
  server.clock.advance(GRACE_MS - 1);
  const again = await follow(server, id, `?after=${last}`);
  await until(() => again.text() !== '');
  server.clock.advance(GRACE_MS);
  t.is(server.state(id), 'streaming');
  await server.step(() => server.state(id) === 'ended');
  await again.over;
  t.is(again.frames()[0]?.id, last + 1);
  t.like(again.frames().at(-1), { event: 'end', data: { tokens_out: 1200, finish_reason: 'limit' } });
});

test('a task that comes and goes many times is given up once, after the last time', async (t) => {
  const server = await watchedServer();
  t.teardown(server.close);
  const id = await server.submit(LONG);
  for (let n = 0; n < 5; n++) {
    await server.leave(await attach(server, id));
    server.clock.advance(GRACE_MS - 1000);
    t.is(server.state(id), 'streaming');
  }
  server.clock.advance(1000);
  t.is(server.state(id), 'ended');
});

test('a batch task goes on without readers', async (t) => {
  const server = await watchedServer();
  t.teardown(server.close);
  const id = await server.submit({ ...LONG, priority: 'batch' });
  await server.leave(await attach(server, id));
  await server.step(() => server.state(id) === 'ended');
  t.like(await stateOf(server, id), { finish_reason: 'limit' });
});

test('a task that nobody ever read goes on, also where somebody asked for it or for its headers', async (t) => {
  const server = await watchedServer();
  t.teardown(server.close);
  const id = await server.submit(LONG);
  await stateOf(server, id);
  t.is((await server.fetch(`/v1/tasks/${id}/stream`, { method: 'HEAD' })).status, 200);
  t.is((await server.fetch(`/v1/tasks/${id}/stream?after=x`)).status, 400);
  await server.step(() => server.state(id) === 'ended');
  t.like(await stateOf(server, id), { finish_reason: 'limit' });
});

test('with cancel_on_disconnect: false an interactive task goes on too', async (t) => {
  const server = await watchedServer({
    sse: { heartbeat_ms: 0, disconnect_grace_ms: 0, cancel_on_disconnect: false },
  });
  t.teardown(server.close);
  const id = await server.submit(LONG);
  await server.leave(await attach(server, id));
  await server.step(() => server.state(id) === 'ended');
  t.like(await stateOf(server, id), { finish_reason: 'limit' });
});

test('a reader that has all of a finished task and leaves changes nothing', async (t) => {
  const server = await watchedServer();
  t.teardown(server.close);
  const id = await server.submit({ max_tokens: 3 });
  const reader = await attach(server, id);
  await server.step(() => server.state(id) === 'ended');
  await reader.over;
  const late = await follow(server, id);
  await late.over;
  server.clock.advance(GRACE_MS * 2);
  t.like(await stateOf(server, id), { state: 'ended', finish_reason: 'limit' });
});

test('readers that leave at once, in hundreds, are all gone: the task is given up after the grace', async (t) => {
  const server = await watchedServer();
  t.teardown(server.close);
  const id = await server.submit(LONG);
  const { port, hostname } = new URL(server.url);
  const comeAndGo = (): Promise<void> =>
    new Promise((resolve) => {
      const socket = connect(Number(port), hostname, () => {
        socket.write(`GET /v1/tasks/${id}/stream HTTP/1.1\r\nHost: localhost\r\n\r\n`, () =>
          socket.destroy(),
        );
      });
      socket.once('error', () => undefined).once('close', () => resolve());
    });
  await Promise.all(Array.from({ length: 200 }, comeAndGo));
  await until(() => server.seen() > 0 && server.readers() === 0);
  t.is(server.state(id), 'placed');
  server.clock.advance(GRACE_MS);
  await until(() => server.state(id) === 'ended');
});
