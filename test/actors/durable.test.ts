import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { TaskchartError } from '../../src/errors.ts';
import { openStorage } from '../../src/storage.ts';
import type { CommitResult, Store } from '../../src/store/store.ts';
import type { LogEvent } from '../../src/streams/task-log.ts';
import { SimulatedClock } from '../helpers/simulated-clock.ts';
import { until } from '../helpers/until.ts';
import { Disk, EPOCH, idOf, over, restart } from './kept.ts';
import { createRig, settle, typesOf, type Rig, type RigOptions } from './rig.ts';

const LIMITED = {
  sessions: {
    ttl_ms: 600_000,
    max_turns: null,
    budgets: { tokens: 100, time_ms: null, cost: null },
    cost_per_output_token: 0,
  },
};

function folder(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'taskchart-core-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** A process over real files. */
async function open(path: string, epoch = EPOCH, options: RigOptions = {}): Promise<Rig> {
  const { store, task_log } = await openStorage(path);
  return createRig({
    ...options,
    clock: new SimulatedClock(epoch),
    ports: { store, log: task_log },
    engine: (engine) => {
      engine.features = { deterministic: true };
      options.engine?.(engine, '');
    },
  });
}

function textOf(events: readonly LogEvent[]): string {
  return events.map((event) => (event.type === 'token' ? event.data.t : '')).join('');
}

/** Lets the disk and whoever waits for it have their turn. */
async function turns(count = 50): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setImmediate(resolve));
}

test('files: what a closed process has not finished goes on in the next one; what is finished is read there', async (t) => {
  const path = folder(t);
  const first = await open(path, EPOCH, { settings: LIMITED });
  await first.ready();
  const ids: string[] = [];
  for (const n of [1, 2, 3, 4, 5])
    ids.push(
      (await first.submit({ task_id: idOf(n), session_id: 'a', priority: n === 4 ? 'batch' : 'interactive' }))
        .task_id,
    );
  const run = await first.runOf(idOf(1));
  run.token(2);
  run.finish();
  await until(() => first.record(idOf(1)).state === 'ended');
  (await first.runOf(idOf(2))).token(3);
  const finished = await first.log(idOf(1));
  await first.close();
  t.is(first.clock.pending, 0);
  t.deepEqual(
    ids.map((id) => first.record(id).state),
    ['ended', 'admitted', 'admitted', 'admitted', 'admitted'],
  );

  const rig = await open(path, EPOCH + 5000, { settings: LIMITED });
  await rig.orchestrator.recovered;
  await rig.ready();
  t.deepEqual(await rig.log(idOf(1)), finished);
  t.like(rig.orchestrator.sessions.info('a'), { turns: 5, tokens_budget_remaining: 100 - 2 - 4 * 8 });
  const again = await rig.runOf(idOf(2));
  again.token(5);
  again.finish();
  const log = await over(rig, 2);
  t.is(textOf(log), ' s0 s1 s2 s3 s4');
  t.is(log.filter(({ data }) => 'resumed' in data).length, 1);
  for (const n of [3, 5, 4]) (await rig.runOf(idOf(n))).finish();
  await over(rig, 4);
  t.deepEqual(
    rig.engine.calls.map((call) => call.task_id),
    [2, 3, 5, 4].map(idOf),
    'in their old order',
  );
  await rig.close();

  const last = await open(path, EPOCH + 9000, { settings: LIMITED });
  await last.orchestrator.recovered;
  t.deepEqual(
    ids.map((id) => last.record(id).state),
    ['ended', 'ended', 'ended', 'ended', 'ended'],
  );
  t.is(last.orchestrator.sessions.info('a').tokens_budget_remaining, 93);
  t.deepEqual(await last.log(idOf(2)), log);
  await last.close();
});

test('files: a task that ended in the moment of the close is stored as over, and charged once', async (t) => {
  const path = folder(t);
  const first = await open(path, EPOCH, { settings: LIMITED });
  await first.ready();
  await first.submit({ task_id: idOf(1), session_id: 'a' });
  const run = await first.runOf(idOf(1));
  run.token(2);
  run.finish();
  while (first.record(idOf(1)).state !== 'ended') await Promise.resolve();
  await first.close();
  const rig = await open(path, EPOCH, { settings: LIMITED });
  t.teardown(rig.close);
  await rig.orchestrator.recovered;
  const [seen] = rig.observations.filter(({ type }) => type === 'store.recovered');
  t.deepEqual(seen, { type: 'store.recovered', finished: 1, unfinished: 0 });
  t.is(rig.orchestrator.sessions.info('a').tokens_budget_remaining, 98);
  t.is(textOf(await rig.log(idOf(1))), ' s0 s1');
});

test('a running task that is kept has no end in its log, and its readers may come back', async (t) => {
  const disk = new Disk();
  const first = restart(disk);
  await first.ready();
  await first.submit({ task_id: idOf(1) });
  await first.submit({ task_id: idOf(2) });
  const run = await first.runOf(idOf(1));
  run.token(2);
  await first.close();
  t.true(run.isAborted);
  t.deepEqual(typesOf(await disk.events(idOf(1))), ['started', 'token', 'token']);
  t.deepEqual(typesOf(await disk.events(idOf(2))), ['started']);
  t.is(first.observations.filter(({ type }) => type === 'task.closed').length, 0);
  t.like(first.record(idOf(1)), { state: 'admitted' });
  const facts = await disk.facts();
  for (const n of [1, 2]) t.false('over' in (facts.get(`task/${idOf(n)}`) as object));
});

