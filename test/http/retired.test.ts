import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { openStorage } from '../../src/storage.ts';
import { request } from '../helpers/server.ts';
import { SimulatedClock } from '../helpers/simulated-clock.ts';
import { steppedServer, type SteppedServer, type SteppedSettings } from './stepped-server.ts';
import { call, follow, names, type Answer } from './wire.ts';

const DIGEST = `sha256:${'b'.repeat(64)}`;

/** One pool with the model `synthetic`, which the catalog has. */
async function serverOf(t: ExecutionContext, settings: SteppedSettings = {}): Promise<SteppedServer> {
  const server = await steppedServer(settings);
  t.teardown(server.close);
  await add(server);
  return server;
}

async function add(server: SteppedServer, id = 'synthetic'): Promise<void> {
  const { status, body } = await call(server, 'POST', '/v1/catalog/models', { id, digest: DIGEST });
  if (status !== 201) throw new Error(JSON.stringify(body));
}

async function setState(
  server: SteppedServer,
  state: string,
  deadline_ms?: number,
  id = 'synthetic',
): Promise<void> {
  const { status, body } = await call(server, 'POST', `/v1/catalog/models/${id}/state`, {
    state,
    ...(deadline_ms === undefined ? {} : { deadline_ms }),
  });
  if (status !== 202) throw new Error(JSON.stringify(body));
}

const post = (server: SteppedServer, fields: object = {}): Promise<Answer> =>
  call(server, 'POST', '/v1/tasks', { ...request, ...fields });
const preview = (server: SteppedServer): Promise<Answer> =>
  call(server, 'POST', '/v1/tasks/preview', request);
const poolState = (server: SteppedServer): string | undefined =>
  server.orchestrator.core.pools.get('slow')?.phase;

test('a retired model takes no new work: 403 MODEL_DEPRECATED, in a preview too', async (t) => {
  const server = await serverOf(t);
  await setState(server, 'Retired', 0);
  const { status, body } = await post(server);
  t.is(status, 403);
  t.like(body, { code: 'MODEL_DEPRECATED', retriable: false, engine: 'synthetic' });
  t.regex(body['message'] as string, /^model_ref: "synthetic" is retired/);
  t.like((await preview(server)).body, { feasible: false, code: 'MODEL_DEPRECATED', retriable: false });
  t.is(
    (await post(server, { deadline_ms: 0 })).body['code'],
    'DEADLINE_UNMET',
    'the deadline is looked at first',
  );
  t.is(
    (await post(server, { ctx: 1_000_000 })).body['code'],
    'MODEL_DEPRECATED',
    'and the context afterwards',
  );
  t.regex(
    await (await server.fetch('/metrics')).text(),
    /tasks_rejected_total\{engine="synthetic",reason="MODEL_DEPRECATED"\} 2/,
  );
});

test('what runs finishes within the deadline, what waits is told, and then the pool has unloaded it', async (t) => {
  const server = await serverOf(t);
  const running = await server.submit({ max_tokens: 50 });
  const waiting = [await server.submit(), await server.submit({ priority: 'batch' })];
  const readers = await Promise.all([running, ...waiting].map((id) => follow(server, id)));
  await server.step(() => server.tokens(running) === 10);
  await setState(server, 'Retired', 5000);
  for (const id of waiting) {
    const { body } = await call(server, 'GET', `/v1/tasks/${id}`);
    t.like(body, { state: 'error', error: { code: 'MODEL_DEPRECATED', retriable: false, pool_id: 'slow' } });
  }
  t.is(poolState(server), 'draining');
  t.is((await post(server)).status, 403, 'no new work while it drains');
  await server.step(() => server.state(running) === 'ended');
  t.like((await call(server, 'GET', `/v1/tasks/${running}`)).body, {
    finish_reason: 'limit',
    usage: { tokens_out: 50 },
  });
  for (const { over } of readers) await over;
  t.deepEqual(names(readers[1]?.frames() ?? []), ['started', 'error']);
  t.is(names(readers[0]?.frames() ?? []).at(-1), 'end');
  await server.step(() => poolState(server) === 'drained');
  t.is(server.orchestrator.core.pools.get('slow')?.engines.holdsMemory, false, 'unloaded');
  const health = (await call(server, 'GET', '/v1/pools/slow/health')).body;
  t.like(health, { live: false, ready: false });
  t.regex(await (await server.fetch('/metrics')).text(), /pool_ready\{pool_id="slow"\} 0/);
  t.like((await call(server, 'GET', '/v1/catalog/models/synthetic')).body, { state: 'Retired' });
});

