import { connect } from 'node:net';
import test from 'ava';
import { validateSchema } from '../helpers/contract.ts';
import { request, startTestServer, type TestServer } from '../helpers/server.ts';
import { steppedServer } from './stepped-server.ts';
import { until } from '../helpers/until.ts';

/** Sends bytes as they are. @returns what comes back until the server closes the connection */
function send(server: Pick<TestServer, 'url'>, text: string): Promise<string> {
  const { hostname, port } = new URL(server.url);
  return new Promise((resolve, reject) => {
    let answer = '';
    connect(Number(port), hostname)
      .setEncoding('latin1')
      .on('data', (chunk) => (answer += String(chunk)))
      .on('error', reject)
      .on('close', () => resolve(answer))
      .write(text);
  });
}

const cases: [title: string, text: string, status: number, message: RegExp][] = [
  [
    'headers that are too large',
    `GET /healthz HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`,
    431,
    /^headers: /,
  ],
  ['what is no HTTP', 'hello\r\n\r\n', 400, /^request: /],
  ['no Host', 'GET /healthz HTTP/1.1\r\nX-Correlation-Id: mine\r\n\r\n', 400, /^Host: /],
  [
    'two lengths of one body',
    'POST /v1/tasks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n',
    400,
    /^request: /,
  ],
  [
    'a body that is not what it says',
    'POST /v1/tasks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n\r\n',
    400,
    /^request: /,
  ],
  [
    'an expectation',
    'POST /v1/tasks HTTP/1.1\r\nHost: x\r\nX-Correlation-Id: mine\r\nExpect: miracles\r\nContent-Length: 2\r\n\r\n{}',
    417,
    /^Expect: /,
  ],
];

for (const [title, text, status, message] of cases)
  test(`${title}: ${status}, the envelope and a correlation id`, async (t) => {
    const server = await startTestServer();
    t.teardown(server.close);
    const [head = '', body = ''] = (await send(server, text)).split('\r\n\r\n');
    t.regex(head, new RegExp(`^HTTP/1\\.1 ${status} \\w`));
    t.regex(
      head,
      text.includes('mine') ? /\nX-Correlation-Id: mine\r/i : /\nX-Correlation-Id: [\da-f-]{36}\r/i,
    );
    t.regex(head, /\nContent-Type: application\/json/i);
    const envelope = JSON.parse(body) as { code: string; message: string };
    validateSchema('Error', envelope);
    t.is(envelope.code, 'INVALID_PARAMS');
    t.regex(envelope.message, message);
    t.is((await server.fetch('/healthz')).status, 200);
  });

test('nothing is written into an answer that has begun', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  const id = await server.submit();
  const { hostname, port } = new URL(server.url);
  let text = '';
  let isClosed = false;
  const socket = connect(Number(port), hostname)
    .setEncoding('latin1')
    .on('data', (chunk) => (text += String(chunk)))
    .on('close', () => (isClosed = true));
  socket.write(`GET /v1/tasks/${id}/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n`);
  await until(() => text.includes('event: started'));
  socket.write('nonsense\r\n\r\n');
  await until(() => isClosed);
  t.is(text.match(/HTTP\/1\.1/g)?.length, 1);
});

test('a correlation id may be any printable text up to 128 characters', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  const echo = async (id: string): Promise<string | null> =>
    (await server.fetch('/healthz', { headers: { 'X-Correlation-Id': id } })).headers.get('x-correlation-id');
  for (const id of ['a b c', '!"#{}~', 'x'.repeat(128)]) t.is(await echo(id), id);
  for (const id of ['x'.repeat(129), 'a\tb', 'é']) t.regex((await echo(id)) ?? '', /^[\da-f-]{36}$/);
  const response = await server.fetch('/v1/tasks', {
    method: 'POST',
    headers: { 'X-Correlation-Id': 'a b c' },
    body: JSON.stringify(request),
  });
  const { task_id } = (await response.json()) as { task_id: string };
  t.like((await server.events(task_id))[0]?.data, { correlation_id: 'a b c' });
});
