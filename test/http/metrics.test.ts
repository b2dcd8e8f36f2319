import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { Gpus } from '../../src/observe/gpus.ts';
import { createMetrics } from '../../src/observe/metrics.ts';
import { samplesOf, sumOf, type Sample } from '../helpers/exposition.ts';
import { fakeSmi } from '../helpers/fake-smi.ts';
import { request, startTestServer, type TestServer } from '../helpers/server.ts';
import { until } from '../helpers/until.ts';
import { steppedServer } from './stepped-server.ts';
import { call, idOf } from './wire.ts';

async function scrape(server: Pick<TestServer, 'fetch'>): Promise<Sample[]> {
  return samplesOf(await (await server.fetch('/metrics')).text());
}

const TASK = ['engine', 'engine_version', 'pool_id', 'replica_id'];

/** The contract of names, types and labels. */
const SERIES: Record<string, [type: string, labels: string[]]> = {
  tasks_enqueued_total: ['counter', [...TASK, 'priority']],
  tasks_started_total: ['counter', [...TASK, 'priority']],
  tasks_ended_total: ['counter', TASK],
  tasks_canceled_total: ['counter', [...TASK, 'reason']],
  tasks_failed_total: ['counter', [...TASK, 'reason']],
  tasks_rejected_total: ['counter', ['engine', 'reason']],
  tokens_in_total: ['counter', TASK],
  tokens_out_total: ['counter', TASK],
  admission_backpressure_events_total: ['counter', ['engine', 'policy']],
  admission_throttled_total: ['counter', ['engine', 'policy']],
  budget_rejections_total: ['counter', ['budget', 'engine']],
  sse_backpressure_drops_total: ['counter', []],
  placement_decisions_total: ['counter', ['fallback', 'outcome', 'pinned']],
  placement_candidates_considered: ['gauge', []],
  queue_depth: ['gauge', ['engine', 'engine_version', 'pool_id', 'priority']],
  active_leases: ['gauge', ['pool_id']],
  pool_ready: ['gauge', ['pool_id']],
  sessions_active: ['gauge', []],
  sessions_kv_bytes: ['gauge', []],
  kv_cache_usage_ratio: ['gauge', TASK],
  gpu_utilization: ['gauge', ['device', ...TASK]],
  vram_used_bytes: ['gauge', ['device', ...TASK]],
  latency_first_token_ms: ['histogram', ['engine', 'engine_version', 'pool_id', 'priority']],
  latency_decode_ms: ['histogram', ['engine', 'engine_version', 'pool_id', 'priority']],
  predicted_start_error_ms: ['histogram', ['engine', 'pool_id']],
};

test('every series is there before any traffic, and has exactly the labels of the contract after it', async (t) => {
  const server = await steppedServer({
    session: { budgets: { tokens: 20 } },
    pool: {
      queue: { capacity: 1 },
      admission: { priorities: [{ name: 'batch', rate_limit_rps: 0.001 }] },
    },
  });
  t.teardown(server.close);
  const before = await (await server.fetch('/metrics')).text();
  for (const [name, [type]] of Object.entries(SERIES))
    t.true(before.includes(`# TYPE ${name} ${type}\n`), name);
  const session_id = idOf(1);
  const running = await server.submit();
  const waiting = await server.submit({ priority: 'batch' });
  await server.post();
  await server.post({ priority: 'batch' });
  await server.post({ session_id, max_tokens: 21 });
  await server.cancel(waiting);
  await server.step(() => server.state(running) === 'ended');
  const expired = await server.submit({ deadline_ms: 1000, max_tokens: 10 });
  server.clock.advance(1000);
  await server.step(() => server.state(expired) === 'error');
  const samples = await scrape(server);
  for (const { name, labels } of samples) {
    const series = name.replace(/_(bucket|sum|count)$/, '');
    const [, expected = ['unknown series']] = SERIES[name] ?? SERIES[series] ?? [];
    const { le: _le, ...own } = labels;
    t.deepEqual(Object.keys(own).toSorted(), expected.toSorted(), name);
  }
});

