import test from 'ava';
import { Deadlines } from '../../src/actors/deadlines.ts';
import { TaskchartError, type Failure } from '../../src/errors.ts';
import { SimulatedClock } from '../helpers/simulated-clock.ts';
import { until } from '../helpers/until.ts';
import { createRig, settle, typesOf, type Rig } from './rig.ts';

async function refusalOf(answer: Promise<unknown>): Promise<Failure | undefined> {
  return answer.then(
    () => undefined,
    (error: unknown) => {
      if (error instanceof TaskchartError) return error.failure;
      throw error;
    },
  );
}

/** Runs a task whole: its first token and each further one take these milliseconds. */
async function serve(
  rig: Rig,
  id: string,
  first_ms: number,
  token_ms: number,
  tokens: number,
): Promise<void> {
  const run = await rig.runOf(id);
  rig.clock.advance(first_ms);
  run.token();
  for (let token = 1; token < tokens; token++) {
    rig.clock.advance(token_ms);
    run.token();
  }
  run.finish();
  await until(() => rig.record(id).state === 'ended');
}

test('queued tasks expire at their deadlines, by one timer for all of them, and none is left', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  await rig.submit();
  await settle();
  const before = rig.clock.pending;
  const ids: string[] = [];
  for (const deadline_ms of [50_000, 20_000, 30_000, 20_000])
    ids.push((await rig.submit({ deadline_ms })).task_id);
  t.is(rig.clock.pending, before + 1);
  const states = (): string[] => ids.map((id) => rig.record(id).state);
  rig.clock.advance(19_999);
  t.deepEqual(states(), ['admitted', 'admitted', 'admitted', 'admitted']);
  rig.clock.advance(1);
  t.deepEqual(states(), ['admitted', 'error', 'admitted', 'error']);
  rig.clock.advance(10_000);
  t.deepEqual(states(), ['admitted', 'error', 'error', 'error']);
  await rig.orchestrator.cancel(ids[0] as string);
  // The one of their sessions, which are idle now, has come meanwhile.
  await until(() => rig.clock.pending === before + 1);
  const expired = await rig.log(ids[1] as string);
  t.deepEqual(typesOf(expired), ['started', 'error']);
  t.like(expired.at(-1), {
    data: { code: 'DEADLINE_UNMET', message: 'the deadline of 20000 ms has passed', engine: 'synthetic' },
  });
  t.is(rig.pool.queue_depth, 0);
});

test('nobody is told early, and nobody much too late, whenever they came', (t) => {
  const clock = new SimulatedClock();
  const told: { late: number }[] = [];
  const deadlines = new Deadlines<{ due_at: number }>(clock, ({ due_at }, at) =>
    told.push({ late: at - due_at }),
  );
  for (let item = 0; item < 500; item++) {
    deadlines.add({ due_at: clock.now() + ((item * 7919) % 1000) });
    clock.advance(3);
    t.true(clock.pending <= 1);
  }
  clock.advance(2000);
  t.is(told.length, 500);
  for (const { late } of told) t.true(late >= 0 && late <= 100);
  t.is(clock.pending, 0);
});

test('one that leaves before its time, or from the callback of another, is not told of', (t) => {
  const clock = new SimulatedClock();
  const told: string[] = [];
  const [a, b, c] = ['a', 'b', 'c'].map((name) => ({ name, due_at: name === 'c' ? 500 : 100 })) as [
    Named,
    Named,
    Named,
  ];
  const deadlines: Deadlines<Named> = new Deadlines<Named>(clock, ({ name }) => {
    told.push(name);
    deadlines.remove(c);
  });
  for (const item of [a, b, c]) deadlines.add(item);
  deadlines.remove(b);
  clock.advance(1000);
  t.deepEqual(told, ['a']);
  t.is(clock.pending, 0);
});

interface Named {
  name: string;
  due_at: number;
}

test('a deadline that has passed is seen when a slot comes free, even before its timer', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  const running = (await rig.submit()).task_id;
  const late = (await rig.submit({ deadline_ms: 10_010 })).task_id;
  const next = (await rig.submit()).task_id;
  rig.clock.advance(10_050);
  t.is(rig.record(late).state, 'admitted', 'its timer comes at the end of its tenth of a second');
  (await rig.runOf(running)).finish();
  await until(() => rig.record(next).state === 'placed');
  t.is(rig.record(late).state, 'error');
  t.like(rig.record(late).context.outcome, { overdue: 'deadline' });
  t.is(rig.engine.runs.length, 2, 'it never reached the engine');
});

