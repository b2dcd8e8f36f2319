import test from 'ava';
import { createActor, setup } from 'xstate';
import { link, SUPERVISION } from '../../src/actors/supervision.ts';
import { loadConfig } from '../../src/config.ts';
import { until } from '../helpers/until.ts';
import { createRig, settle } from './rig.ts';

test('after two hundred tasks of every fate nothing is left: no flight, lease, timer, reader or corpse', async (t) => {
  const rig = createRig({ slots: 3 });
  await rig.ready();
  const before = rig.clock.pending;
  const ids: string[] = [];
  for (let task = 0; task < 200; task++) {
    const { task_id } = await rig.submit({ priority: task % 3 ? 'interactive' : 'batch' });
    ids.push(task_id);
    const run = rig.engine.live[task % 3];
    run?.token(task % 4);
    if (task % 5 === 0) await rig.orchestrator.cancel(task_id);
    else if (task % 7 === 0) run?.fail();
    else if (task % 50 === 49) {
      rig.engine.crash();
      await until(() => rig.pool.snapshot.value === 'starting');
      await until(() => {
        rig.clock.advance(100);
        return rig.pool.snapshot.hasTag('ready');
      });
    } else run?.finish();
    await settle();
  }
  while (rig.engine.live.length > 0) {
    for (const run of rig.engine.live) run.finish();
    await settle();
  }
  for (const id of ids) {
    t.true(['ended', 'error'].includes(rig.record(id).state));
    t.true(['end', 'error'].includes((await rig.log(id)).at(-1)?.type ?? 'none'));
  }
  t.is(rig.orchestrator.tasks.inFlight, 0);
  t.is(rig.pool.leases, 0);
  t.is(rig.pool.snapshot.context.leases, 0);
  t.is(rig.pool.queue_depth, 0);
  // One timer for the session that came into being.
  t.true(rig.clock.pending <= before + 1);
  t.deepEqual(rig.engine.shouts, []);
  t.deepEqual(
    rig.observations.filter(({ type }) => type === 'child.crashed'),
    [],
  );
  await rig.close();
  t.is(rig.clock.pending, 0);
});

test('exactly one of the two ends of a link is called, once, and a crash goes nowhere else', async (t) => {
  const machine = setup({
    types: { events: {} as { type: 'finish' } | { type: 'crash' } },
    actions: {
      crash() {
        throw new Error('a bug');
      },
    },
  }).createMachine({
    initial: 'open',
    states: { open: { on: { finish: 'over', crash: { actions: 'crash' } } }, over: { type: 'final' } },
  });
  for (const type of ['finish', 'crash'] as const) {
    const told: string[] = [];
    const actor = createActor(machine);
    link(actor, {
      completed: () => told.push('completed'),
      crashed: (error) => told.push(`crashed: ${String(error)}`),
    });
    actor.start();
    actor.send({ type });
    t.deepEqual(told, [type === 'finish' ? 'completed' : 'crashed: Error: a bug']);
  }
  await settle();
});

test('the table’s restart budget is the configuration’s default', (t) => {
  const { supervision } = loadConfig({});
  const { budget } = SUPERVISION.replica;
  t.like(supervision, {
    initial_ms: budget.initial_ms,
    factor: budget.factor,
    max_ms: budget.max_ms,
    jitter: budget.jitter,
    stable_s: budget.stable_ms / 1000,
    breaker_threshold: budget.breaker_threshold,
    breaker_open_s: budget.breaker_open_ms / 1000,
    trial_stable_s: budget.trial_stable_ms / 1000,
    max_restarts: budget.max_restarts,
    window_s: budget.window_ms / 1000,
  });
});

test('a replica is restarted as often as the table says, then its breaker opens and its pool is unready', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  const { breaker_threshold, initial_ms, factor } = SUPERVISION.replica.budget;
  for (let restart = 0; restart < breaker_threshold - 1; restart++) {
    rig.engine.crash();
    await until(() => rig.pool.replicas[0]?.snapshot.value === 'backing off');
    t.is(rig.pool.replicas[0]?.snapshot.context.backoff_ms, initial_ms * factor ** restart);
    rig.clock.advance(initial_ms * factor ** restart);
    await rig.ready();
  }
  rig.engine.crash();
  await until(() => rig.pool.snapshot.value === 'unready');
  t.is(rig.engine.loadCalls, breaker_threshold);
});

test('an open breaker lets one trial through in time, which brings the pool back', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  const { breaker_threshold, breaker_open_ms, trial_stable_ms, max_ms } = SUPERVISION.replica.budget;
  const crash = async (times: number): Promise<void> => {
    for (let restart = 1; restart <= times; restart++) {
      rig.engine.crash();
      if (restart === times) return until(() => rig.pool.snapshot.value === 'unready');
      await until(() => rig.pool.replicas[0]?.snapshot.value === 'backing off');
      rig.clock.advance(max_ms);
      await rig.ready();
    }
  };
  await crash(breaker_threshold);
  rig.clock.advance(breaker_open_ms - 1);
  await settle();
  t.is(rig.pool.snapshot.value, 'unready');
  rig.clock.advance(1);
  await rig.ready();
  // The trial fails: the breaker stays open for twice as long.
  await crash(1);
  rig.clock.advance(2 * breaker_open_ms - 1);
  await settle();
  t.is(rig.pool.snapshot.value, 'unready');
  rig.clock.advance(1);
  await rig.ready();
  rig.clock.advance(trial_stable_ms);
  await crash(breaker_threshold);
});

test('the failures of an engine that has worked long enough since are forgiven', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  const { breaker_threshold, initial_ms, stable_ms } = SUPERVISION.replica.budget;
  for (let restart = 0; restart <= breaker_threshold; restart++) {
    rig.clock.advance(stable_ms);
    await until(() => rig.pool.replicas[0]?.snapshot.matches({ ready: { health: 'serving' } }));
    rig.engine.crash();
    await until(() => rig.pool.replicas[0]?.snapshot.value === 'backing off');
    rig.clock.advance(initial_ms);
    await rig.ready();
  }
  t.is(rig.pool.replicas[0]?.snapshot.context.history.failures, 1);
});

test('a stop goes in the reverse order of the start: tasks, then replicas, pools and the orchestrator', async (t) => {
  const rig = createRig();
  await rig.ready();
  const id = (await rig.submit()).task_id;
  (await rig.runOf(id)).token();
  rig.observations.length = 0;
  await rig.close();
  const order = rig.observations.flatMap((told) => {
    if (told.type === 'task.closed') return ['task'];
    if (told.type === 'replica.moved' && told.to === 'stopped') return ['replica'];
    if (told.type === 'pool.moved' && told.to === 'stopped') return ['pool'];
    return [];
  });
  t.deepEqual(order, ['task', 'replica', 'pool']);
  t.is(rig.orchestrator.state, 'closed');
});
