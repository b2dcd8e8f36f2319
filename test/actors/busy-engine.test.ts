import test, { type ExecutionContext } from 'ava';
import { createExternalLlamaEngine } from '../../src/engines/llamacpp/external.ts';
import { createVllmEngine } from '../../src/engines/vllm/vllm.ts';
import { startFakeLlamaServer } from '../helpers/fake-llama-server.ts';
import { startFakeVllmServer } from '../helpers/fake-vllm-server.ts';
import { until } from '../helpers/until.ts';
import { createRig, settle, type Rig, type RigOptions } from './rig.ts';

function statesOf(rig: Rig, ids: readonly string[]): string[] {
  return ids.map((id) => rig.record(id).state);
}

function isOver(rig: Rig, ids: readonly string[]): boolean {
  return statesOf(rig, ids).every((state) => state === 'ended' || state === 'error');
}

async function submit(rig: Rig, count: number): Promise<string[]> {
  const ids: string[] = [];
  for (let i = 0; i < count; i++) ids.push((await rig.submit({ priority: 'batch', ctx: 512 })).task_id);
  return ids;
}

test('an engine that is busy gets no run for as long as it asks, and no task loses an attempt by it', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  const [first = '', second = ''] = await submit(rig, 2);
  for (let attempt = 0; attempt < 5; attempt++) {
    (await rig.runOf(first)).decline(2000);
    await until(() => rig.record(first).state === 'admitted');
    rig.clock.advance(1999);
    await settle();
    t.is(rig.engine.live.length, 0);
    t.is(rig.pool.slots_free, 0);
    rig.clock.advance(1);
  }
  (await rig.runOf(first)).finish();
  t.is(rig.engine.runs.length, 5 + 1);
  (await rig.runOf(second)).finish();
  await until(() => isOver(rig, [first, second]));
  t.deepEqual(statesOf(rig, [first, second]), ['ended', 'ended']);
});

test('an engine that stays busy ends its task once a first token would have been due, with what it said', async (t) => {
  const rig = createRig({ rules: { first_token_ms: 10_000 } });
  t.teardown(rig.close);
  await rig.ready();
  const [id = ''] = await submit(rig, 1);
  while (!isOver(rig, [id])) {
    rig.engine.live[0]?.decline(1000);
    await settle();
    rig.clock.advance(500);
    await settle();
  }
  const { outcome, times } = rig.record(id).context;
  t.like(outcome, { kind: 'failed', failure: { code: 'POOL_UNAVAILABLE', message: 'busy' } });
  t.true((times.ended ?? 0) >= 10_000);
});

test('a task that is busy at its deadline is told so', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  const { task_id } = await rig.submit({ deadline_ms: 3000 });
  (await rig.runOf(task_id)).decline(60_000);
  await until(() => rig.record(task_id).state === 'admitted');
  rig.clock.advance(3000);
  await until(() => rig.record(task_id).state === 'error');
  t.like(rig.record(task_id).context.outcome, { failure: { code: 'DEADLINE_UNMET' } });
});

/** A pool over a server that speaks the wire. */
function attached(kind: 'llamacpp' | 'vllm', url: string, options: RigOptions = {}): Rig {
  return createRig({
    ...options,
    slots: 2,
    factory: (host, _spec, clock) =>
      kind === 'llamacpp'
        ? createExternalLlamaEngine({ url, model_id: 'synthetic', clock, host })
        : createVllmEngine({ url, model_id: 'synthetic', model: 'story', slots: 2, clock, host }),
  });
}

async function serve(
  t: ExecutionContext,
  kind: 'llamacpp' | 'vllm',
  options: { slots: number; hold_at?: number; port?: number },
): Promise<{ url: string; streaming(n: number): Promise<void>; kill(): Promise<void> }> {
  const fake = await (kind === 'llamacpp' ? startFakeLlamaServer(options) : startFakeVllmServer(options));
  t.teardown(() => fake.kill());
  return fake;
}

/** Time goes on until the tasks are over. */
async function runOut(rig: Rig, ids: readonly string[]): Promise<void> {
  await until(() => {
    rig.clock.advance(20);
    return isOver(rig, ids);
  }, 'the tasks to be over');
}

for (const kind of ['llamacpp', 'vllm'] as const) {
  test(`a ${kind} server that is killed and comes back loses no task, neither of those that run nor of those that wait`, async (t) => {
    const fake = await serve(t, kind, { slots: 2, hold_at: 3 });
    const rig = attached(kind, fake.url);
    t.teardown(rig.close);
    await rig.ready();
    const ids = await submit(rig, 12);
    await fake.streaming(2);
    await fake.kill();
    await until(() => rig.pool.phase === 'starting');
    t.deepEqual(
      ids.filter((id) => rig.record(id).state === 'error'),
      [],
    );
    t.true(ids.every((id) => rig.record(id).context.attempts <= 1));
    await serve(t, kind, { slots: 2, port: Number(new URL(fake.url).port) });
    await runOut(rig, ids);
    t.deepEqual([...new Set(statesOf(rig, ids))], ['ended']);
  });
}

test('a server that is healthy and answers 503 is asked as often as it wants to be, and loses no task', async (t) => {
  const refuse = { status: 503, body: { error: { message: 'busy' } }, headers: { 'retry-after': '2' } };
  const fake = await startFakeLlamaServer({ slots: 2, refuse });
  t.teardown(() => fake.kill());
  const rig = attached('llamacpp', fake.url);
  t.teardown(rig.close);
  await rig.ready();
  const ids = await submit(rig, 10);
  await until(() => rig.pool.leases === 0 && rig.pool.queue_depth === 10);
  t.true(fake.completions.length <= 2);
  rig.clock.advance(1999);
  await settle();
  t.true(fake.completions.length <= 2);
  rig.clock.advance(1);
  await until(() => fake.completions.length >= 3);
  t.deepEqual(
    ids.filter((id) => rig.record(id).state === 'error'),
    [],
  );
});