test('refusals are counted by their code, and by the kind of rule that refused', async (t) => {
  const server = await steppedServer({
    session: { budgets: { tokens: 20 } },
    pool: {
      queue: { capacity: 1 },
      admission: { priorities: [{ name: 'batch', rate_limit_rps: 0.001 }] },
    },
  });
  t.teardown(server.close);
  await server.submit({ priority: 'batch' });
  await server.submit();
  for (const _ of [1, 2]) t.is((await server.post()).status, 429);
  t.is((await server.post({ priority: 'batch' })).status, 429);
  t.is((await server.post({ max_tokens: 21 })).status, 429);
  t.is((await server.post({ ctx: 0 })).status, 400);
  t.is((await call(server, 'POST', '/v1/tasks', '{oops')).status, 400);
  t.is((await server.post({ engine: 'whatever' as never })).status, 400);
  t.is(
    (await call(server, 'POST', '/v1/tasks', request, { 'Idempotency-Key': 'x'.repeat(129) })).status,
    400,
  );
  const samples = await scrape(server);
  const synthetic = { engine: 'synthetic' };
  t.is(sumOf(samples, 'admission_backpressure_events_total'), 2);
  t.is(sumOf(samples, 'admission_backpressure_events_total', { ...synthetic, policy: 'reject' }), 2);
  t.is(sumOf(samples, 'admission_throttled_total'), 1);
  t.is(sumOf(samples, 'admission_throttled_total', { ...synthetic, policy: 'rate-limit' }), 1);
  t.is(sumOf(samples, 'budget_rejections_total'), 1);
  t.is(sumOf(samples, 'budget_rejections_total', { ...synthetic, budget: 'tokens' }), 1);
  t.is(sumOf(samples, 'tasks_rejected_total', { ...synthetic, reason: 'ADMISSION_REJECT' }), 4);
  t.is(sumOf(samples, 'tasks_rejected_total', { ...synthetic, reason: 'INVALID_PARAMS' }), 2);
  t.is(sumOf(samples, 'tasks_rejected_total', { engine: '', reason: 'INVALID_PARAMS' }), 2);
  t.is(sumOf(samples, 'tasks_rejected_total'), 8);
});

for (const policy of ['drop-lru', 'shed-low-priority'] as const)
  test(`a place that is taken by ${policy} is counted once, and so is the victim`, async (t) => {
    const server = await steppedServer({ pool: { queue: { capacity: 1, full_policy: policy } } });
    t.teardown(server.close);
    await server.submit();
    await server.submit({ priority: 'batch' });
    await server.submit();
    const samples = await scrape(server);
    t.is(sumOf(samples, 'admission_backpressure_events_total'), 1);
    t.is(sumOf(samples, 'admission_backpressure_events_total', { engine: 'synthetic', policy }), 1);
    t.is(sumOf(samples, 'tasks_failed_total', { pool_id: 'slow' }), 1);
  });

test('canceled tasks are counted by who ended them: the client, the deadline, the watchdog', async (t) => {
  const server = await steppedServer({
    pool: { timeouts: { wall_ms: 300 }, synthetic: { tokens_per_second: 20 } },
  });
  t.teardown(server.close);
  const count = async (reason: string): Promise<number> =>
    sumOf(await scrape(server), 'tasks_canceled_total', { pool_id: 'slow', reason });
  const canceled = await server.submit({ max_tokens: 100 });
  await server.step(() => server.tokens(canceled) >= 1);
  await server.cancel(canceled);
  t.is(await count('client'), 1);
  const slow = await server.submit({ max_tokens: 100 });
  await server.step(() => server.state(slow) === 'error');
  t.is(await count('watchdog'), 1);
  const late = await server.submit({ max_tokens: 100, expected_tokens: 1, deadline_ms: 250 });
  await server.step(() => server.state(late) === 'error');
  t.is(await count('deadline'), 1);
  t.is(sumOf(await scrape(server), 'tasks_canceled_total'), 3);
});

