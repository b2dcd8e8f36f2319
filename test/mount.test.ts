import { once } from 'node:events';
import { createServer, request as nodeRequest, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import express from 'express';
import Fastify from 'fastify';
import Koa from 'koa';
import { ClientError, createClient } from '../src/client/index.ts';
import {
  ConfigError,
  createOrchestrator,
  type EmbeddedOrchestrator,
  type Observation,
} from '../src/index.ts';
import { mountHttp } from '../src/mount.ts';
import { parseSse, request } from './helpers/server.ts';
import { SimulatedClock } from './helpers/simulated-clock.ts';
import { until } from './helpers/until.ts';

/** A service of somebody else, with taskchart under `/llm` and a page of its own under `/`. */
interface Host {
  origin: string;
  /** The order in which a service should go: taskchart first, then the server. */
  close(): Promise<void>;
}

interface HostOptions {
  /** Reads JSON bodies before taskchart is asked, as the framework's own parser does. */
  parses?: boolean;
  /** Asks for a token, and sets a header of its own. */
  guards?: boolean;
  /** Hears of what the host thinks went wrong. */
  complains?: (error: unknown) => void;
}

type StartHost = (orchestrator: EmbeddedOrchestrator, options?: HostOptions) => Promise<Host>;

const PAGE = 'The rest of the service.';
const TOKEN = 'Bearer sesame';

async function listening(
  server: Server,
  orchestrator: EmbeddedOrchestrator,
  face: { close(): void },
): Promise<Host> {
  if (!server.listening) await once(server, 'listening');
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async close() {
      await orchestrator.close();
      face.close();
      const closed = once(server, 'close');
      server.close();
      await closed;
    },
  };
}

const HOSTS: Record<string, StartHost> = {
  async 'node:http'(orchestrator, { guards } = {}) {
    const http = mountHttp(orchestrator, { prefix: '/llm/' });
    const server = createServer((incoming, response) => {
      if (guards) {
        response.setHeader('X-Host', 'here');
        if (incoming.headers.authorization !== TOKEN) return void response.writeHead(401).end();
      }
      void http.handler(incoming, response, () => {
        response.statusCode = incoming.url === '/' ? 200 : 404;
        response.end(PAGE);
      });
    });
    return listening(server.listen(0, '127.0.0.1'), orchestrator, http);
  },

  async Koa(orchestrator, { parses, guards, complains } = {}) {
    const http = mountHttp(orchestrator, { prefix: '/llm' });
    const app = new Koa();
    app.on('error', (error) => complains?.(error));
    if (guards)
      app.use((ctx, next) => {
        ctx.set('X-Host', 'here');
        if (ctx.get('Authorization') !== TOKEN) ctx.throw(401);
        return next();
      });
    if (parses)
      app.use(async (ctx, next) => {
        if (ctx.is('json')) Object.assign(ctx.req, { body: JSON.parse(await textOf(ctx.req)) as unknown });
        return next();
      });
    app.use(async (ctx, next) => {
      if (!ctx.path.startsWith('/llm/')) return next();
      ctx.respond = false;
      await http.handler(ctx.req, ctx.res);
    });
    app.use((ctx) => {
      if (ctx.path === '/') ctx.body = PAGE;
    });
    return listening(app.listen(0, '127.0.0.1'), orchestrator, http);
  },

  async Express(orchestrator, { parses, guards, complains } = {}) {
    const http = mountHttp(orchestrator);
    const app = express();
    if (guards)
      app.use((incoming, response, next) => {
        response.setHeader('X-Host', 'here');
        if (incoming.headers.authorization === TOKEN) next();
        else response.sendStatus(401);
      });
    if (parses) app.use(express.json());
    app.use('/llm', http.handler);
    app.get('/', (_request, response) => void response.send(PAGE));
    app.use(((error, _request, response, _next) => {
      complains?.(error);
      response.sendStatus(500);
    }) as express.ErrorRequestHandler);
    return listening(app.listen(0, '127.0.0.1'), orchestrator, http);
  },

  async 'Express, with the whole path'(orchestrator, { guards } = {}) {
    const http = mountHttp(orchestrator, { prefix: '/llm' });
    const app = express();
    if (guards)
      app.use((incoming, response, next) => {
        response.setHeader('X-Host', 'here');
        if (incoming.headers.authorization === TOKEN) next();
        else response.sendStatus(401);
      });
    app.use(http.handler);
    app.get('/', (_request, response) => void response.send(PAGE));
    return listening(app.listen(0, '127.0.0.1'), orchestrator, http);
  },

  async Fastify(orchestrator, { parses, guards, complains } = {}) {
    const http = mountHttp(orchestrator, { prefix: '/llm' });
    const app = Fastify();
    app.addHook('onError', async (_request, _reply, error) => complains?.(error));
    if (guards)
      app.addHook('onRequest', async (incoming, reply) => {
        reply.raw.setHeader('X-Host', 'here');
        if (incoming.headers.authorization !== TOKEN) await reply.code(401).send();
      });
    await app.register(async (scope) => {
      if (!parses) {
        scope.removeAllContentTypeParsers();
        scope.addContentTypeParser('*', (_request, _body, done) => done(null));
      }
      scope.all('/llm/*', (incoming, reply) => {
        reply.hijack();
        if (parses) Object.assign(incoming.raw, { body: incoming.body });
        return http.handler(incoming.raw, reply.raw);
      });
    });
    app.get('/', () => PAGE);
    app.addHook('preClose', async () => {
      await orchestrator.close();
      http.close();
    });
    return { origin: await app.listen({ port: 0, host: '127.0.0.1' }), close: () => app.close() };
  },
};