test('what still runs at the deadline is ended', async (t) => {
  const server = await serverOf(t);
  const running = await server.submit({ max_tokens: 1000 });
  await server.step(() => server.tokens(running) === 10);
  await setState(server, 'Retired', 100);
  await server.step(() => server.state(running) !== 'streaming');
  const { body } = await call(server, 'GET', `/v1/tasks/${running}`);
  t.like(body, { state: 'ended', canceled: true });
  t.true((body['usage'] as { tokens_out: number }).tokens_out <= 25);
});

test('a shorter deadline that comes later holds', async (t) => {
  const server = await serverOf(t);
  const running = await server.submit({ max_tokens: 1000 });
  await server.step(() => server.tokens(running) === 5);
  await setState(server, 'Retired', 60_000);
  await setState(server, 'Retired', 0);
  await server.step(() => server.state(running) === 'ended');
  t.true(server.tokens(running) < 50);
});

test('Active again lets work in: the pool loads the model, also where it was still draining', async (t) => {
  const server = await serverOf(t);
  await setState(server, 'Retired', 0);
  await server.step(() => poolState(server) === 'drained');
  await setState(server, 'Active');
  await server.step(() => poolState(server) === 'ready');
  const first = await server.submit({ max_tokens: 20 });
  await server.step(() => server.tokens(first) === 5);
  await setState(server, 'Retired', 5000);
  await setState(server, 'Active');
  t.is(poolState(server), 'draining', 'what runs has its time first');
  await server.step(() => server.state(first) === 'ended' && poolState(server) === 'ready');
  t.like((await call(server, 'GET', `/v1/tasks/${first}`)).body, { finish_reason: 'limit' });
  const second = await server.submit({ max_tokens: 3 });
  await server.step(() => server.state(second) === 'ended');
  t.pass('and the server closes, which counts its pools');
});

test('a task may name the model by an id, or by the digest, that the pool does not use', async (t) => {
  const server = await serverOf(t);
  await add(server, 'other-name');
  for (const model_ref of ['other-name', 'catalog:other-name', DIGEST, 'synthetic']) {
    const id = await server.submit({ model_ref, max_tokens: 2 });
    await server.step(() => server.state(id) === 'ended');
    t.like((await call(server, 'GET', `/v1/tasks/${id}`)).body, { model_ref, pool_id: 'slow' });
  }
  const unknown = await post(server, { model_ref: `sha256:${'c'.repeat(64)}` });
  t.is(unknown.status, 503);
  t.is(unknown.body['code'], 'POOL_UNAVAILABLE');
  t.is(
    (await call(server, 'GET', `/v1/tokenize?model_ref=${encodeURIComponent(DIGEST)}&text=hi`)).status,
    200,
  );
});

test('one name that is retired leaves the pool to the others', async (t) => {
  const server = await serverOf(t);
  await add(server, 'other-name');
  await setState(server, 'Retired', 0, 'other-name');
  t.is((await post(server, { model_ref: 'other-name' })).status, 403);
  t.is(poolState(server), 'ready');
  for (const model_ref of ['synthetic', DIGEST]) t.is((await post(server, { model_ref })).status, 202);
  await setState(server, 'Retired', 0);
  t.is((await post(server, { model_ref: DIGEST })).status, 403, 'no name of it is left');
});

test('a retired model stays retired in the next process, which loads it not, and tells who waited', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'taskchart-retired-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const first = await steppedServer({}, await openStorage(folder));
  await add(first);
  const [running = '', waiting = ''] = [await first.submit({ max_tokens: 1000 }), await first.submit()];
  await first.step(() => first.tokens(running) === 3);
  await first.close();

  // Retired by another process, while this one was not there.
  const other = await openStorage(join(folder, 'elsewhere'), { catalog_root: folder });
  await other.catalog_store.change('synthetic', (entry) => entry && { ...entry, state: 'Retired' });
  await Promise.all([other.store.close(), other.task_log.close(), other.catalog_store.close()]);

  const clock = new SimulatedClock(first.clock.wall() + 1000);
  const second = await steppedServer({ pool: { preload: false } }, { ...(await openStorage(folder)), clock });
  t.teardown(second.close);
  t.is(poolState(second), 'drained');
  for (const id of [running, waiting])
    t.like((await call(second, 'GET', `/v1/tasks/${id}`)).body, {
      state: 'error',
      error: { code: 'MODEL_DEPRECATED' },
    });
  t.is((await post(second)).status, 403);
  await setState(second, 'Active');
  const id = await second.submit({ max_tokens: 2 });
  await second.step(() => second.state(id) === 'ended');
});
