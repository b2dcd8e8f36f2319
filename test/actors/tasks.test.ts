import test from 'ava';
import { MemoryTaskLog } from '../../src/streams/memory-log.ts';
import { failure } from '../../src/errors.ts';
import { until } from '../helpers/until.ts';
import { createRig, FragileClock, settle, typesOf } from './rig.ts';

test('a waiting task is a record, an actor takes over with the grant, and is gone after the end', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  const first = await rig.submit();
  const second = await rig.submit();
  const third = await rig.submit({ priority: 'batch' });
  t.is(rig.orchestrator.tasks.inFlight, 1);
  t.deepEqual(
    [first, second, third].map(({ task_id }) => rig.record(task_id).state),
    ['placed', 'admitted', 'admitted'],
  );
  (await rig.runOf(first.task_id)).finish();
  await until(() => rig.record(second.task_id).state === 'placed');
  t.is(rig.orchestrator.tasks.inFlight, 1);
  t.is(rig.record(first.task_id).state, 'ended');
  (await rig.runOf(second.task_id)).finish();
  (await rig.runOf(third.task_id)).finish();
  await until(() => rig.record(third.task_id).state === 'ended');
  await settle();
  t.is(rig.orchestrator.tasks.inFlight, 0);
  t.is(rig.pool.leases, 0);
});

test('tasks that would fill the slots of a pool that is coming up are provisioning, the others wait', async (t) => {
  const rig = createRig({ preload: false, engine: (engine) => (engine.loads = 'held') });
  t.teardown(rig.close);
  const next = await rig.submit();
  const behind = await rig.submit();
  await until(() => rig.pool.snapshot.value === 'starting');
  t.is(rig.record(next.task_id).state, 'provisioning');
  t.is(rig.record(behind.task_id).state, 'admitted');
  t.is(rig.orchestrator.tasks.inFlight, 0);
  await until(() => rig.engine.loadCalls > 0);
  await settle();
  rig.engine.loaded();
  (await rig.runOf(next.task_id)).finish();
  (await rig.runOf(behind.task_id)).finish();
  await until(() => rig.record(behind.task_id).state === 'ended');
  t.pass();
});

test('a run that dies before its first token goes back to the front, and ends on the restarted engine', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  const first = (await rig.submit()).task_id;
  const second = (await rig.submit()).task_id;
  await rig.runOf(first);
  rig.engine.crash();
  await until(() => rig.record(first).context.lease === undefined);
  t.is(rig.pool.queue.positionOf(rig.record(first)), 0);
  t.is(rig.pool.queue.positionOf(rig.record(second)), 1);
  t.is(rig.orchestrator.tasks.inFlight, 0);
  t.is(rig.pool.leases, 0);
  rig.clock.advance(1000);
  const again = await rig.runOf(first);
  t.is(rig.record(first).context.attempts, 2);
  again.token(2);
  again.finish();
  (await rig.runOf(second)).finish();
  await until(() => rig.record(second).state === 'ended');
  const tokens = (await rig.log(first)).filter(({ type }) => type === 'token');
  t.deepEqual(
    tokens.map(({ data }) => (data as { i: number }).i),
    [0, 1],
  );
  t.is(typesOf(await rig.log(first)).filter((type) => type === 'started').length, 1);
});

test('a run that is queued again and granted in the same turn is placed, and everybody hears so', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  const id = (await rig.submit()).task_id;
  (await rig.runOf(id)).fail();
  const again = await rig.runOf(id);
  t.is(rig.record(id).state, 'placed');
  t.like(rig.record(id).context, { attempts: 2, lease: again.call.lease });
  again.finish();
  await until(() => rig.record(id).state === 'ended');
  t.deepEqual(
    rig.observations.flatMap((told) => (told.type === 'task.moved' ? [told.to] : [])),
    ['placed', 'admitted', 'placed', 'ended'],
  );
});

test('a run that is granted again in the turn in which it was lost is watched and counted like any other', async (t) => {
  for (const how of ['deadline', 'silence', 'cancel'] as const) {
    const rig = createRig({ rules: { first_token_ms: 20_000, idle_ms: 5000 } });
    t.teardown(rig.close);
    await rig.ready();
    const id = (await rig.submit({ deadline_ms: 10_000 })).task_id;
    (await rig.runOf(id)).fail();
    const again = await rig.runOf(id);
    t.is(rig.orchestrator.tasks.inFlight, 1);
    again.token(2);
    rig.clock.advance(1000);
    again.token(1);
    if (how === 'silence') rig.clock.advance(5000);
    if (how === 'deadline')
      for (let second = 1; second < 10; second++) {
        rig.clock.advance(1000);
        again.progress();
      }
    if (how === 'cancel') await rig.orchestrator.cancel(id);
    const log = await rig.log(id);
    t.true(typesOf(log).includes('metrics'), 'its metrics come once a second');
    t.is(rig.record(id).context.usage.tokens_out, 3);
    if (how === 'cancel') t.like(log.at(-1)?.data, { canceled: true, tokens_out: 3 });
    else t.like(log.at(-1)?.data, { code: how === 'deadline' ? 'DEADLINE_UNMET' : 'DECODE_TIMEOUT' });
  }
});

test('a run that is ended from outside says how much it has read, as the engine told', async (t) => {
  for (const how of ['deadline', 'silence', 'cancel'] as const) {
    const rig = createRig({ rules: { first_token_ms: 5000, idle_ms: 5000 } });
    t.teardown(rig.close);
    await rig.ready();
    const id = (await rig.submit({ deadline_ms: how === 'deadline' ? 3000 : 60_000 })).task_id;
    const run = await rig.runOf(id);
    run.prefilled(17, 5);
    if (how !== 'silence') run.token(2);
    if (how === 'cancel') await rig.orchestrator.cancel(id);
    else rig.clock.advance(5000);
    const tokens_out = how === 'silence' ? 0 : 2;
    t.deepEqual(rig.record(id).context.usage, { tokens_in: 17, tokens_cached: 5, tokens_out });
    if (how === 'cancel') t.like((await rig.log(id)).at(-1)?.data, { tokens_in: 17 });
  }
});