/** Hosts whose parser can come before taskchart; `node:http` has none. */
const PARSING = ['Koa', 'Express', 'Fastify'] as const;

async function textOf(incoming: AsyncIterable<Buffer>): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of incoming) parts.push(part);
  return Buffer.concat(parts).toString();
}

async function started(
  t: ExecutionContext,
  start: StartHost,
  options?: HostOptions,
  settings: Parameters<typeof createOrchestrator>[0] = {},
): Promise<{ host: Host; orchestrator: EmbeddedOrchestrator }> {
  const orchestrator = createOrchestrator({
    pools: [
      { id: 'fast', engine: 'synthetic', model: 'synthetic' },
      { id: 'slow', engine: 'synthetic', model: 'slow', synthetic: { tokens_per_second: 50 } },
    ],
    server: { shutdown_ms: 20_000 },
    ...settings,
  });
  const host = await start(orchestrator, options);
  t.teardown(async () => {
    await orchestrator.close(0);
    await host.close();
  });
  return { host, orchestrator };
}

function post(url: string, fields: object = {}, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(`${url}/v1/tasks`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...headers },
    body: JSON.stringify({ ...request, ...fields }),
    signal: AbortSignal.timeout(5000),
  });
}

for (const [name, start] of Object.entries(HOSTS)) {
  test(`${name}: links of an answer lead to the task through the prefix, to the end of its stream`, async (t) => {
    const { host } = await started(t, start);
    const response = await post(`${host.origin}/llm`);
    t.is(response.status, 202);
    const { task_id, streams } = (await response.json()) as {
      task_id: string;
      streams: { sse: string; sse_verbose: string };
    };
    const self = `/llm/v1/tasks/${task_id}`;
    t.is(response.headers.get('Location'), self);
    t.deepEqual(streams, { sse: `${self}/stream`, sse_verbose: `${self}/stream?verbose=true` });
    const follow = async (path: string, headers = {}): Promise<string> =>
      (await fetch(host.origin + path, { headers })).text();
    const events = parseSse(await follow(streams.sse));
    t.is(events[0]?.event, 'started');
    t.like(events.at(-1), { event: 'end', data: { tokens_out: request.max_tokens } });
    t.deepEqual(parseSse(await follow(streams.sse, { 'Last-Event-ID': '3' })), events.slice(4));
    t.deepEqual(parseSse(await follow(`${streams.sse}?after=3`)), events.slice(4));
    t.regex(await follow(streams.sse_verbose), /event: narration/);
    t.like(JSON.parse(await follow(self)), { state: 'ended', task_id });
  });

  test(`${name}: the client finds everything under the prefix, and can cancel`, async (t) => {
    const { host } = await started(t, start);
    const client = createClient({ base_url: `${host.origin}/llm` });
    t.is(await client.run({ ...request, max_tokens: 2 }).text(), ' t0 t1');
    const run = client.run({ ...request, model_ref: 'slow', max_tokens: 4000 });
    for await (const { type } of run) {
      if (type !== 'token') continue;
      await run.cancel();
      break;
    }
    const { task_id } = await run.admission;
    t.like(await client.task(task_id), { state: 'ended', canceled: true });
    await client.cancel('0198c0de-7a5c-7000-8000-000000000099');
    await client.remove(task_id);
    await t.throwsAsync(client.task(task_id), { message: /there is no task/ });
  });

  test(`${name}: what is not there and what cannot be done is taskchart’s to say under the prefix, the host’s elsewhere`, async (t) => {
    const { host } = await started(t, start);
    const absent = await fetch(`${host.origin}/llm/v1/nothing`);
    t.is(absent.status, 404);
    t.like(await absent.json(), { code: 'NOT_FOUND' });
    const wrong = await fetch(`${host.origin}/llm/v1/tasks`, { method: 'DELETE' });
    t.is(wrong.status, 405);
    t.deepEqual(wrong.headers.get('Allow')?.split(', ').toSorted(), ['GET', 'HEAD', 'POST']);
    t.like(await wrong.json(), { code: 'NOT_FOUND' });
    const mistake = await fetch(`${host.origin}/llm/v1/tasks`, { method: 'POST', body: '{' });
    t.is(mistake.status, 400);
    t.regex(((await mistake.json()) as { message: string }).message, /^body: is not valid JSON/);
    const head = await fetch(`${host.origin}/llm/v1/pools`, { method: 'HEAD' });
    t.is(head.status, 200);
    t.is(await head.text(), '');
    const stream = await fetch(`${host.origin}/llm/v1/tasks/${await taskId(host)}/stream`, {
      method: 'HEAD',
    });
    t.is(stream.headers.get('Content-Type'), 'text/event-stream');

    const page = await fetch(`${host.origin}/`);
    t.is(await page.text(), PAGE);
    t.is(page.headers.get('X-Correlation-Id'), null);
    for (const path of ['/v1/tasks', '/llmx/v1/tasks', '/elsewhere'])
      t.notRegex(await (await fetch(host.origin + path)).text(), /"code"|next_cursor/, path);
  });

  test(`${name}: the host decides who may call, and its headers stay`, async (t) => {
    const { host } = await started(t, start, { guards: true });
    const url = `${host.origin}/llm`;
    t.is((await post(url)).status, 401);
    const served = await post(url, {}, { Authorization: TOKEN });
    t.is(served.status, 202);
    t.is(served.headers.get('X-Host'), 'here');
    t.truthy(served.headers.get('X-Correlation-Id'));
    const stranger = createClient({ base_url: url });
    const error = await t.throwsAsync(stranger.submit(request), { instanceOf: ClientError });
    t.is(error?.reason, 'unauthorized');
    const friend = createClient({ base_url: url, token: 'sesame' });
    t.is(await friend.run({ ...request, max_tokens: 1 }).text(), ' t0');
  });

  test(`${name}: a reader that leaves in the middle is not an error, and its interactive task is given up`, async (t) => {
    const complaints: unknown[] = [];
    const { host, orchestrator } = await started(
      t,
      start,
      { complains: (error) => complaints.push(error) },
      { sse: { disconnect_grace_ms: 0 } },
    );
    const id = await taskId(host, { model_ref: 'slow', max_tokens: 4000 });
    const reader = nodeRequest(`${host.origin}/llm/v1/tasks/${id}/stream`).end();
    const [stream] = (await once(reader, 'response')) as [AsyncIterable<Buffer>];
    for await (const part of stream) if (part.includes('event: token')) break;
    const closed = observed(orchestrator, (seen) => seen.type === 'task.closed');
    reader.destroy();
    await closed;
    t.like(await orchestrator.task(id).info(), { state: 'ended', canceled: true });
    t.is(await (await fetch(`${host.origin}/`)).text(), PAGE);
    // Koa tells its host of every connection that a client has reset, whoever answered on it.
    t.deepEqual(
      complaints.filter((error) => (error as NodeJS.ErrnoException).code !== 'ECONNRESET'),
      [],
    );
  });

  test(`${name}: closing lets a running task finish and its reader have the end, and refuses new ones`, async (t) => {
    const clock = new SimulatedClock();
    const { host, orchestrator } = await started(t, start, undefined, { clock });
    let isStreaming = false;
    orchestrator.observe((seen) => {
      isStreaming ||= seen.type === 'task.moved' && seen.to === 'streaming';
    });
    const pass = (isIt: () => boolean): Promise<void> =>
      until(() => {
        if (!isIt()) clock.advance(10);
        return isIt();
      });
    const id = await taskId(host, { model_ref: 'slow', max_tokens: 80 });
    const stream = await fetch(`${host.origin}/llm/v1/tasks/${id}/stream`);
    await pass(() => isStreaming);
    let isClosed = false;
    const closing = host.close().then(() => (isClosed = true));
    t.is((await post(`${host.origin}/llm`)).status, 503);
    t.false(isClosed);
    await pass(() => isClosed);
    await closing;
    t.like(parseSse(await stream.text()).at(-1), { event: 'end', data: { tokens_out: 80 } });
    await t.throwsAsync(fetch(host.origin));
  });
}

