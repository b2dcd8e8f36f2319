import { once } from 'node:events';
import { createServer, request as nodeRequest, type IncomingMessage } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import { ClientError, createClient } from '../../src/client/index.ts';
import type { ConfigInput } from '../../src/config.ts';
import { operations } from '../../src/contract/generated/operations.ts';
import { createOrchestrator } from '../../src/index.ts';
import { mountHttp, type AuthOptions } from '../../src/mount.ts';
import { validateResponse, validateSchema } from '../helpers/contract.ts';
import { parseSse, request, startTestServer, SYNTHETIC, type TestServer } from '../helpers/server.ts';

const TOKEN = 'correct-horse-battery';
const WORKER_TOKEN = 'staple-of-the-workers';
const BEARER = { Authorization: `Bearer ${TOKEN}` };
const ID = '0198c0de-0000-7000-8000-000000000001';

interface Answer {
  status: number;
  headers: IncomingMessage['headers'];
  body: Record<string, unknown>;
}

interface Asked {
  method?: string;
  headers?: Record<string, string>;
  body?: string;
}

/** Unlike `fetch` it sends whatever `Host` it is told. */
async function ask(
  url: string,
  path: string,
  { method = 'GET', headers = {}, body }: Asked = {},
): Promise<Answer> {
  const asking = nodeRequest(url + path, { method, headers, agent: false }).end(body);
  const [response] = (await once(asking, 'response')) as [IncomingMessage];
  let text = '';
  for await (const part of response.setEncoding('utf8')) text += part as string;
  checkCorrelated(response);
  const isJson = response.headers['content-type']?.startsWith('application/json') && text !== '';
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    body: isJson ? (JSON.parse(text) as Answer['body']) : { text },
  };
}

function checkCorrelated({ headers }: IncomingMessage): void {
  if (!headers['x-correlation-id']) throw new Error('no X-Correlation-Id');
}

async function started(t: ExecutionContext, settings: Omit<ConfigInput, 'pools'> = {}): Promise<TestServer> {
  const server = await startTestServer({ ...SYNTHETIC, ...settings });
  t.teardown(server.close);
  return server;
}