test('placements are counted by outcome, by pin and by fallback', async (t) => {
  const server = await startTestServer({
    pools: [
      { id: 'a', engine: 'synthetic', model: 'synthetic' },
      { id: 'b', engine: 'synthetic', model: 'synthetic', ctx: 128 },
    ],
  });
  t.teardown(server.close);
  await until(() => [...server.orchestrator.core.pools.values()].every((pool) => pool.isReady));
  await server.submit();
  t.is(sumOf(await scrape(server), 'placement_candidates_considered'), 2);
  await server.submit({ placement: { mode: 'pin', pin_pool_id: 'a' } });
  t.is(sumOf(await scrape(server), 'placement_candidates_considered'), 1);
  await server.submit({ placement: { mode: 'prefer', prefer_pools: ['b'] } });
  await server.post({ placement: { mode: 'prefer', prefer_pools: ['b'], allow_fallback: false } });
  const samples = await scrape(server);
  const count = (outcome: string, pinned: string, fallback: string): number =>
    sumOf(samples, 'placement_decisions_total', { outcome, pinned, fallback });
  t.is(count('assigned', 'false', 'false'), 1);
  t.is(count('assigned', 'true', 'false'), 1);
  t.is(count('assigned', 'false', 'true'), 1);
  t.is(count('no_capacity', 'false', 'false'), 1);
  t.is(sumOf(samples, 'placement_decisions_total'), 4);
});

test('a task that is queued where there is one replica is counted for it', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  const id = await server.submit();
  await server.step(() => server.state(id) === 'ended');
  const samples = await scrape(server);
  for (const name of ['tasks_enqueued_total', 'tasks_started_total', 'tasks_ended_total']) {
    const [sample] = samples.filter((each) => each.name === name);
    t.is(sample?.labels['replica_id'], server.orchestrator.core.record(id)?.context.replica_id, name);
    t.is(sample?.value, 1);
  }
});

test('what sessions hold of a cache is told, as bytes and as a share of each replica that says what it has', async (t) => {
  const server = await startTestServer({
    pools: [{ id: 'stories', engine: 'llamacpp', model: 'storyteller', ctx: 256 }],
  });
  t.teardown(server.close);
  t.timeout(120_000);
  const fields = { engine: 'llamacpp', model_ref: 'storyteller', ctx: 256, session_id: idOf(1) } as const;
  await server.raw(await server.submit(fields));
  const samples = await scrape(server);
  const bytes = sumOf(samples, 'sessions_kv_bytes');
  t.is(bytes, server.orchestrator.session(idOf(1)).kv_bytes);
  const [ratio] = samples.filter(({ name }) => name === 'kv_cache_usage_ratio');
  t.like(ratio?.labels, { engine: 'llamacpp', pool_id: 'stories' });
  // The embedded engine decodes each prefix anew.
  t.is(ratio?.value, 0);
});

test('devices are asked now and then, when somebody wants to know, and never waited for', async (t) => {
  let now = 0;
  const gpus = new Gpus({
    program: fakeSmi(t, '0, 37, 1024\n1, [N/A], 2048\n2, 99, 1'),
    max_age_ms: 1000,
    now: () => now,
  });
  t.deepEqual(gpus.read(), []);
  await until(() => gpus.read().length > 0);
  t.deepEqual(gpus.read(), [
    { device: 0, utilization_percent: 37, vram_used_bytes: 1024 ** 3 },
    { device: 2, utilization_percent: 99, vram_used_bytes: 1024 ** 2 },
  ]);
  now = 999;
  const before = gpus.read();
  t.is(gpus.read(), before);
  now = 1000;
  gpus.read();
  await until(() => gpus.read() !== before);
  t.deepEqual(gpus.read(), before);
});

test('a machine without such a program has no series of devices', async (t) => {
  const gpus = new Gpus({ program: join(tmpdir(), 'there-is-no-such-program') });
  for (let i = 0; i < 3; i++) t.deepEqual(gpus.read(), []);
});

test('devices are told for each replica of a pool that runs on them', async (t) => {
  const server = await startTestServer({
    pools: [
      { id: 'gpu', engine: 'synthetic', model: 'synthetic', devices: [0] },
      { id: 'cpu', engine: 'synthetic', model: 'other' },
    ],
  });
  t.teardown(server.close);
  const gpus = new Gpus({ program: fakeSmi(t, '0, 37, 1024') });
  const metrics = createMetrics(server.orchestrator.core, gpus);
  await until(() => server.orchestrator.core.pools.get('gpu')?.isReady);
  let samples: Sample[] = [];
  await until(async () => {
    samples = samplesOf(await metrics.exposition());
    return samples.some(({ name }) => name === 'gpu_utilization');
  });
  const of = (series: string): Sample[] => samples.filter(({ name }) => name === series);
  t.deepEqual(
    of('gpu_utilization').map(({ labels, value }) => [labels['pool_id'], labels['device'], value]),
    [['gpu', '0', 37]],
  );
  t.is(of('vram_used_bytes')[0]?.value, 1024 ** 3);
});