function observed(
  orchestrator: EmbeddedOrchestrator,
  isIt: (observation: Observation) => boolean,
): Promise<void> {
  return new Promise((resolve) => {
    const stop = orchestrator.observe((observation) => {
      if (!isIt(observation)) return;
      stop();
      resolve();
    });
  });
}

async function taskId(host: Host, fields: object = {}): Promise<string> {
  const { task_id } = (await (await post(`${host.origin}/llm`, fields)).json()) as { task_id: string };
  return task_id;
}

for (const name of PARSING)
  test(`${name}: a body that the host has parsed already is taken as it is`, async (t) => {
    const { host } = await started(t, HOSTS[name] as StartHost, { parses: true });
    const client = createClient({ base_url: `${host.origin}/llm`, timeout_ms: 20_000, attempts: 1 });
    t.is(await client.run({ ...request, max_tokens: 2 }).text(), ' t0 t1');
    t.like(await client.tokenize({ model_ref: 'synthetic', text: 'one two' }), { count: 2 });
  });

test('without a prefix and without a host it is the daemon’s face', async (t) => {
  const orchestrator = createOrchestrator({
    pools: [{ id: 'fast', engine: 'synthetic', model: 'synthetic' }],
  });
  const http = mountHttp(orchestrator);
  const host = await listening(createServer(http.handler).listen(0, '127.0.0.1'), orchestrator, http);
  t.teardown(() => host.close());
  t.is(
    await createClient({ base_url: host.origin })
      .run({ ...request, max_tokens: 1 })
      .text(),
    ' t0',
  );
});