test('those behind one that has expired get each one slot when several come free', async (t) => {
  const rig = createRig({ slots: 3, preload: false, engine: (engine) => (engine.loads = 'held') });
  t.teardown(rig.close);
  const late = (await rig.submit({ deadline_ms: 10_010 })).task_id;
  const ids: string[] = [];
  for (let task = 0; task < 4; task++) ids.push((await rig.submit()).task_id);
  await until(() => rig.pool.snapshot.value === 'starting' && rig.engine.loadCalls === 1);
  await settle();
  rig.clock.advance(10_050);
  rig.engine.loaded();
  await until(() => rig.engine.runs.length === 3);
  await settle();
  t.is(rig.record(late).state, 'error');
  t.is(rig.pool.leases, 3);
  t.deepEqual(
    rig.engine.runs.map(({ call }) => call.task_id),
    ids.slice(0, 3),
  );
  t.deepEqual(rig.engine.shouts, []);
  for (const run of rig.engine.live) run.finish();
  (await rig.runOf(ids[3] as string)).finish();
  await until(() => rig.pool.leases === 0);
});

test('a deadline that passes in flight ends the run, frees its slot and is no cancel', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  const id = (await rig.submit({ deadline_ms: 5000 })).task_id;
  const next = (await rig.submit()).task_id;
  const run = await rig.runOf(id);
  run.token(3);
  rig.clock.advance(5000);
  t.is(rig.record(id).state, 'error');
  t.true(run.isAborted);
  t.like((await rig.log(id)).at(-1), { type: 'error', data: { code: 'DEADLINE_UNMET', retriable: false } });
  t.is(rig.record(id).context.usage.tokens_out, 3);
  await until(() => rig.record(next).state === 'placed');
});

test('an engine that falls silent is given up, and its slot is free once it has let go', async (t) => {
  const rig = createRig({ rules: { idle_ms: 5000, first_token_ms: 20_000 } });
  t.teardown(rig.close);
  await rig.ready();
  const id = (await rig.submit()).task_id;
  const next = (await rig.submit()).task_id;
  const run = await rig.runOf(id);
  for (let time = 0; time < 5; time++) {
    rig.clock.advance(19_999);
    run.progress();
  }
  t.is(rig.record(id).state, 'placed', 'a prefill that tells its progress is alive');
  run.token(2);
  rig.clock.advance(4999);
  run.token();
  rig.clock.advance(4999);
  t.is(rig.record(id).state, 'streaming');
  rig.clock.advance(1);
  t.is(rig.record(id).state, 'error');
  t.like((await rig.log(id)).at(-1), { type: 'error', data: { code: 'DECODE_TIMEOUT', retriable: true } });
  t.like(rig.record(id).context.outcome, { overdue: 'idle' });
  await until(() => rig.record(next).state === 'placed');
  rig.clock.advance(20_000);
  t.like(rig.record(next).context.outcome, { overdue: 'first token' });
});

test('a deadline of 0 is refused before anything else is asked', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  for (const deadline_ms of [0, -1]) {
    const refusal = await refusalOf(rig.submit({ deadline_ms, model_ref: 'nobody has it' }));
    t.like(refusal, { code: 'DEADLINE_UNMET', engine: 'synthetic' });
    t.regex(refusal?.message ?? '', /^deadline_ms: must be above 0/);
  }
});

test('a deadline that the measured speed cannot keep is refused, with the time it would take', async (t) => {
  const rig = createRig({ slots: 2 });
  t.teardown(rig.close);
  await rig.ready();
  await serve(rig, (await rig.submit()).task_id, 200, 20, 11);
  const beside = await rig.submit({ expected_tokens: 200, max_tokens: 200 });
  const end = await refusalOf(rig.submit({ expected_tokens: 100, max_tokens: 100, deadline_ms: 2199 }));
  t.like(end, { code: 'DEADLINE_UNMET', pool_id: 'scripted' });
  t.regex(end?.message ?? '', /would end in 2200 ms at the earliest, after its deadline of 2199 ms/);
  const running = await rig.submit({ expected_tokens: 100, max_tokens: 100, deadline_ms: 2200 });
  const start = await refusalOf(rig.submit({ deadline_ms: 2199 }));
  t.regex(start?.message ?? '', /would start in 2200 ms, after its deadline of 2199 ms/);
  for (const { task_id } of [beside, running]) await rig.orchestrator.cancel(task_id);
});

