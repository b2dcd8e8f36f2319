import test from 'ava';
import type { StoredTask } from '../../src/actors/task-facts.ts';
import type { TaskRequest } from '../../src/contract/generated/types.ts';
import { digestOf, withoutTexts } from '../../src/contract/request-digest.ts';
import { TaskchartError } from '../../src/errors.ts';
import { request } from '../helpers/server.ts';
import { SimulatedClock } from '../helpers/simulated-clock.ts';
import {
  DOWN_MS,
  END,
  EPOCH,
  idOf,
  METRICS,
  over,
  put,
  Disk,
  restart,
  STARTED,
  stored,
  token,
} from './kept.ts';
import { settle, typesOf } from './rig.ts';

test('a queued task waits again, with the admission it was told, and runs', async (t) => {
  const disk = new Disk();
  put(disk, stored(1));
  const rig = restart(disk);
  t.teardown(rig.close);
  await rig.orchestrator.recovered;
  t.deepEqual(
    rig.observations.filter(({ type }) => type === 'store.recovered'),
    [{ type: 'store.recovered', finished: 0, unfinished: 1 }],
  );
  const run = await rig.runOf(idOf(1));
  t.like(run.call, { seed: 1, max_tokens: 8, input: { text: request.prompt } });
  run.token(2);
  run.finish();
  const log = await over(rig, 1);
  t.deepEqual(
    typesOf(log).filter((type) => type !== 'metrics'),
    ['started', 'token', 'token', 'end'],
  );
  t.like(log[0]?.data, { queue_position: 3, predicted_start_ms: 420, seed: 1, correlation_id: 'c' });
  t.false(
    rig.observations.some(({ type }) => type === 'task.admitted'),
    'it was admitted before',
  );
});

test('a task that waited for its engine goes on in a log that has begun', async (t) => {
  const disk = new Disk();
  put(disk, stored(1));
  disk.append(idOf(1), STARTED, METRICS);
  const rig = restart(disk);
  t.teardown(rig.close);
  const run = await rig.runOf(idOf(1));
  run.token();
  run.finish();
  const log = await over(rig, 1);
  t.deepEqual(typesOf(log), ['started', 'metrics', 'token', 'metrics', 'end']);
  t.false(
    log.some(({ data }) => 'resumed' in data),
    'no run was lost',
  );
});

for (const how of ['replay', 'resume', 'neither'] as const)
  test(`a task that had written tokens goes on with the next one, where the engine can ${how}`, async (t) => {
    const disk = new Disk();
    put(disk, stored(1));
    disk.append(idOf(1), STARTED, token(0), METRICS, token(1));
    const rig = restart(disk, {
      engine: (engine) => (engine.features = { deterministic: how === 'replay', resume: how === 'resume' }),
    });
    t.teardown(rig.close);
    await rig.orchestrator.recovered;
    if (how === 'neither') {
      const log = await over(rig, 1);
      t.deepEqual(typesOf(log), ['started', 'token', 'metrics', 'token', 'error']);
      t.like(log.at(-1)?.data, { code: 'WORKER_RESET', retriable: true });
      t.is(rig.engine.calls.length, 0);
      t.is(rig.pool.leases, 0);
      return;
    }
    const run = await rig.runOf(idOf(1));
    if (how === 'resume') t.like(run.call, { resume: { text: ' s0 s1', tokens_out: 2 }, max_tokens: 6 });
    run.token(how === 'resume' ? 1 : 3);
    rig.clock.advance(250);
    run.finish();
    const log = await over(rig, 1);
    t.is(log.map((event) => (event.type === 'token' ? event.data.t : '')).join(''), ' s0 s1 s2');
    t.deepEqual(
      log.map(({ id }) => id),
      log.map((_, id) => id),
    );
    const resumed = log.findIndex(({ data }) => 'resumed' in data);
    t.is(resumed, 4);
    t.like(
      log.at(-1),
      { type: 'end', data: { tokens_out: 3, decode_ms: 250 } },
      'the time down is not decoding',
    );
  });