test('a run that keeps dying before its first token fails at its third attempt', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  const id = (await rig.submit()).task_id;
  for (let attempt = 0; attempt < 3; attempt++) (await rig.runOf(id)).fail();
  await until(() => rig.record(id).state === 'error');
  t.is(rig.engine.runs.length, 3);
  t.like((await rig.log(id)).at(-1), { type: 'error', data: { code: 'WORKER_RESET', pool_id: 'scripted' } });
});

test('a run that fails for good before its first token is not tried again', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  const id = (await rig.submit()).task_id;
  (await rig.runOf(id)).fail(failure('INVALID_PARAMS', 'the prompt does not fit'));
  await until(() => rig.record(id).state === 'error');
  t.is(rig.engine.runs.length, 1);
  t.like((await rig.log(id)).at(-1), { type: 'error', data: { code: 'INVALID_PARAMS' } });
});

test('an engine that dies in the middle of a stream ends it with WORKER_RESET; the next task runs', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  const broken = (await rig.submit()).task_id;
  const next = (await rig.submit()).task_id;
  (await rig.runOf(broken)).token(3);
  rig.engine.crash();
  await until(() => rig.record(broken).state === 'error');
  t.deepEqual(typesOf(await rig.log(broken)), ['started', 'token', 'token', 'token', 'error']);
  t.like((await rig.log(broken)).at(-1)?.data, { code: 'WORKER_RESET', retriable: true });
  await until(() => rig.pool.snapshot.value === 'starting');
  rig.clock.advance(1000);
  (await rig.runOf(next)).finish();
  await until(() => rig.record(next).state === 'ended');
  t.true(rig.pool.snapshot.hasTag('ready'));
});

test('a task whose actor crashes still ends, with INTERNAL, and its slot goes to the next', async (t) => {
  const clock = new FragileClock();
  const rig = createRig({ clock });
  t.teardown(rig.close);
  await rig.ready();
  const id = (await rig.submit()).task_id;
  const next = (await rig.submit()).task_id;
  const run = await rig.runOf(id);
  clock.breaks = 1000;
  run.token();
  await until(() => rig.record(id).state === 'error');
  clock.breaks = undefined;
  const log = await rig.log(id);
  t.like(log.at(-1), { type: 'error', data: { code: 'INTERNAL' } });
  t.is(rig.observations.filter(({ type }) => type === 'child.crashed').length, 1);
  t.is(rig.observations.filter((told) => told.type === 'task.closed' && told.record.id === id).length, 1);
  await until(() => rig.record(next).state === 'placed');
  t.is(rig.orchestrator.tasks.inFlight, 1);
  run.token(5);
  t.deepEqual(await rig.log(id), log);
  (await rig.runOf(next)).finish();
  await until(() => rig.pool.leases === 0);
});

test('a log that throws ends its own task, and neither the process nor the pool', async (t) => {
  class FragileLog extends MemoryTaskLog {
    victim = '';

    override append(...args: Parameters<MemoryTaskLog['append']>): ReturnType<MemoryTaskLog['append']> {
      if (args[0] === this.victim && args[2].some(({ type }) => type === 'token'))
        throw new Error('the log is broken');
      return super.append(...args);
    }
  }
  const log = new FragileLog();
  const rig = createRig({ ports: { log } });
  t.teardown(rig.close);
  await rig.ready();
  const id = (await rig.submit()).task_id;
  const next = (await rig.submit()).task_id;
  log.victim = id;
  (await rig.runOf(id)).token();
  await until(() => rig.record(id).state === 'error');
  (await rig.runOf(next)).finish();
  await until(() => rig.record(next).state === 'ended');
  t.is(rig.pool.leases, 0);
  t.deepEqual(rig.engine.shouts, []);
});

test('an observer that throws harms neither the task nor the other observers', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  const warnings: string[] = [];
  const { emitWarning } = process;
  process.emitWarning = (warning: string | Error) => void warnings.push(String(warning));
  t.teardown(() => (process.emitWarning = emitWarning));
  rig.orchestrator.observers.add(() => {
    throw new Error('a bad observer');
  });
  const told: string[] = [];
  rig.orchestrator.observers.add(({ type }) => told.push(type));
  const id = (await rig.submit()).task_id;
  (await rig.runOf(id)).finish();
  await until(() => rig.record(id).state === 'ended');
  t.true(told.includes('task.closed'));
  t.true(warnings.some((warning) => warning.includes('a bad observer')));
});

test('after a cancel has resolved a run that goes on adds nothing; its slot is held until it lets go', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  const id = (await rig.submit()).task_id;
  const next = (await rig.submit()).task_id;
  const run = await rig.runOf(id);
  rig.engine.letsGo = false;
  run.token(2);
  await rig.orchestrator.cancel(id);
  const log = await rig.log(id);
  t.like(log.at(-1), { type: 'end', data: { canceled: true, cancel_reason: 'client', tokens_out: 2 } });
  t.true(run.isAborted);
  run.token(10);
  await rig.orchestrator.cancel(id);
  t.deepEqual(await rig.log(id), log);
  t.is(rig.pool.leases, 1);
  t.is(rig.record(next).state, 'admitted');
  run.finish();
  await until(() => rig.record(next).state === 'placed');
  t.deepEqual(rig.engine.shouts, []);
});
