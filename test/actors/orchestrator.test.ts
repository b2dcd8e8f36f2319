import test from 'ava';
import { TaskchartError } from '../../src/errors.ts';
import { MemoryStore } from '../../src/store/memory-store.ts';
import type { Commit, CommitResult, Store } from '../../src/store/store.ts';
import { MemoryTaskLog } from '../../src/streams/memory-log.ts';
import { until } from '../helpers/until.ts';
import { createRig, settle, type Rig } from './rig.ts';

async function runToEnd(rig: Rig, id: string): Promise<void> {
  (await rig.runOf(id)).finish();
  await until(() => rig.orchestrator.record(id)?.state !== 'placed');
}

test('finished tasks beyond the retention are forgotten, the oldest first, with log and stored facts', async (t) => {
  const log = new MemoryTaskLog();
  const store = new MemoryStore();
  const rig = createRig({ retained_tasks: 2, ports: { log, store } });
  t.teardown(rig.close);
  await rig.ready();
  const ids: string[] = [];
  for (let task = 0; task < 5; task++) {
    const { task_id } = await rig.submit();
    ids.push(task_id);
    await runToEnd(rig, task_id);
  }
  const [gone, kept] = [ids.slice(0, 3), ids.slice(3)];
  for (const id of gone) {
    t.is(rig.orchestrator.record(id), undefined);
    t.is(log.tail(id) as number, 0);
    t.deepEqual(await rig.log(id), []);
    await t.notThrowsAsync(rig.orchestrator.cancel(id));
  }
  for (const id of kept) t.is((await rig.log(id)).at(-1)?.type, 'end');
  const stored: string[] = [];
  for await (const facts of store.fold()) stored.push(...facts.map(({ key }) => key));
  t.deepEqual(
    stored,
    kept.map((id) => `task/${id}`),
  );
});

test('an id that was forgotten may be used again', async (t) => {
  const rig = createRig({ retained_tasks: 0 });
  t.teardown(rig.close);
  await rig.ready();
  const task_id = '0198c0de-0000-7000-8000-000000000003';
  for (let time = 0; time < 2; time++) {
    await rig.submit({ task_id, prompt: `time ${time}` });
    await runToEnd(rig, task_id);
    t.is(rig.orchestrator.record(task_id), undefined);
  }
});

test('a task that is neither over nor running is never forgotten', async (t) => {
  const rig = createRig({ retained_tasks: 0 });
  t.teardown(rig.close);
  await rig.ready();
  const running = (await rig.submit()).task_id;
  const waiting = (await rig.submit()).task_id;
  for (let task = 0; task < 5; task++) await rig.orchestrator.cancel((await rig.submit()).task_id);
  t.truthy(rig.orchestrator.record(running));
  t.truthy(rig.orchestrator.record(waiting));
});

test('one id posted by many at once is one task, and everybody has its admission', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  const task_id = '0198c0de-0000-7000-8000-000000000004';
  const answers = await Promise.all(Array.from({ length: 5 }, () => rig.submit({ task_id })));
  t.deepEqual(
    answers.map((answer) => answer.task_id),
    Array.from({ length: 5 }, () => task_id),
  );
  await rig.runOf(task_id);
  t.is(rig.observations.filter(({ type }) => type === 'task.admitted').length, 1);
  t.is(rig.pool.queue_depth, 0);
});

test('two bodies posted at once under one id: one is admitted, the other is refused with 409', async (t) => {
  const rig = createRig();
  t.teardown(rig.close);
  await rig.ready();
  const task_id = '0198c0de-0000-7000-8000-000000000005';
  const answers = await Promise.allSettled([
    rig.submit({ task_id, prompt: 'one' }),
    rig.submit({ task_id, prompt: 'two' }),
  ]);
  t.deepEqual(answers.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
  const reasons = answers.flatMap((answer) =>
    answer.status === 'rejected' ? [answer.reason as unknown] : [],
  );
  t.deepEqual(
    reasons.map((reason) => reason instanceof TaskchartError && reason.status),
    [409],
  );
});

test('tasks whose admissions a slow store has in hand together, and commits one by one, all run', async (t) => {
  const commits: (() => void)[] = [];
  const stored = new MemoryStore();
  const store: Store = {
    isDurable: false,
    commit: (commit: Commit) =>
      new Promise<CommitResult>((resolve) => commits.push(() => resolve(stored.commit(commit)))),
    fold: () => stored.fold(),
    close: () => stored.close(),
  };
  const rig = createRig({ ports: { store } });
  t.teardown(rig.close);
  await rig.ready();
  const submitting = [rig.submit(), rig.submit(), rig.submit()];
  await until(() => commits.length === 3);
  for (const commit of commits.splice(0)) {
    commit();
    await settle();
  }
  for (const { task_id } of await Promise.all(submitting)) {
    (await rig.runOf(task_id)).finish();
    await until(() => rig.record(task_id).state === 'ended');
  }
  t.is(rig.pool.queue_depth, 0);
});

test('a closed orchestrator has given everything back, and closing it again is done at once', async (t) => {
  let stores = 0;
  let threads = 0;
  class CountedStore extends MemoryStore {
    override async close(): Promise<void> {
      stores++;
    }
  }
  const close = async (): Promise<void> => void threads++;
  const rig = createRig({
    ports: {
      store: new CountedStore(),
      threads: { countTokens: close as never, tokenize: close as never, close },
    },
  });
  await rig.ready();
  await rig.submit();
  await Promise.all([rig.close(), rig.close()]);
  await rig.close();
  t.deepEqual([stores, threads, rig.engine.unloadCalls], [1, 1, 1]);
  t.is(rig.orchestrator.state, 'closed');
  t.is(rig.clock.pending, 0);
  await t.throwsAsync(rig.submit(), { instanceOf: TaskchartError, message: /shutting down/ });
});

test('a second close that is less patient cuts the first one short', async (t) => {
  const rig = createRig();
  await rig.ready();
  const id = (await rig.submit()).task_id;
  (await rig.runOf(id)).token();
  const patient = rig.orchestrator.close(10_000);
  await settle();
  t.is(rig.record(id).state, 'streaming');
  const hasty = rig.orchestrator.close(0);
  rig.clock.advance(1);
  await settle();
  t.is(rig.record(id).state, 'ended');
  t.like((await rig.log(id)).at(-1), { type: 'end', data: { cancel_reason: 'drain' } });
  rig.clock.advance(10_000);
  await Promise.all([patient, hasty]);
});

test('a close while the engine still loads ends the load', async (t) => {
  const rig = createRig({ engine: (engine) => (engine.loads = 'held') });
  const id = (await rig.submit()).task_id;
  await until(() => rig.pool.snapshot.value === 'starting' && rig.engine.loadCalls === 1);
  await rig.close();
  t.like((await rig.log(id)).at(-1), { type: 'error', data: { code: 'POOL_UNREADY' } });
  t.false(rig.engine.isLoaded);
  t.is(rig.clock.pending, 0);
});

test('a close in the turn of a submit leaves no task without an end', async (t) => {
  for (let turns = 0; turns < 8; turns++) {
    const rig = createRig();
    await rig.ready();
    const submitting = rig.submit().then(
      ({ task_id }) => task_id,
      () => undefined,
    );
    await settle(turns);
    await rig.close();
    const id = await submitting;
    if (id !== undefined) t.true(['end', 'error'].includes((await rig.log(id)).at(-1)?.type ?? 'none'));
    else t.pass();
  }
});