test('a task that goes on after a restart has its times in order, and counts what it decoded before', async (t) => {
  const disk = new Disk();
  put(disk, stored(1));
  disk.append(idOf(1), STARTED, token(0), METRICS, token(1));
  // Ten seconds of decoding, then the process was gone until half a minute after the admission.
  disk.times = [
    { from: 1, at_ms: EPOCH + 5000 },
    { from: 3, at_ms: EPOCH + 15_000 },
  ];
  const rig = restart(disk, {
    clock: new SimulatedClock(EPOCH + 30_000),
    engine: (engine) => (engine.features = { resume: true }),
  });
  t.teardown(rig.close);
  await rig.orchestrator.recovered;
  const run = await rig.runOf(idOf(1));
  run.token(1);
  rig.clock.advance(250);
  run.finish();
  t.like((await over(rig, 1)).at(-1), { type: 'end', data: { tokens_out: 3, decode_ms: 10_250 } });
  const { admitted, placed = 0, first_token = 0, ended = 0 } = rig.record(idOf(1)).context.times;
  t.is(first_token - admitted, 5000 + EPOCH - stored(1).admitted_wall_ms);
  t.true(admitted <= placed && placed <= first_token && first_token <= ended);
  t.true(rig.record(idOf(1)).is_restored);
});

test('a log that says over is right where the store has not heard of it, and its session is charged', async (t) => {
  const disk = new Disk();
  disk.put([
    {
      key: 'session/s1',
      data: { turns: 1, running: 1, spent: { tokens: 10, time_ms: 0, cost: 0 }, last_seen_wall_ms: EPOCH },
    },
  ]);
  put(disk, stored(1), stored(2, { session_id: 's2' }));
  disk.append(idOf(1), STARTED, token(0), METRICS, token(1), METRICS, END);
  disk.append(idOf(2), STARTED, token(0), {
    type: 'error',
    data: { code: 'WORKER_RESET', message: 'it broke', retriable: true },
  });
  const rig = restart(disk, {
    settings: {
      sessions: {
        ttl_ms: 600_000,
        max_turns: null,
        budgets: { tokens: 100, time_ms: 1000, cost: null },
        cost_per_output_token: 0,
      },
    },
  });
  t.teardown(rig.close);
  await rig.orchestrator.recovered;
  await settle();
  t.is(rig.engine.calls.length, 0);
  t.like(rig.record(idOf(1)), { state: 'ended', digest: digestOf(stored(1).request) });
  t.is(rig.record(idOf(1)).request.prompt, undefined);
  t.like(rig.record(idOf(1)).context, {
    outcome: { kind: 'finished', reason: 'eos' },
    usage: { tokens_in: 4, tokens_out: 2 },
  });
  t.like(rig.record(idOf(2)), { state: 'error' });
  t.like(rig.orchestrator.sessions.info('s1'), {
    turns: 1,
    tokens_budget_remaining: 88,
    time_budget_remaining_ms: 700,
  });
  t.is(rig.orchestrator.sessions.info('s2').tokens_budget_remaining, 99);
  const facts = await disk.facts();
  t.like(facts.get(`task/${idOf(1)}`), { over: { outcome: { kind: 'finished', reason: 'eos' } } });
  t.false(JSON.stringify(facts.get(`task/${idOf(1)}`)).includes(request.prompt as string));
  t.like(facts.get('session/s1'), { spent: { tokens: 12, time_ms: 300 }, running: 0 });
  t.is(typesOf(await rig.log(idOf(1))).filter((type) => type === 'end').length, 1);
});

