import test from 'ava';
import { failure, TaskchartError } from '../../src/errors.ts';
import { remoteModels } from '../../src/models/source.ts';
import { until } from '../helpers/until.ts';
import { threadsOf, createRig, FragileClock, settle } from './rig.ts';

test('a cold pool is brought up by its first task, and by nothing before', async (t) => {
  const rig = createRig({ preload: false });
  t.teardown(rig.close);
  await settle();
  t.is(rig.pool.snapshot.value, 'cold');
  const id = (await rig.submit()).task_id;
  (await rig.runOf(id)).finish();
  await until(() => rig.record(id).state === 'ended');
  t.is(rig.engine.loadCalls, 1);
});

test('slots are granted in the order of arrival within a class, interactive before batch', async (t) => {
  const rig = createRig({ slots: 2 });
  t.teardown(rig.close);
  await rig.ready();
  const ids: Record<string, string> = {};
  for (const [name, priority] of [
    ['r1', 'interactive'],
    ['r2', 'interactive'],
    ['b1', 'batch'],
    ['i1', 'interactive'],
    ['b2', 'batch'],
    ['i2', 'interactive'],
  ] as const)
    ids[name] = (await rig.submit({ priority })).task_id;
  while (rig.engine.runs.length < 6 || rig.engine.live.length > 0) {
    rig.engine.live[0]?.finish();
    await settle();
  }
  t.deepEqual(
    rig.engine.runs.map((run) => run.call.task_id),
    ['r1', 'r2', 'i1', 'i2', 'b1', 'b2'].map((name) => ids[name]),
  );
  t.deepEqual(rig.engine.shouts, []);
});

test('a full queue refuses, and takes the next one when a waiting task was canceled', async (t) => {
  const rig = createRig({ capacity: 1 });
  t.teardown(rig.close);
  await rig.ready();
  await rig.submit();
  const waiting = (await rig.submit()).task_id;
  const refused = await t.throwsAsync(rig.submit(), { instanceOf: TaskchartError });
  t.like(refused?.failure, { code: 'ADMISSION_REJECT', policy_label: 'reject' });
  await rig.orchestrator.cancel(waiting);
  await t.notThrowsAsync(rig.submit());
});

test('a drain refuses new and waiting work, lets the running task finish, and then stops the engine', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  const running = (await rig.submit()).task_id;
  const waiting = (await rig.submit()).task_id;
  const run = await rig.runOf(running);
  rig.pool.engines.drain(5000);
  t.is(rig.record(waiting).state, 'error');
  t.like((await rig.log(waiting)).at(-1), { type: 'error', data: { code: 'POOL_UNREADY', retriable: true } });
  t.like((await t.throwsAsync(rig.submit(), { instanceOf: TaskchartError }))?.failure, {
    code: 'POOL_UNREADY',
  });
  rig.clock.advance(4999);
  run.token(2);
  run.finish();
  await until(() => rig.pool.snapshot.value === 'drained');
  t.like((await rig.log(running)).at(-1), { type: 'end', data: { tokens_out: 2 } });
  t.is(rig.engine.unloadCalls, 1);
});

test('at the deadline of a drain the tasks that still run are canceled, with the drain as the reason', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  const id = (await rig.submit()).task_id;
  (await rig.runOf(id)).token();
  rig.pool.engines.drain(5000);
  rig.clock.advance(5000);
  await until(() => rig.pool.snapshot.value === 'drained');
  t.like((await rig.log(id)).at(-1), { type: 'end', data: { canceled: true, cancel_reason: 'drain' } });
  t.is(rig.pool.leases, 0);
});

test('a run that dies before its first token in a draining pool ends, since nobody will take it up', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  const id = (await rig.submit()).task_id;
  const run = await rig.runOf(id);
  rig.pool.engines.drain(5000);
  run.fail();
  await until(() => rig.pool.snapshot.value === 'drained');
  await settle();
  t.is(rig.record(id).state, 'error');
  t.like((await rig.log(id)).at(-1), { type: 'error', data: { code: 'POOL_UNREADY', retriable: true } });
});

test('a pool whose model cannot be had tells those who wait, refuses with the cause, and tries again', async (t) => {
  let isHere = false;
  const rig = createRig({
    preload: false,
    pool: {
      models: {
        ...remoteModels,
        async verify(model) {
          if (!isHere) throw new TaskchartError(failure('POOL_UNAVAILABLE', 'the model file is not there'));
          return remoteModels.verify(model);
        },
      },
    },
  });
  t.teardown(rig.close);
  const id = (await rig.submit()).task_id;
  await until(() => rig.record(id).state === 'error');
  t.like((await rig.log(id)).at(-1)?.data, { code: 'POOL_UNREADY', pool_id: 'scripted' });
  t.like((await t.throwsAsync(rig.submit(), { instanceOf: TaskchartError }))?.failure, {
    code: 'POOL_UNREADY',
    message: 'pool scripted is not ready: the model file is not there',
  });
  isHere = true;
  rig.clock.advance(1000);
  await rig.ready();
  const next = (await rig.submit()).task_id;
  (await rig.runOf(next)).finish();
  await until(() => rig.record(next).state === 'ended');
});

test('a task whose prompt is being counted while the pool is drained is refused, not left waiting', async (t) => {
  const counting = Promise.withResolvers<number>();
  const rig = createRig({
    ports: { threads: threadsOf(() => counting.promise) },
    pool: { models: { ...remoteModels, verify: async () => ({ ...(await verified), path: 'a.gguf' }) } },
  });
  const verified = remoteModels.verify({ id: 'synthetic', path: '', present: true });
  t.teardown(rig.close);
  await rig.ready();
  const submitting = rig.submit({ prompt: 'x'.repeat(2000), ctx: 2000 });
  await settle();
  rig.pool.engines.drain(0);
  await until(() => rig.pool.snapshot.value === 'drained');
  counting.resolve(500);
  const refused = await t.throwsAsync(submitting, { instanceOf: TaskchartError });
  t.is(refused?.code, 'POOL_UNREADY');
  t.is(rig.pool.queue_depth, 0);
});

test('a pool whose actor crashes ends its tasks, refuses new ones, and gives its engine back', async (t) => {
  const clock = new FragileClock();
  const rig = createRig({ clock });
  await rig.ready();
  const running = (await rig.submit()).task_id;
  const waiting = (await rig.submit()).task_id;
  await rig.runOf(running);
  clock.breaks = 1000;
  rig.pool.engines.drain(1000);
  await until(() => rig.observations.some(({ type }) => type === 'child.crashed'));
  t.is(rig.record(waiting).state, 'error');
  await t.throwsAsync(rig.submit(), { instanceOf: TaskchartError });
  await rig.close();
  t.false(rig.engine.isLoaded);
  t.not(rig.record(running).context.outcome, undefined);
  t.is(clock.pending, 0);
});