/** The face behind a host whose connections come from `from`. */
async function mounted(
  t: ExecutionContext,
  auth: AuthOptions | undefined,
  from: string | undefined,
): Promise<string> {
  const orchestrator = createOrchestrator(SYNTHETIC as Parameters<typeof createOrchestrator>[0]);
  const http = mountHttp(orchestrator, auth ? { auth } : {});
  const server = createServer((incoming, response) => {
    Object.defineProperty(incoming.socket, 'remoteAddress', { value: from });
    void http.handler(incoming, response);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(async () => {
    await orchestrator.close(0);
    http.close();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const submission = { method: 'POST', body: JSON.stringify({ ...request, task_id: ID }) };

test('without the token nothing is served but the health, whatever is asked for', async (t) => {
  const { url } = await started(t, { auth: { token: TOKEN } });
  for (const { operationId, method, path } of operations) {
    if (operationId === 'getHealth' || operationId === 'getMetrics') continue;
    const { status, body, headers } = await ask(url, path.replaceAll(/:\w+/g, ID), {
      method: method.toUpperCase(),
    });
    t.is(status, 401, operationId);
    validateResponse(operationId, 401, body);
    t.like(body, { code: 40101, message: 'MISSING_TOKEN' }, operationId);
    t.is(headers['www-authenticate'], 'Bearer');
  }
  for (const path of ['/v1/nothing', '/', '/v1/tasks/preview/', '/HEALTH'])
    t.is((await ask(url, path)).status, 401, path);
  t.is((await ask(url, '/healthz')).status, 200);
});

test('with it everything is as it was, streams too', async (t) => {
  const server = await started(t, { auth: { token: TOKEN } });
  const { url } = server;
  t.is((await ask(url, '/v1/tasks', { ...submission, headers: BEARER })).status, 202);
  t.like((await ask(url, `/v1/tasks/${ID}/stream`)).body, { code: 40101 });
  const stream = await server.fetch(`/v1/tasks/${ID}/stream`, { headers: BEARER });
  t.is(parseSse(await stream.text()).at(-1)?.event, 'end');
  t.is((await ask(url, '/v1/tasks', { headers: { Authorization: `bearer  ${TOKEN}` } })).status, 200);
  t.is((await ask(url, '/v1/nothing', { headers: BEARER })).status, 404);
  t.is((await ask(url, '/v1/tasks', { method: 'DELETE', headers: BEARER })).status, 405);
});

for (const [title, credential] of [
  ['another token', `Bearer ${TOKEN.toUpperCase()}`],
  ['the begin of the token', `Bearer ${TOKEN.slice(0, -1)}`],
  ['more than the token', `Bearer ${TOKEN}x`],
  ['the token twice', `Bearer ${TOKEN} ${TOKEN}`],
  ['nothing after the scheme', 'Bearer'],
  ['no scheme', TOKEN],
  ['another scheme', `Basic ${TOKEN}`],
  ['something very long', `Bearer ${'x'.repeat(10_000)}`],
] as const)
  test(`a wrong credential is refused, from this machine too: ${title}`, async (t) => {
    const { url } = await started(t, { auth: { token: TOKEN, optional: true } });
    const answer = await ask(url, '/v1/pools', { headers: { Authorization: credential } });
    t.is(answer.status, 401);
    validateSchema('AuthError', answer.body);
    t.like(answer.body, { code: 40102, message: 'BAD_TOKEN' });
    t.false(JSON.stringify(answer.body).includes(TOKEN.slice(0, 8)));
  });

test('the superseded X-API-Key opens nothing', async (t) => {
  const { url } = await started(t, { auth: { token: TOKEN } });
  t.like((await ask(url, '/v1/pools', { headers: { 'X-API-Key': TOKEN } })).body, { code: 40101 });
});

test('the answer does not wait for the body, and its mistakes are not looked at', async (t) => {
  const { url } = await started(t, { auth: { token: TOKEN } });
  const socket = connect(Number(new URL(url).port), '127.0.0.1');
  t.teardown(() => void socket.destroy());
  socket.write('POST /v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n{"nonsense');
  const [answer] = (await once(socket, 'data')) as [Buffer];
  t.regex(answer.toString(), /^HTTP\/1\.1 401 [\s\S]*"MISSING_TOKEN"/);
});

test('HEAD is answered like GET without a body, and OPTIONS without a token', async (t) => {
  const { url } = await started(t, { auth: { token: TOKEN } });
  const refused = await ask(url, '/v1/pools', { method: 'HEAD' });
  t.is(refused.status, 401);
  t.is(refused.headers['www-authenticate'], 'Bearer');
  t.is((await ask(url, '/v1/pools', { method: 'HEAD', headers: BEARER })).status, 200);
  const options = await ask(url, '/v1/tasks', { method: 'OPTIONS' });
  t.is(options.status, 204);
  t.is(options.headers.allow, 'GET, HEAD, POST');
});

test('the caller’s correlation id is on a refusal', async (t) => {
  const { url } = await started(t, { auth: { token: TOKEN } });
  const { headers } = await ask(url, '/v1/pools', { headers: { 'X-Correlation-Id': 'mine' } });
  t.is(headers['x-correlation-id'], 'mine');
});

test('where the token is optional, this machine needs none', async (t) => {
  const { url } = await started(t, { auth: { token: TOKEN, optional: true } });
  t.is((await ask(url, '/v1/tasks', submission)).status, 202);
  t.is((await ask(url, '/v1/pools', { headers: BEARER })).status, 200);
});

test('another address of this machine is this machine, and it can be listened on', async (t) => {
  const { url } = await started(t, { server: { bind_addr: '127.0.0.2:0' } });
  t.regex(url, /^http:\/\/127\.0\.0\.2:/);
  t.is((await ask(url, '/v1/tasks', submission)).status, 202);
  const guarded = await started(t, { server: { bind_addr: '127.0.0.3:0' }, auth: { token: TOKEN } });
  t.is((await ask(guarded.url, '/v1/pools')).status, 401);
  t.is((await ask(guarded.url, '/v1/pools', { headers: BEARER })).status, 200);
});

test('the address of the connection decides who is on this machine, and never a name that the caller gives', async (t) => {
  const names = { Host: 'localhost', Origin: 'http://localhost', 'X-Forwarded-For': '127.0.0.1' };
  for (const from of ['192.168.1.20', '2001:db8::7', '::ffff:10.0.0.1', '10.127.0.1', undefined]) {
    const optional = await mounted(t, { token: TOKEN, optional: true }, from);
    t.like((await ask(optional, '/v1/pools', { headers: names })).body, { code: 40101 }, from);
    t.is((await ask(optional, '/v1/pools', { headers: { ...names, ...BEARER } })).status, 200, from);
    const open = await mounted(t, {}, from);
    const refused = await ask(open, '/v1/pools', { headers: names });
    t.is(refused.status, 403);
    validateResponse('listPools', 403, refused.body);
    t.like(refused.body, { code: 40301, message: 'NON_LOOPBACK_WITHOUT_TOKEN' }, from);
  }
  for (const from of ['127.0.0.1', '127.9.9.9', '::1', '::ffff:127.0.0.1'])
    t.is((await ask(await mounted(t, {}, from), '/v1/pools')).status, 200, from);
});

test('metrics are open to this machine, and to others with the token', async (t) => {
  const { url } = await started(t, { auth: { token: TOKEN } });
  t.is((await ask(url, '/metrics')).status, 200);
  t.is((await ask(url, '/metrics', { headers: { Host: 'evil.example' } })).status, 401);
  t.is((await ask(url, '/metrics', { headers: { Authorization: 'Bearer wrong' } })).status, 401);
  const far = await mounted(t, { token: TOKEN }, '192.168.1.20');
  t.like((await ask(far, '/metrics')).body, { code: 40101 });
  t.is((await ask(far, '/metrics', { headers: BEARER })).status, 200);
  t.is((await ask(far, '/healthz')).status, 200);
  const open = await mounted(t, {}, '192.168.1.20');
  const refused = await ask(open, '/metrics');
  validateResponse('getMetrics', 403, refused.body);
});

for (const [title, headers] of [
  ['a name that was made to lead here', { Host: 'evil.example' }],
  ['such a name with our port', { Host: 'evil.example:8080' }],
  ['a name that begins like ours', { Host: 'localhost.evil.example' }],
  ['an address that begins like ours', { Host: '127.0.0.1.evil.example' }],
  ['a page of another origin', { Origin: 'https://evil.example' }],
  ['a page without an origin', { Origin: 'null' }],
  ['a page whose origin begins like ours', { Origin: 'http://localhost.evil.example' }],
  ['a proxy that passes on for others', { 'X-Forwarded-For': '192.168.1.20' }],
  ['a proxy in a row of them', { 'X-Forwarded-For': '192.168.1.20, 127.0.0.1' }],
  ['a proxy that says so in the newer way', { Forwarded: 'for=192.168.1.20' }],
] as const)
  test(`what reaches this machine without being from it needs a token: ${title}`, async (t) => {
    const open = await started(t);
    const refused = await ask(open.url, '/v1/tasks', { ...submission, headers });
    t.is(refused.status, 403);
    validateResponse('submitTask', 403, refused.body);
    t.is(refused.body['code'], 40301);
    t.is(open.orchestrator.tasks().length, 0);
    const optional = await started(t, { auth: { token: TOKEN, optional: true } });
    t.like((await ask(optional.url, '/v1/tasks', { ...submission, headers })).body, { code: 40101 });
    t.is(
      (await ask(optional.url, '/v1/tasks', { ...submission, headers: { ...headers, ...BEARER } })).status,
      202,
    );
  });

for (const headers of [
  { Host: 'localhost' },
  { Host: 'LOCALHOST:1' },
  { Host: '127.0.0.2:8080' },
  { Host: '[::1]:8080' },
  { Origin: 'http://localhost:3000' },
  { Origin: 'http://[::1]:3000' },
  { 'X-Forwarded-For': '127.0.0.1, ::1' },
])
  test(`this machine under another name is this machine: ${JSON.stringify(headers)}`, async (t) => {
    const { url } = await started(t);
    t.is((await ask(url, '/v1/tasks', { ...submission, headers })).status, 202);
  });

test('a proxy that is trusted checks callers itself, as long as it is on this machine', async (t) => {
  const { url } = await started(t, { auth: { trust_proxy: true } });
  const passed = { Host: 'llm.example', 'X-Forwarded-For': '192.168.1.20' };
  t.is(
    (await ask(url, '/v1/pools', { headers: { ...passed, Authorization: 'Basic dXNlcjpwYXNz' } })).status,
    200,
  );
  t.is((await ask(url, '/v1/pools', { headers: passed })).status, 403);
  const guarded = await started(t, { auth: { token: TOKEN, trust_proxy: true } });
  t.is((await ask(guarded.url, '/v1/pools', { headers: { Authorization: 'Bearer theirs' } })).status, 200);
  t.is((await ask(guarded.url, '/v1/pools')).status, 401);
  const far = await mounted(t, { token: TOKEN, trust_proxy: true }, '192.168.1.20');
  t.like((await ask(far, '/v1/pools', { headers: { Authorization: 'Bearer theirs' } })).body, {
    code: 40102,
  });
  const distrusted = await started(t, { auth: { token: TOKEN } });
  t.is((await ask(distrusted.url, '/v1/pools', { headers: { Authorization: 'Bearer theirs' } })).status, 401);
});

test('mounted in somebody else’s service nobody is asked for a token, unless the host says so', async (t) => {
  const open = await mounted(t, undefined, '192.168.1.20');
  t.is((await ask(open, '/v1/tasks', { ...submission, headers: { Host: 'shop.example' } })).status, 202);
  const guarded = await mounted(t, { token: TOKEN }, '192.168.1.20');
  t.is((await ask(guarded, '/v1/tasks', { ...submission, headers: { Host: 'shop.example' } })).status, 401);
});

test('the client sends its token, and says with which number it was refused', async (t) => {
  const { url } = await started(t, { auth: { token: TOKEN } });
  const friend = createClient({ base_url: url, token: TOKEN });
  t.is(await friend.run({ ...request, max_tokens: 2 }).text(), ' t0 t1');
  for (const [token, auth_code] of [
    [undefined, 40101],
    ['not-the-right-one', 40102],
  ] as const) {
    const stranger = createClient({ base_url: url, attempts: 3, ...(token ? { token } : {}) });
    for (const call of [
      () => stranger.submit(request),
      () => stranger.stream(ID).next(),
      () => stranger.task(ID),
    ]) {
      const error = await t.throwsAsync<ClientError>(call, { instanceOf: ClientError });
      t.like(error, { reason: 'unauthorized', status: 401, auth_code });
    }
  }
  const open = await mounted(t, {}, '192.168.1.20');
  const error = await t.throwsAsync<ClientError>(createClient({ base_url: open }).task(ID));
  t.like(error, { reason: 'unauthorized', status: 403, auth_code: 40301 });
});

const worker = { url: 'http://127.0.0.1:9', engine: 'llamacpp', engine_version: 'b1', pool_id: 'fast' };
const registration = { method: 'POST', body: JSON.stringify(worker) };

for (const path of ['/v1/workers/register', '/v1/workers/register/', '/V1/Workers/Register'])
  test(`engines register with their token and no other: ${path}`, async (t) => {
    const cases: [auth: NonNullable<ConfigInput['auth']>, token: string | undefined, code: number][] = [
      [{}, undefined, 40301],
      [{}, TOKEN, 40301],
      [{ trust_proxy: true }, TOKEN, 40301],
      [{ token: TOKEN }, undefined, 40101],
      [{ token: TOKEN, optional: true }, undefined, 40101],
      [{ token: TOKEN, trust_proxy: true }, 'theirs', 40102],
      [{ token: TOKEN, worker_token: WORKER_TOKEN }, TOKEN, 40102],
      [{ worker_token: WORKER_TOKEN }, undefined, 40101],
    ];
    for (const [auth, token, code] of cases) {
      const { url } = await started(t, { auth });
      const headers = token === undefined ? {} : { Authorization: `Bearer ${token}` };
      const answer = await ask(url, path, { ...registration, headers });
      t.is(answer.body['code'], code, JSON.stringify({ auth, token }));
      validateResponse('registerWorker', answer.status, answer.body);
    }
    const unasked = await mounted(t, undefined, '127.0.0.1');
    t.is((await ask(unasked, path, { ...registration, headers: BEARER })).body['code'], 40301);
  });

test('the token of engines opens nothing else', async (t) => {
  const { url } = await started(t, { auth: { token: TOKEN, worker_token: WORKER_TOKEN } });
  const headers = { Authorization: `Bearer ${WORKER_TOKEN}` };
  t.like((await ask(url, '/v1/pools', { headers })).body, { code: 40102 });
});
