import test from 'ava';
import { TaskchartError, type Failure } from '../../src/errors.ts';
import { MemoryStore } from '../../src/store/memory-store.ts';
import type { Commit, CommitResult, Store } from '../../src/store/store.ts';
import { until } from '../helpers/until.ts';
import { createRig, settle, type Rig, type RigOptions } from './rig.ts';

/** A pool whose only slot is taken. */
async function busyRig(options: RigOptions): Promise<Rig> {
  const rig = createRig(options);
  await rig.ready();
  await rig.submit();
  return rig;
}

async function refusalOf(answer: Promise<unknown>): Promise<Failure | undefined> {
  return answer.then(
    () => undefined,
    (error: unknown) => {
      if (error instanceof TaskchartError) return error.failure;
      throw error;
    },
  );
}

function told(rig: Rig, type: string): string[] {
  return rig.observations.flatMap((seen) => (seen.type === type && 'record' in seen ? [seen.record.id] : []));
}

const submit = async (rig: Rig, fields?: Parameters<Rig['submit']>[0]): Promise<string> =>
  (await rig.submit(fields)).task_id;

test('drop-lru: the batch task that has waited longest makes room, and its readers are told why', async (t) => {
  const rig = await busyRig({ capacity: 3, queue: { policy: 'drop-lru' } });
  t.teardown(rig.close);
  const [oldest, other] = [
    await submit(rig, { priority: 'batch' }),
    await submit(rig, { priority: 'batch' }),
  ];
  const first = await submit(rig);
  const newcomer = await submit(rig);
  t.is(rig.record(oldest).state, 'error');
  t.like((await rig.log(oldest)).at(-1), {
    type: 'error',
    data: {
      code: 'QUEUE_FULL_DROP_LRU',
      policy_label: 'drop-lru',
      retriable: true,
      pool_id: 'scripted',
      engine: 'synthetic',
    },
  });
  t.true((rig.record(oldest).context.outcome as { failure: Failure }).failure.retry_after_ms! >= 250);
  for (const id of [other, first, newcomer]) t.is(rig.record(id).state, 'admitted');
  t.deepEqual(told(rig, 'task.dropped'), [oldest]);
  t.is(rig.pool.queue_depth, 3);
});

test('drop-lru: without batch tasks the oldest interactive one goes; a batch newcomer is worth less than they', async (t) => {
  const rig = await busyRig({ capacity: 2, queue: { policy: 'drop-lru' } });
  t.teardown(rig.close);
  const [oldest, other] = [await submit(rig), await submit(rig)];
  t.like(await refusalOf(rig.submit({ priority: 'batch' })), {
    code: 'QUEUE_FULL_DROP_LRU',
    policy_label: 'drop-lru',
  });
  t.deepEqual(told(rig, 'task.dropped'), []);
  const newcomer = await submit(rig);
  t.is(rig.record(oldest).state, 'error');
  for (const id of [other, newcomer]) t.is(rig.record(id).state, 'admitted');
});

test('shed-low-priority: the newest batch task makes room for an interactive one, and for nobody else', async (t) => {
  const rig = await busyRig({ capacity: 2, queue: { policy: 'shed-low-priority' } });
  t.teardown(rig.close);
  const [older, newest] = [
    await submit(rig, { priority: 'batch' }),
    await submit(rig, { priority: 'batch' }),
  ];
  t.like(await refusalOf(rig.submit({ priority: 'batch' })), {
    code: 'ADMISSION_REJECT',
    policy_label: 'shed-low-priority',
  });
  const newcomer = await submit(rig);
  t.like((await rig.log(newest)).at(-1), {
    type: 'error',
    data: { code: 'ADMISSION_REJECT', policy_label: 'shed-low-priority' },
  });
  await submit(rig);
  t.is(rig.record(older).state, 'error');
  t.like(await refusalOf(rig.submit()), { code: 'ADMISSION_REJECT', policy_label: 'shed-low-priority' });
  t.is(rig.record(newcomer).state, 'admitted');
  t.deepEqual(told(rig, 'task.dropped'), [newest, older]);
  t.deepEqual(told(rig, 'task.closed'), [newest, older]);
});

test('a running task is nobody’s victim', async (t) => {
  for (const policy of ['drop-lru', 'shed-low-priority'] as const) {
    const rig = await busyRig({ capacity: 1, queue: { policy } });
    t.teardown(rig.close);
    await rig.submit();
    await refusalOf(rig.submit());
    await refusalOf(rig.submit({ priority: 'batch' }));
    t.is(rig.engine.live.length, 1);
    t.false(rig.engine.live[0]?.isAborted);
  }
});

/** Commits only when told, and how it is told. */
class SlowStore implements Store {
  readonly isDurable = false;
  readonly #stored = new MemoryStore();
  isSlow = false;
  readonly waiting: ((result?: CommitResult) => void)[] = [];