test('a finished task is read as before: its state, its usage, its log, and whether a body is the same', async (t) => {
  const disk = new Disk();
  const first = restart(disk);
  const id = idOf(1);
  await first.submit({ task_id: id });
  const run = await first.runOf(id);
  first.clock.advance(70);
  run.token(2);
  first.clock.advance(30);
  run.finish();
  const log = await over(first, 1);
  const { context, request: kept } = first.record(id);
  await first.close();
  const rig = restart(disk, { clock: new SimulatedClock(EPOCH + DOWN_MS) });
  t.teardown(rig.close);
  await rig.orchestrator.recovered;
  const record = rig.record(id);
  t.is(record.state, 'ended');
  t.deepEqual(record.context.usage, context.usage);
  t.deepEqual(record.context.outcome, context.outcome);
  t.deepEqual(record.request, kept);
  const { times } = record.context;
  t.deepEqual(
    [times.placed, times.first_token, times.ended].map((at) => (at as number) - times.admitted),
    [context.times.placed, context.times.first_token, context.times.ended].map(
      (at) => (at as number) - context.times.admitted,
    ),
  );
  t.deepEqual(await rig.log(id), log);
  t.like(await rig.submit({ task_id: id }), { task_id: id });
  await t.throwsAsync(rig.submit({ task_id: id, prompt: 'another' }), { instanceOf: TaskchartError });
  t.is(rig.engine.calls.length, 0);
});

test('a task whose pool is gone goes to another one of its model, and is told where there is none', async (t) => {
  const disk = new Disk();
  put(
    disk,
    stored(1, { pool_id: 'gone' }),
    stored(2, { pool_id: 'gone' }, { model_ref: 'another model' }),
    stored(3, { pool_id: 'scripted' }, { model_ref: 'another model' }),
    stored(4, { pool_id: 'other' }, {}),
  );
  const rig = restart(disk, { slots: 3, others: [{ id: 'other', model: 'new model' }] });
  t.teardown(rig.close);
  await rig.orchestrator.recovered;
  t.is(rig.record(idOf(1)).pool_id, 'scripted');
  t.is(rig.record(idOf(4)).pool_id, 'scripted', 'its pool serves another model now');
  for (const n of [2, 3])
    t.like((await over(rig, n)).at(-1), {
      type: 'error',
      data: {
        code: 'POOL_UNAVAILABLE',
        message: 'no pool of this server serves the model of this task any more',
      },
    });
  for (const n of [1, 4]) (await rig.runOf(idOf(n))).finish();
  t.is((await over(rig, 4)).at(-1)?.type, 'end');
});

test('a task whose deadline passed while nobody ran is told so, and never reaches an engine', async (t) => {
  const disk = new Disk();
  put(disk, stored(1, {}, { deadline_ms: DOWN_MS - 1 }), stored(2, {}, { deadline_ms: DOWN_MS + 5000 }));
  const rig = restart(disk, { preload: false, engine: (engine) => (engine.loads = 'held') });
  t.teardown(rig.close);
  await rig.orchestrator.recovered;
  rig.clock.advance(100);
  t.like((await over(rig, 1)).at(-1), { type: 'error', data: { code: 'DEADLINE_UNMET' } });
  t.is(rig.record(idOf(2)).state, 'provisioning');
  rig.clock.advance(4900);
  t.is(rig.record(idOf(2)).state, 'error', 'the rest of its time goes on');
});

test('unfinished tasks reserve in their sessions again, and count no turn', async (t) => {
  const disk = new Disk();
  disk.put([
    {
      key: 'session/a',
      data: { turns: 7, running: 2, spent: { tokens: 10, time_ms: 0, cost: 0 }, last_seen_wall_ms: 0 },
    },
  ]);
  put(disk, stored(1, { session_id: 'a' }), stored(2, { session_id: 'a' }));
  const rig = restart(disk, {
    settings: {
      sessions: {
        ttl_ms: 600_000,
        max_turns: null,
        budgets: { tokens: 100, time_ms: null, cost: null },
        cost_per_output_token: 0,
      },
    },
  });
  t.teardown(rig.close);
  await rig.orchestrator.recovered;
  t.like(rig.orchestrator.sessions.info('a'), { turns: 7, tokens_budget_remaining: 74 });
  for (const n of [1, 2]) {
    const run = await rig.runOf(idOf(n));
    run.token(3);
    run.finish();
    await over(rig, n);
  }
  t.like(rig.orchestrator.sessions.info('a'), { turns: 7, tokens_budget_remaining: 84 });
});

