import test from 'ava';
import { operations } from '../../src/contract/generated/operations.ts';
import { validateResponse } from '../helpers/contract.ts';
import { startFakeLlamaServer } from '../helpers/fake-llama-server.ts';
import { startTestServer } from '../helpers/server.ts';
import { until } from '../helpers/until.ts';

test('every operation of the contract is mounted, and a planned one says so with 501', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  for (const { operationId, method, path, planned } of operations) {
    const url = path.replaceAll(/:\w+/g, '0198c0de-0000-7000-8000-000000000001');
    const response = await server.fetch(url, { method: method.toUpperCase() });
    const text = await response.text();
    t.truthy(response.headers.get('x-correlation-id'), operationId);
    if (!planned) {
      t.not(response.status, 501, operationId);
      continue;
    }
    t.is(response.status, 501, operationId);
    validateResponse(operationId, 501, JSON.parse(text));
    t.regex(text, new RegExp(operationId));
  }
});

test('capabilities are those of the engines that are loaded', async (t) => {
  const server = await startTestServer({
    pools: [
      { id: 'two', engine: 'synthetic', model: 'synthetic', slots: 2, ctx: 640 },
      { id: 'cold', engine: 'synthetic', model: 'other', preload: false },
    ],
  });
  t.teardown(server.close);
  await until(() => server.orchestrator.core.pools.get('two')?.snapshot.hasTag('ready'));
  const body = (await (await server.fetch('/v1/capabilities')).json()) as {
    engines: Record<string, unknown>[];
  };
  validateResponse('getCapabilities', 200, body);
  t.like(body.engines[0], {
    engine: 'synthetic',
    engine_version: 'synthetic-1',
    ctx_max: 640,
    slots_total: 2,
    slots_free: 2,
    features: { synthetic: true },
  });
  t.is(body.engines[1]?.['engine_version'], undefined);
  t.is(body.engines[1]?.['slots_free'], 0);
});

test('pools and their health are told, a cold one too', async (t) => {
  const server = await startTestServer({
    pools: [
      { id: 'hot', engine: 'synthetic', model: 'synthetic' },
      { id: 'cold', engine: 'synthetic', model: 'other', preload: false },
    ],
  });
  t.teardown(server.close);
  await until(() => server.orchestrator.core.pools.get('hot')?.snapshot.hasTag('ready'));
  const list = (await (await server.fetch('/v1/pools')).json()) as {
    pools: { pool_id: string; state: string }[];
  };
  validateResponse('listPools', 200, list);
  t.deepEqual(
    list.pools.map(({ pool_id, state }) => [pool_id, state]),
    [
      ['hot', 'ready'],
      ['cold', 'cold'],
    ],
  );
  const health = await (await server.fetch('/v1/pools/hot/health')).json();
  validateResponse('getPoolHealth', 200, health);
  t.like(health, { live: true, ready: true, draining: false, last_error: null });
});

test('a cold pool is brought up by the first task that needs it', async (t) => {
  const server = await startTestServer({
    pools: [{ id: 'lazy', engine: 'synthetic', model: 'synthetic', preload: false }],
  });
  t.teardown(server.close);
  const events = await server.events(await server.submit({ max_tokens: 1 }));
  t.deepEqual(
    events.map(({ event }) => event),
    ['started', 'token', 'metrics', 'end'],
  );
});

test('metrics have every name before any traffic, and move with it', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  const scrape = async (): Promise<string> => {
    const response = await server.fetch('/metrics');
    t.regex(response.headers.get('content-type') ?? '', /^text\/plain; version=0\.0\.4/);
    return response.text();
  };
  const before = await scrape();
  for (const [name, type] of Object.entries({
    tasks_enqueued_total: 'counter',
    tasks_started_total: 'counter',
    tasks_canceled_total: 'counter',
    tasks_rejected_total: 'counter',
    tokens_in_total: 'counter',
    tokens_out_total: 'counter',
    admission_backpressure_events_total: 'counter',
    placement_decisions_total: 'counter',
    placement_candidates_considered: 'gauge',
    catalog_verifications_total: 'counter',
    model_state: 'gauge',
    queue_depth: 'gauge',
    active_leases: 'gauge',
    pool_ready: 'gauge',
    latency_first_token_ms: 'histogram',
    latency_decode_ms: 'histogram',
  }))
    t.true(before.includes(`# TYPE ${name} ${type}\n`), name);
  await server.raw(await server.submit({ max_tokens: 7 }));
  await server.post({ deadline_ms: 0 });
  const after = await scrape();
  t.regex(
    after,
    /tasks_enqueued_total\{engine="synthetic",[^}]*pool_id="fast",[^}]*priority="interactive"\} 1/,
  );
  t.regex(after, /tokens_out_total\{[^}]*pool_id="fast"[^}]*\} 7/);
  t.regex(after, /tasks_rejected_total\{engine="synthetic",reason="DEADLINE_UNMET"\} 1/);
  t.regex(after, /latency_first_token_ms_count\{[^}]*\} 1/);
});

test('healthz is 200 while tasks are taken', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  const response = await server.fetch('/healthz');
  t.is(response.status, 200);
  const body = await response.json();
  validateResponse('getHealth', 200, body);
});

test('a pool whose server is not there yet says what it waits for, and is ready once it comes', async (t) => {
  const fake = await startFakeLlamaServer({ loading: 'held' });
  t.teardown(() => fake.kill());
  const server = await startTestServer({
    pools: [
      {
        id: 'late',
        engine: 'llamacpp',
        model: 'fake',
        provisioning: { mode: 'external', external: { url: fake.url } },
      },
    ],
  });
  t.teardown(server.close);
  const health = async (): Promise<Record<string, unknown>> =>
    (await (await server.fetch('/v1/pools/late/health')).json()) as Record<string, unknown>;
  await until(async () => (await health())['last_error'] === 'The engine is loading its model.');
  t.false((await health())['ready']);
  fake.release();
  await until(async () => (await health())['ready']);
  t.is((await health())['last_error'], null);
});