test('an idle pool that was slow once still takes short deadlines, and finds out how fast it is now', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  await serve(rig, (await rig.submit()).task_id, 5000, 20, 11);
  await until(() => rig.pool.leases === 0);
  await serve(rig, (await rig.submit({ deadline_ms: 4000 })).task_id, 50, 20, 11);
  const running = await rig.submit({ deadline_ms: 4000, expected_tokens: 11 });
  const waiting = await rig.submit({ deadline_ms: 600_000, expected_tokens: 11 });
  t.is(rig.record(waiting.task_id).state, 'admitted');
  for (const { task_id } of [running, waiting]) await rig.orchestrator.cancel(task_id);
});

test('where the engine is as fast as ever, tasks start when they were told', async (t) => {
  for (const slots of [1, 2]) {
    const rig = createRig({ slots });
    t.teardown(rig.close);
    await rig.ready();
    const SERVICE_MS = 200 + 10 * 20;
    await serve(rig, (await rig.submit({ expected_tokens: 11 })).task_id, 200, 20, 11);
    const told = new Map<string, { at: number; predicted: number }>();
    const started = new Map<string, number>();
    rig.orchestrator.observers.add((seen) => {
      if (seen.type === 'task.moved' && seen.to === 'placed') started.set(seen.record.id, rig.clock.now());
    });
    for (let now = 0; started.size < 30; now += 20) {
      if (now % 160 === 0 && told.size < 30) {
        const { task_id, predicted_start_ms } = await rig.submit({ expected_tokens: 11, max_tokens: 11 });
        told.set(task_id, { at: rig.clock.now(), predicted: predicted_start_ms });
      }
      await settle();
      rig.clock.advance(20);
      for (const run of rig.engine.live) {
        const elapsed = rig.clock.now() - (started.get(run.call.task_id) as number);
        if (elapsed >= 200) run.token();
        if (elapsed >= SERVICE_MS) run.finish();
      }
      await settle();
    }
    for (const [id, { at, predicted }] of told) {
      const waited = (started.get(id) as number) - at;
      const error = at + predicted - (started.get(id) as number);
      const allowed = 40 + 0.06 * waited + (slots === 1 ? 0 : SERVICE_MS / 4);
      t.true(Math.abs(error) <= allowed, `${slots} slots: off by ${error} ms after ${waited} ms`);
    }
  }
});

test('a task that waits is told a start that comes nearer, and none in the past', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  await serve(rig, (await rig.submit()).task_id, 100, 10, 11);
  await rig.submit({ expected_tokens: 10, max_tokens: 10 });
  const { task_id } = await rig.submit();
  let last = rig.orchestrator.place(rig.record(task_id)).predicted_start_ms;
  t.is(last, 200);
  for (let step = 0; step < 30; step++) {
    rig.clock.advance(20);
    const { predicted_start_ms } = rig.orchestrator.place(rig.record(task_id));
    t.true(predicted_start_ms <= last && predicted_start_ms >= 0);
    last = predicted_start_ms;
  }
  t.is(last, 0);
});

test('a pool that is not up yet adds what is left of its load to the start', async (t) => {
  const rig = createRig({ preload: false, engine: (engine) => (engine.loads = 'held') });
  t.teardown(rig.close);
  const first = await rig.submit();
  t.is(first.predicted_start_ms, 1000, 'a guess, before any load was measured');
  await until(() => rig.pool.snapshot.value === 'starting' && rig.engine.loadCalls === 1);
  rig.clock.advance(400);
  t.is(rig.orchestrator.place(rig.record(first.task_id)).predicted_start_ms, 600);
  rig.clock.advance(2600);
  t.is(rig.orchestrator.place(rig.record(first.task_id)).predicted_start_ms, 250);
  await settle();
  rig.engine.loaded();
  (await rig.runOf(first.task_id)).finish();
  await until(() => rig.record(first.task_id).state === 'ended');
  rig.engine.loads = 'at once';
  rig.engine.crash();
  await until(() => rig.pool.replicas[0]?.snapshot.value === 'backing off');
  t.is((await rig.submit()).predicted_start_ms, 4000, 'its wait, and as long as the last load took');
});
