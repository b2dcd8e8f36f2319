import test from 'ava';
import { until } from '../helpers/until.ts';
import { createRig, type Rig, type RigOptions } from './rig.ts';

async function start(options: RigOptions = {}): Promise<Rig> {
  const rig = createRig(options);
  await rig.ready();
  return rig;
}

const attach = (rig: Rig, id: string): (() => void) => rig.orchestrator.attachReader(rig.record(id));

test('an interactive task whose last reader was gone for the whole grace is canceled, queued or running', async (t) => {
  const rig = await start();
  t.teardown(rig.close);
  const running = (await rig.submit()).task_id;
  const queued = (await rig.submit()).task_id;
  const run = await rig.runOf(running);
  run.token();
  for (const id of [running, queued]) attach(rig, id)();
  rig.clock.advance(9999);
  t.deepEqual([rig.record(running).state, rig.record(queued).state], ['streaming', 'admitted']);
  rig.clock.advance(1);
  for (const id of [running, queued])
    t.like((await rig.log(id)).at(-1), {
      type: 'end',
      data: { canceled: true, cancel_reason: 'disconnect' },
    });
  t.true(run.isAborted);
  await until(() => rig.pool.leases === 0);
});

test('a reader that comes back in time saves the task, and the grace begins anew when it leaves', async (t) => {
  const rig = await start();
  t.teardown(rig.close);
  const id = (await rig.submit()).task_id;
  attach(rig, id)();
  rig.clock.advance(9000);
  const leave = attach(rig, id);
  rig.clock.advance(60_000);
  t.is(rig.record(id).state, 'placed');
  leave();
  leave();
  rig.clock.advance(9999);
  t.is(rig.record(id).state, 'placed');
  rig.clock.advance(1);
  t.is(rig.record(id).state, 'ended');
});

test('only the last of several readers counts', async (t) => {
  const rig = await start();
  t.teardown(rig.close);
  const id = (await rig.submit()).task_id;
  const [first, second] = [attach(rig, id), attach(rig, id)];
  first();
  first();
  rig.clock.advance(20_000);
  t.is(rig.record(id).state, 'placed');
  second();
  rig.clock.advance(10_000);
  t.is(rig.record(id).state, 'ended');
});

test('who was never read, is of class batch, or where it is switched off, is not canceled', async (t) => {
  const rig = await start();
  const off = await start({ settings: { disconnect_grace_ms: undefined } });
  t.teardown(() => Promise.all([rig.close(), off.close()]));
  const unread = (await rig.submit()).task_id;
  const batch = (await rig.submit({ priority: 'batch' })).task_id;
  const without = (await off.submit()).task_id;
  attach(rig, batch)();
  attach(off, without)();
  for (const { clock } of [rig, off]) clock.advance(100_000);
  t.deepEqual(
    [rig.record(unread).state, rig.record(batch).state, off.record(without).state],
    ['placed', 'admitted', 'placed'],
  );
});

test('a task that is over while its reader is away leaves no timer; who reads it then is not counted', async (t) => {
  const rig = await start();
  t.teardown(rig.close);
  const id = (await rig.submit()).task_id;
  const leave = attach(rig, id);
  attach(rig, id)();
  leave();
  (await rig.runOf(id)).finish();
  await until(() => rig.record(id).state === 'ended');
  const before = rig.clock.pending;
  attach(rig, id)();
  t.is(rig.clock.pending, before);
  rig.clock.advance(60_000);
  t.is(rig.observations.filter(({ type }) => type === 'task.closed').length, 1);
});

test('a reader that leaves after its task is over begins no grace', async (t) => {
  const rig = await start();
  t.teardown(rig.close);
  const id = (await rig.submit()).task_id;
  const leave = attach(rig, id);
  await rig.orchestrator.cancel(id);
  await until(() => rig.pool.leases === 0);
  const before = rig.clock.pending;
  leave();
  t.is(rig.clock.pending, before);
});

test('readers that leave because the server closes cancel nothing and leave no timer', async (t) => {
  const rig = await start();
  const id = (await rig.submit()).task_id;
  const leave = attach(rig, id);
  await rig.close();
  leave();
  t.is(rig.clock.pending, 0);
});
