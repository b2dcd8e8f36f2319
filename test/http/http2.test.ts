import { once } from 'node:events';
import { connect, type ClientHttp2Session } from 'node:http2';
import test from 'ava';
import { parseSse, request, startTestServer, SYNTHETIC } from '../helpers/server.ts';

const BOTH = { ...SYNTHETIC, server: { prefer_h2: true } };

async function call(
  session: ClientHttp2Session,
  method: string,
  path: string,
  body?: object,
): Promise<{ headers: Record<string, unknown>; text: string }> {
  const stream = session.request({ ':method': method, ':path': path });
  stream.end(body && JSON.stringify(body));
  const [headers] = (await once(stream, 'response')) as [Record<string, unknown>];
  let text = '';
  for await (const part of stream.setEncoding('utf8')) text += String(part);
  return { headers, text };
}

test('with prefer_h2 one port speaks HTTP/2 to clients that begin with it, and HTTP/1.1 to all others, and says the same', async (t) => {
  const server = await startTestServer(BOTH);
  t.teardown(server.close);
  const session = connect(server.url);
  t.teardown(() => session.destroy());
  const posted = await call(session, 'POST', '/v1/tasks', request);
  t.is(posted.headers[':status'], 202);
  t.regex(String(posted.headers['x-correlation-id']), /^[\da-f-]{36}$/);
  const { task_id } = JSON.parse(posted.text) as { task_id: string };
  const streamed = await call(session, 'GET', `/v1/tasks/${task_id}/stream`);
  t.is(streamed.headers['content-type'], 'text/event-stream');
  t.is(streamed.headers['connection'], undefined);
  t.deepEqual(parseSse(streamed.text), await server.events(task_id));
  const both = await Promise.all([
    ...Array.from({ length: 20 }, () => call(session, 'GET', `/v1/tasks/${task_id}/stream`)),
    server.raw(await server.submit()),
  ]);
  t.is(both.length, 21);
});

test('a stream over HTTP/2 comes as it is written, and its reader may leave', async (t) => {
  const server = await startTestServer({
    ...BOTH,
    pools: [{ id: 'slow', engine: 'synthetic', model: 'synthetic', synthetic: { tokens_per_second: 50 } }],
  });
  t.teardown(server.close);
  const session = connect(server.url);
  t.teardown(() => session.destroy());
  const id = await server.submit({ max_tokens: 3000, priority: 'batch' });
  const stream = session.request({ ':path': `/v1/tasks/${id}/stream` }).setEncoding('utf8');
  let text = '';
  for await (const part of stream) {
    text += String(part);
    if (text.includes('event: token')) break;
  }
  t.false(text.includes('event: end'));
  t.is((await server.fetch(`/v1/tasks/${id}`)).status, 200);
});

test('closing ends connections of both kinds, also one that has not said anything yet', async (t) => {
  const server = await startTestServer(BOTH);
  const session = connect(server.url);
  await call(session, 'GET', '/healthz');
  await server.fetch('/healthz');
  const closed = once(session, 'close');
  await server.close();
  await closed;
  t.true(session.closed);
});

test('what is neither is answered as HTTP/1.1 answers it', async (t) => {
  const server = await startTestServer(BOTH);
  t.teardown(server.close);
  for (const method of ['GET', 'POST', 'PUT', 'PATCH'])
    t.true((await server.fetch('/v1/tasks', { method })).status < 500);
});