test('a run that finishes within the patience of a close is finished, not kept', async (t) => {
  const disk = new Disk();
  const rig = restart(disk);
  await rig.ready();
  await rig.submit({ task_id: idOf(1) });
  const run = await rig.runOf(idOf(1));
  run.token();
  const closing = rig.orchestrator.close(10_000);
  await settle();
  rig.clock.advance(9000);
  run.finish();
  await closing;
  t.is((await disk.events(idOf(1))).at(-1)?.type, 'end');
  t.is(rig.clock.pending, 0);
});

test('a close keeps what waits for an engine that still loads, and leaves no timer', async (t) => {
  for (const loads of ['at once', 'held'] as const) {
    const disk = new Disk();
    const never = new Promise<never>(() => {});
    const rig = restart(disk, {
      preload: false,
      engine: (engine) => (engine.loads = loads),
      ...(loads === 'held'
        ? {}
        : {
            pool: {
              models: { resolve: () => never, fetch: () => never, verify: () => never } as never,
            },
          }),
    });
    const id = (await rig.submit()).task_id;
    await until(() => rig.record(id).state === 'provisioning');
    if (loads === 'held') await until(() => rig.pool.snapshot.value === 'starting');
    await settle();
    await rig.close();
    t.is(rig.clock.pending, 0);
    t.is((await disk.facts()).size, 1);
    t.deepEqual(typesOf(await disk.events(id)), ['started']);
  }
});

/** Commits when told. */
function slow(store: Store): { store: Store; commits: (() => void)[] } {
  const commits: (() => void)[] = [];
  return {
    commits,
    store: {
      ...store,
      commit: (commit) =>
        new Promise<CommitResult>((resolve) => commits.push(() => resolve(store.commit(commit)))),
      fold: () => store.fold(),
      close: async () => {
        for (const commit of commits.splice(0)) commit();
        await settle();
        await store.close();
      },
    },
  };
}

test('an admission that is being stored while everything closes is answered, kept, and leaves no timer', async (t) => {
  const disk = new Disk();
  const ports = disk.open();
  const { store, commits } = slow(ports.store);
  const rig = createRig({
    clock: new SimulatedClock(EPOCH),
    ports: { ...ports, store },
    settings: { retained_ms: 3_600_000 },
  });
  await rig.ready();
  const submitting = rig.submit({ task_id: idOf(1) });
  await until(() => commits.length === 1);
  const closing = rig.close();
  await turns();
  t.not(rig.orchestrator.state, 'serving');
  commits.splice(0)[0]?.();
  t.is((await submitting).task_id, idOf(1));
  await closing;
  t.is(rig.clock.pending, 0);
  const next = restart(disk);
  t.teardown(next.close);
  (await next.runOf(idOf(1))).finish();
  t.is((await over(next, 1)).at(-1)?.type, 'end');
});

test('the store hears that a task is over only once readers can see the end of its log', async (t) => {
  const disk = new Disk();
  const { store, log } = disk.open();
  const shown = Promise.withResolvers<void>();
  const rig = createRig({
    clock: new SimulatedClock(EPOCH),
    ports: {
      store,
      log: {
        ...log,
        async *read(id, after, signal) {
          await shown.promise;
          yield* log.read(id, after, signal);
        },
      },
    },
  });
  t.teardown(rig.close);
  await rig.ready();
  await rig.submit({ task_id: idOf(1) });
  (await rig.runOf(idOf(1))).finish();
  await until(() => rig.record(idOf(1)).state === 'ended');
  await turns();
  const isOver = async (): Promise<boolean> =>
    'over' in ((await disk.facts()).get(`task/${idOf(1)}`) as object);
  t.false(await isOver());
  t.like((await disk.facts()).get(`task/${idOf(1)}`), { request: { prompt: 'Once upon a time' } });
  shown.resolve();
  await until(isOver);
  t.false(JSON.stringify([...(await disk.facts())]).includes('Once upon'));
});

test('a task that was forgotten before its end was stored does not come back', async (t) => {
  const disk = new Disk();
  const rig = restart(disk, { retained_tasks: 0, settings: LIMITED });
  await rig.ready();
  await rig.submit({ task_id: idOf(1), session_id: 'a' });
  const run = await rig.runOf(idOf(1));
  run.token(2);
  run.finish();
  await until(() => rig.orchestrator.record(idOf(1)) === undefined);
  await turns();
  t.deepEqual([...(await disk.facts()).keys()], ['session/a']);
  t.like((await disk.facts()).get('session/a'), { spent: { tokens: 2 }, running: 0 });
  await rig.close();
  t.deepEqual([...(await disk.facts()).keys()], ['session/a']);
});

test('a drain of one pool by hand refuses what waits, also where everything is durable', async (t) => {
  const rig = restart(new Disk());
  t.teardown(rig.close);
  await rig.ready();
  await rig.submit({ task_id: idOf(1) });
  await rig.submit({ task_id: idOf(2) });
  rig.pool.engines.drain(0);
  t.is(rig.record(idOf(2)).state, 'error');
  rig.clock.advance(0);
  t.like(rig.record(idOf(1)).context.outcome, { kind: 'canceled', reason: 'drain' });
  await t.throwsAsync(rig.submit(), { instanceOf: TaskchartError });
});