test('an Idempotency-Key stands for its task as long as it would have, also one that was used twice', async (t) => {
  const disk = new Disk();
  const fresh = (n: number, posted: Partial<StoredTask>): StoredTask => {
    const task = stored(n, posted);
    const { task_id: _id, ...body } = task.request as TaskRequest & { task_id?: string };
    return { ...task, request: body as TaskRequest };
  };
  put(
    disk,
    fresh(1, { idempotency_key: 'twice', admitted_wall_ms: EPOCH - 700_000 }),
    fresh(2, { idempotency_key: 'old', admitted_wall_ms: EPOCH - 650_000 }),
    fresh(3, { idempotency_key: 'young', admitted_wall_ms: EPOCH - 500_000 }),
    fresh(4, { idempotency_key: 'twice', admitted_wall_ms: EPOCH - 10_000 }),
  );
  const rig = restart(disk, { slots: 10 });
  t.teardown(rig.close);
  await rig.orchestrator.recovered;
  const post = async (idempotency_key: string): Promise<string> =>
    (await rig.orchestrator.submit(request, { correlation_id: 'c', idempotency_key })).task_id;
  t.is(await post('twice'), idOf(4));
  t.is(await post('young'), idOf(3));
  t.not(await post('old'), idOf(2));
});

test('20,000 tasks come back in the order of their admission, and others have their turn meanwhile', async (t) => {
  const disk = new Disk();
  const count = 20_000;
  put(
    disk,
    ...Array.from({ length: count }, (_, n) =>
      stored(n + 1, {}, { priority: n % 3 === 0 ? 'batch' : 'interactive' }),
    ),
  );
  const rig = restart(disk, {
    capacity: count,
    preload: false,
    engine: (engine) => (engine.loads = 'held'),
  });
  t.teardown(rig.close);
  let turns = 0;
  const turn = (): void => {
    turns++;
    if (rig.orchestrator.isRecovering) setImmediate(turn);
  };
  setImmediate(turn);
  await rig.orchestrator.recovered;
  t.true(turns >= 5, `${turns} turns`);
  t.is(rig.pool.queue_depth, count);
  for (const priority of ['interactive', 'batch'] as const) {
    const waiting = rig.pool.queue
      .take(count)
      .filter((record) => record.priority === priority)
      .map(({ sequence }) => sequence);
    t.deepEqual(
      waiting,
      waiting.toSorted((a, b) => a - b),
    );
  }
  t.is(rig.orchestrator.registry.nextSequence(), count + 1);
});

test('a finished task whose retention has passed while nobody ran is forgotten, with its log', async (t) => {
  const disk = new Disk();
  const end = (n: number, ended: number): StoredTask => ({
    ...stored(n, { admitted_wall_ms: EPOCH - 100_000 }),
    request: withoutTexts(stored(n).request),
    over: {
      outcome: { kind: 'finished', reason: 'eos' },
      usage: { tokens_in: 1, tokens_cached: 0, tokens_out: 1 },
      times: { ended },
      digest: 'd',
    },
  });
  put(disk, end(1, 10_000), end(2, 60_000));
  for (const n of [1, 2]) disk.append(idOf(n), STARTED, END);
  const rig = restart(disk, { settings: { retained_ms: 50_000 } });
  t.teardown(rig.close);
  await rig.orchestrator.recovered;
  t.is(rig.orchestrator.record(idOf(1)), undefined);
  t.truthy(rig.orchestrator.record(idOf(2)));
  t.deepEqual(await rig.log(idOf(1)), []);
  t.deepEqual([...(await disk.facts()).keys()], [`task/${idOf(2)}`]);
  rig.clock.advance(10_000);
  t.is(rig.orchestrator.record(idOf(2)), undefined);
});