  commit(commit: Commit): CommitResult | Promise<CommitResult> {
    if (!this.isSlow) return this.#stored.commit(commit);
    return new Promise((resolve) =>
      this.waiting.push((result) => resolve(result ?? this.#stored.commit(commit))),
    );
  }

  fold: Store['fold'] = () => this.#stored.fold();
  close: Store['close'] = () => this.#stored.close();
}

test('a task that was to make room keeps its place where the newcomer could not be stored', async (t) => {
  const store = new SlowStore();
  const rig = await busyRig({ capacity: 2, queue: { policy: 'drop-lru' }, ports: { store } });
  t.teardown(rig.close);
  const victim = await submit(rig, { priority: 'batch' });
  const behind = await submit(rig, { priority: 'batch' });
  store.isSlow = true;
  const refused = refusalOf(rig.submit());
  await settle();
  t.is(rig.record(victim).state, 'admitted');
  store.waiting[0]?.('unknown');
  t.like(await refused, { code: 'INTERNAL', retriable: true });
  store.isSlow = false;
  t.is(rig.record(victim).state, 'admitted');
  t.deepEqual(
    [victim, behind].map((id) => rig.pool.queue.positionOf(rig.record(id))),
    [0, 1],
  );
  t.deepEqual(told(rig, 'task.dropped'), []);
});

test('newcomers that are being stored at once each have a victim of their own, and the queue stays bounded', async (t) => {
  const store = new SlowStore();
  const rig = await busyRig({ capacity: 2, queue: { policy: 'shed-low-priority' }, ports: { store } });
  t.teardown(rig.close);
  const victims = [await submit(rig, { priority: 'batch' }), await submit(rig, { priority: 'batch' })];
  store.isSlow = true;
  const coming = [rig.submit(), rig.submit()];
  await settle();
  t.like(await refusalOf(rig.submit()), { code: 'ADMISSION_REJECT' });
  store.isSlow = false;
  for (const commit of store.waiting) commit();
  await Promise.all(coming);
  t.is(rig.pool.queue_depth, 2);
  t.deepEqual(told(rig, 'task.dropped').toSorted(), victims.toSorted());
});

test('a victim that is canceled while the newcomer is stored was canceled, not dropped', async (t) => {
  for (const result of [undefined, 'unknown'] as const) {
    const store = new SlowStore();
    const rig = await busyRig({ capacity: 1, queue: { policy: 'drop-lru' }, ports: { store } });
    t.teardown(rig.close);
    const victim = await submit(rig, { priority: 'batch' });
    store.isSlow = true;
    const coming = refusalOf(rig.submit());
    await settle();
    void rig.orchestrator.cancel(victim);
    store.isSlow = false;
    for (const commit of store.waiting) commit(result);
    await coming;
    t.is(rig.record(victim).context.outcome?.kind, 'canceled');
    t.deepEqual(told(rig, 'task.dropped'), []);
    t.deepEqual(told(rig, 'task.closed'), [victim]);
    t.is(rig.pool.queue_depth, result === undefined ? 1 : 0);
  }
});

test('a class that is full refuses its own, while the other one still has room', async (t) => {
  const rig = await busyRig({ capacity: 5, queue: { classes: { batch: { capacity: 1 } } } });
  t.teardown(rig.close);
  await rig.submit({ priority: 'batch' });
  const refusal = await refusalOf(rig.submit({ priority: 'batch' }));
  t.like(refusal, { code: 'ADMISSION_REJECT', policy_label: 'reject' });
  t.regex(refusal?.message ?? '', /\(1 tasks\)/);
  for (let task = 0; task < 4; task++) await t.notThrowsAsync(rig.submit());
  t.like(await refusalOf(rig.submit()), { code: 'ADMISSION_REJECT' });
});

test('weights share the slot between the classes while both wait', async (t) => {
  const rig = await busyRig({
    queue: { classes: { interactive: { weight: 2 }, batch: { weight: 1 } } },
  });
  t.teardown(rig.close);
  const names = new Map<string, string>();
  for (let i = 0; i < 4; i++) names.set(await submit(rig, { priority: 'batch' }), `b${i}`);
  for (let i = 0; i < 6; i++) names.set(await submit(rig), `i${i}`);
  while (rig.engine.runs.length < 11 || rig.engine.live.length > 0) {
    rig.engine.live[0]?.finish();
    await settle();
  }
  t.deepEqual(
    rig.engine.runs.slice(1).map((run) => names.get(run.call.task_id)),
    ['i0', 'i1', 'b0', 'i2', 'i3', 'b1', 'i4', 'i5', 'b2', 'b3'],
  );
});

test('positions are told in the order in which tasks will really run', async (t) => {
  const rig = await busyRig({
    queue: { classes: { interactive: { weight: 2 }, batch: { weight: 1 } } },
  });
  t.teardown(rig.close);
  const ids: string[] = [];
  for (const priority of ['batch', 'interactive', 'batch', 'interactive', 'interactive', 'batch'] as const)
    ids.push(await submit(rig, { priority }));
  const places = ids.toSorted(
    (a, b) =>
      rig.orchestrator.place(rig.record(a)).queue_position -
      rig.orchestrator.place(rig.record(b)).queue_position,
  );
  while (rig.engine.runs.length < 7) {
    rig.engine.live[0]?.finish();
    await settle();
  }
  t.deepEqual(
    rig.engine.runs.slice(1).map((run) => run.call.task_id),
    places,
  );
});

test('a class that comes too fast is told when to come again, and may come then', async (t) => {
  const rig = createRig({ slots: 100, spec: { rate_limit_rps: { interactive: 2 } } });
  t.teardown(rig.close);
  await rig.ready();
  await rig.submit();
  await rig.submit();
  const refusal = await refusalOf(rig.submit());
  t.like(refusal, {
    code: 'ADMISSION_REJECT',
    policy_label: 'rate-limit',
    pool_id: 'scripted',
    engine: 'synthetic',
    retry_after_ms: 500,
  });
  await t.notThrowsAsync(rig.submit({ priority: 'batch' }), 'the other class has no limit');
  rig.clock.advance(499);
  t.like(await refusalOf(rig.submit()), { retry_after_ms: 1 });
  rig.clock.advance(1);
  await t.notThrowsAsync(rig.submit());
  t.like(await refusalOf(rig.submit()), { policy_label: 'rate-limit' });
  rig.clock.advance(3_600_000);
  await rig.submit();
  await rig.submit();
  t.like(await refusalOf(rig.submit()), { policy_label: 'rate-limit' }, 'an idle hour is no reserve');
});

test('who is refused for another reason uses nothing of the rate', async (t) => {
  const rig = await busyRig({ capacity: 1, spec: { rate_limit_rps: { interactive: 2 } } });
  t.teardown(rig.close);
  await rig.submit();
  rig.clock.advance(1000);
  for (let time = 0; time < 5; time++) t.like(await refusalOf(rig.submit()), { policy_label: 'reject' });
  for (let time = 0; time < 5; time++) await rig.orchestrator.preview({ ...(await anyRequest(rig)) });
  rig.engine.live[0]?.finish();
  await until(() => rig.pool.queue_depth === 0);
  await t.notThrowsAsync(rig.submit());
});

async function anyRequest(rig: Rig) {
  return [...rig.orchestrator.registry.values()][0]!.request;
}

test('backoff_ms is 0 up to a half-full queue and grows from there to the time in which a place comes free', async (t) => {
  const rig = createRig({ capacity: 8 });
  t.teardown(rig.close);
  await rig.ready();
  const backoffs: number[] = [];
  for (let task = 0; task < 9; task++) backoffs.push((await rig.submit()).backoff_ms);
  t.deepEqual(backoffs.slice(0, 5), [0, 0, 0, 0, 0]);
  const growing = backoffs.slice(4);
  t.deepEqual(
    growing,
    growing.toSorted((a, b) => a - b),
  );
  t.is(new Set(growing).size, growing.length);
  t.is(backoffs.at(-1), 500, 'the guess for a task before any was measured');
});

test('a pool that is full comes after one that has room, even if it would be earlier', async (t) => {
  const rig = createRig({ capacity: 1, others: [{ id: 'z-other', slots: 1 }] });
  t.teardown(rig.close);
  await rig.ready();
  const pools: string[] = [];
  for (let task = 0; task < 4; task++) pools.push(rig.record(await submit(rig)).pool_id);
  t.deepEqual(pools.toSorted(), ['scripted', 'scripted', 'z-other', 'z-other']);
  t.like(await refusalOf(rig.submit()), { code: 'ADMISSION_REJECT', policy_label: 'reject' });
});

test('a preview leaves no trace: no observation, no rate, no place, no session', async (t) => {
  const rig = await busyRig({
    capacity: 1,
    queue: { policy: 'drop-lru' },
    spec: { rate_limit_rps: { interactive: 2 } },
    settings: {
      sessions: {
        ttl_ms: 600_000,
        max_turns: 1,
        budgets: { tokens: null, time_ms: null, cost: null },
        cost_per_output_token: 0,
      },
    },
  });
  t.teardown(rig.close);
  const session_id = '0198c0de-0000-7000-8000-00000000000a';
  const waiting = await submit(rig, { session_id });
  const { request } = rig.record(waiting);
  const before = rig.observations.length;
  const { task_id: _id, session_id: _session, ...fresh } = request as typeof request & { task_id?: string };
  rig.clock.advance(1000);
  for (let time = 0; time < 5; time++)
    t.like(await rig.orchestrator.preview(fresh), { feasible: true, queue_position: 1 });
  for (let time = 0; time < 2; time++)
    t.like(await rig.orchestrator.preview(request), { feasible: false, code: 'INVALID_PARAMS' });
  t.is(rig.observations.length, before);
  t.is(rig.orchestrator.sessions.info(session_id).turns, 1);
  t.is(rig.record(waiting).state, 'admitted');
  t.like(await refusalOf(rig.submit({ session_id })), { code: 'INVALID_PARAMS' });
  t.is(rig.orchestrator.sessions.info(session_id).turns, 0, 'a real refusal ends the session');
});
