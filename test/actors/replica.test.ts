import { SUPERVISION } from '../../src/actors/supervision.ts';
import test from 'ava';
import { failure } from '../../src/errors.ts';
import { until } from '../helpers/until.ts';
import { createRig, FragileClock, settle, type Rig } from './rig.ts';

const stateOf = (rig: Rig): string | undefined => {
  const value = rig.pool.replicas[0]?.snapshot.value;
  return typeof value === 'object' ? Object.keys(value)[0] : value;
};

test('a replica that is lost is loaded again after its backoff, longer each time', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  for (const backoff of [1000, 2000, 4000]) {
    rig.engine.crash();
    await until(() => stateOf(rig) === 'backing off');
    rig.clock.advance(backoff - 1);
    await settle();
    t.is(stateOf(rig), 'backing off');
    rig.clock.advance(1);
    await rig.ready();
  }
  t.is(rig.engine.loadCalls, 4);
});

test('what is left of a lost engine is cleared away before it is loaded again', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  rig.engine.crash();
  await until(() => stateOf(rig) === 'backing off');
  t.is(rig.engine.unloadCalls, 1);
});

test('when its breaker opens the pool is unready with the last error, and the breaker’s trial brings it back', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  rig.engine.loads = failure('POOL_UNAVAILABLE', 'the engine does not start');
  rig.engine.crash();
  const id = (await rig.submit()).task_id;
  await until(() => {
    if (rig.pool.snapshot.value !== 'unready') rig.clock.advance(100);
    return rig.pool.snapshot.value === 'unready';
  });
  t.like((await rig.log(id)).at(-1)?.data, {
    code: 'POOL_UNREADY',
    message: 'pool scripted is not ready: the engine does not start',
  });
  t.is(rig.engine.loadCalls, SUPERVISION.replica.budget.breaker_threshold);
  rig.engine.loads = 'at once';
  rig.clock.advance(SUPERVISION.replica.budget.breaker_open_ms);
  await rig.ready();
  const next = (await rig.submit()).task_id;
  (await rig.runOf(next)).finish();
  await until(() => rig.record(next).state === 'ended');
});

test('a load that takes too long is given up and tried again', async (t) => {
  const rig = createRig({
    engine: (engine) => (engine.loads = 'held'),
    pool: { replica: { load_timeout_ms: 500 } },
  });
  t.teardown(rig.close);
  await until(() => stateOf(rig) === 'loading');
  await settle();
  rig.clock.advance(500);
  await until(() => stateOf(rig) === 'backing off');
  t.regex(rig.pool.replicas[0]?.snapshot.context.last_error?.message ?? '', /not loaded after 500 ms/);
  rig.engine.loads = 'at once';
  rig.clock.advance(1000);
  await rig.ready();
  t.pass();
});

test('a replica that fails three probes in a row is lost, and one that recovers in between is not', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  const probe = async (answers: boolean): Promise<void> => {
    rig.engine.answers = answers;
    rig.clock.advance(10_000);
    await settle();
  };
  for (const answers of [false, false, true, false, false]) await probe(answers);
  t.is(stateOf(rig), 'ready');
  await probe(false);
  await until(() => stateOf(rig) === 'backing off');
  t.is(rig.pool.replicas[0]?.snapshot.context.exit?.cause, 'unreachable');
});

test('a probe that is never answered counts as a failed one', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  rig.engine.health = () => new Promise(() => undefined);
  for (let probe = 0; probe < 20 && stateOf(rig) === 'ready'; probe++) {
    rig.clock.advance(10_000);
    await settle();
  }
  await until(() => stateOf(rig) !== 'ready', 'the replica to be lost');
  t.is(rig.pool.replicas[0]?.snapshot.context.exit?.cause, 'unreachable');
});

test('an engine that does not stop is left behind after its allowance', async (t) => {
  const rig = createRig();
  await rig.ready();
  rig.engine.unload = () => new Promise(() => undefined);
  let isClosed = false;
  const closing = rig.orchestrator.close(0).then(() => (isClosed = true));
  await until(() => stateOf(rig) === 'stopping');
  await settle();
  rig.clock.advance(1);
  await settle();
  rig.clock.advance(SUPERVISION.replica.shutdown.within_ms - 2);
  await settle();
  t.false(isClosed);
  rig.clock.advance(1);
  await closing;
  t.is(rig.clock.pending, 0);
});

test('a replica whose actor crashes takes its pool out of service, and the orchestrator still closes', async (t) => {
  const clock = new FragileClock();
  const rig = createRig({ clock });
  await rig.ready();
  const id = (await rig.submit()).task_id;
  await rig.runOf(id);
  clock.breaks = 10_000;
  clock.advance(10_000);
  await until(() => rig.pool.replicas[0]?.snapshot.status === 'error', 'the replica to crash');
  await until(() => rig.record(id).state === 'error');
  t.is(rig.pool.snapshot.value, 'unready');
  t.false(rig.engine.isLoaded);
  await rig.close();
  t.is(rig.clock.pending, 0);
});