test('one orchestrator can be mounted twice, and its tasks are the same behind both', async (t) => {
  const orchestrator = createOrchestrator({
    pools: [{ id: 'fast', engine: 'synthetic', model: 'synthetic' }],
  });
  t.teardown(() => orchestrator.close(0));
  const one = mountHttp(orchestrator, { prefix: '/a' });
  const two = mountHttp(orchestrator, { prefix: '/b/c' });
  const server = createServer((incoming, response) => {
    void one.handler(incoming, response, () => void two.handler(incoming, response));
  }).listen(0, '127.0.0.1');
  t.teardown(() => server.close());
  const { origin } = await listening(server, orchestrator, one);
  const { task_id } = await createClient({ base_url: `${origin}/a` }).submit(request);
  t.like(await createClient({ base_url: `${origin}/b/c` }).task(task_id), { task_id });
});

for (const prefix of ['llm', '/l m', '/llm/:id', '/(x)', 'http://here/llm', '/a//b'])
  test(`the prefix ${prefix} is refused, and says what would be right`, (t) => {
    const orchestrator = createOrchestrator({
      pools: [{ id: 'p', engine: 'synthetic', model: 'synthetic' }],
    });
    t.teardown(() => orchestrator.close(0));
    t.throws(() => mountHttp(orchestrator, { prefix }), {
      instanceOf: ConfigError,
      message: `prefix: must be a path that begins with a slash, such as /llm, got "${prefix}"`,
    });
  });
