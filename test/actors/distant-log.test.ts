import test from 'ava';
import { MemoryTaskLog } from '../../src/streams/memory-log.ts';
import type { AppendResult, Cursor, LogBatch, NewLogEvent, TaskLog } from '../../src/streams/task-log.ts';
import { MemoryStore } from '../../src/store/memory-store.ts';
import type { Store } from '../../src/store/store.ts';
import { until } from '../helpers/until.ts';
import { createRig, settle, typesOf, type Rig, type RigOptions } from './rig.ts';

type Mishap = 'lost' | 'done but not answered' | 'rejected' | undefined;

/** A log elsewhere. What goes wrong with an append, the test says. */
class DistantLog implements TaskLog {
  isDurable = false;
  readonly inner = new MemoryTaskLog();
  mishap: (events: readonly NewLogEvent[]) => Mishap = () => undefined;
  /** Holds back the answers to `tail`, while it is there. */
  tailGate: Promise<void> | undefined;
  isReadable = true;
  appends = 0;

  async append(id: string, cursor: Cursor, events: readonly NewLogEvent[]): Promise<AppendResult> {
    this.appends++;
    await Promise.resolve();
    const mishap = this.mishap(events);
    if (mishap === 'lost') return { kind: 'unknown' };
    if (mishap === 'rejected') throw new Error('no connection');
    const result = this.inner.append(id, cursor, events);
    return mishap === 'done but not answered' ? { kind: 'unknown' } : result;
  }

  async tail(id: string): Promise<Cursor> {
    await this.tailGate;
    return this.inner.tail(id);
  }

  async isClosed(id: string): Promise<boolean> {
    return this.inner.isClosed(id);
  }

  async *read(id: string, after: number | undefined, signal: AbortSignal): AsyncIterable<LogBatch> {
    if (!this.isReadable) throw new Error('no connection');
    yield* this.inner.read(id, after, signal);
  }

  drop(id: string): void {
    this.inner.drop(id);
  }

  close(): Promise<void> {
    return this.inner.close();
  }
}

async function start(options: RigOptions = {}): Promise<{ rig: Rig; log: DistantLog }> {
  const log = new DistantLog();
  const rig = createRig({ ...options, ports: { log, ...options.ports } });
  await rig.ready();
  return { rig, log };
}

/** The first append with an event of this type goes wrong. */
function once(type: NewLogEvent['type'], mishap: Mishap): DistantLog['mishap'] {
  let isDone = false;
  return (events) => {
    if (isDone || !events.some((event) => event.type === type)) return undefined;
    isDone = true;
    return mishap;
  };
}

const MISHAPS = ['lost', 'done but not answered', 'rejected'] as const;

for (const mishap of MISHAPS) {
  test(`tokens that were ${mishap} end the task, and its readers are told`, async (t) => {
    const { rig, log } = await start();
    t.teardown(rig.close);
    const id = (await rig.submit()).task_id;
    const next = (await rig.submit()).task_id;
    const run = await rig.runOf(id);
    log.mishap = once('token', mishap);
    run.token(3);
    await until(() => rig.record(id).state === 'error');
    await until(async () => (await rig.log(id)).at(-1)?.type === 'error');
    const events = await rig.log(id);
    t.like(events.at(-1)?.data, { code: 'WORKER_RESET', retriable: true });
    t.is(
      typesOf(events).filter((type) => type === 'token').length,
      mishap === 'done but not answered' ? 1 : 0,
    );
    run.token(3);
    await settle(50);
    t.deepEqual(await rig.log(id), events);
    await until(() => rig.record(next).state === 'placed');
  });

  test(`an end that was ${mishap} is there once, and so is the end of a cancel`, async (t) => {
    const { rig, log } = await start();
    t.teardown(rig.close);
    const [running, canceled, queued] = [
      (await rig.submit()).task_id,
      (await rig.submit()).task_id,
      (await rig.submit()).task_id,
    ];
    log.mishap = once('end', mishap);
    const run = await rig.runOf(running);
    run.token(2);
    run.finish();
    await until(() => rig.record(running).state === 'ended');
    await until(async () => (await rig.log(running)).at(-1)?.type === 'end');
    (await rig.runOf(canceled)).token(2);
    for (const id of [canceled, queued]) {
      log.mishap = once('end', mishap);
      await rig.orchestrator.cancel(id);
      t.like((await rig.log(id)).at(-1), { type: 'end', data: { canceled: true } });
    }
    await settle(50);
    for (const id of [running, canceled, queued]) {
      const types = typesOf(await rig.log(id));
      t.is(types.filter((type) => type === 'end').length, 1);
      t.is(types[0], 'started');
    }
    t.deepEqual(rig.engine.shouts, []);
  });

  test(`a beginning that was ${mishap} is there once`, async (t) => {
    const { rig, log } = await start();
    t.teardown(rig.close);
    log.mishap = once('started', mishap);
    const id = (await rig.submit()).task_id;
    const run = await rig.runOf(id);
    run.token();
    run.finish();
    await until(() => rig.record(id).state === 'ended');
    await until(async () => (await rig.log(id)).at(-1)?.type === 'end');
    t.deepEqual(typesOf(await rig.log(id)), ['started', 'token', 'metrics', 'end']);
  });
}

test('a log that answers nothing any more is asked a few times, and holds nobody up', async (t) => {
  const { rig, log } = await start();
  t.teardown(rig.close);
  const [running, queued] = [(await rig.submit()).task_id, (await rig.submit()).task_id];
  await rig.runOf(running);
  await settle(50);
  log.mishap = () => 'lost';
  const before = log.appends;
  await Promise.all([rig.orchestrator.cancel(running), rig.orchestrator.cancel(queued)]);
  t.true(log.appends - before <= 8, `${log.appends - before} appends`);
  await until(() => rig.pool.leases === 0);
  t.is(rig.record(running).state, 'ended');
});

test('a log that somebody else goes on with is left alone', async (t) => {
  const { rig, log } = await start();
  t.teardown(rig.close);
  const id = (await rig.submit()).task_id;
  const run = await rig.runOf(id);
  run.token(2);
  await settle(50);
  for (let i = 2; i < 5; i++)
    log.inner.append(id, log.inner.tail(id), [{ type: 'token', data: { t: ` o${i}`, i } }]);
  const theirs = await rig.log(id);
  run.token();
  await until(() => rig.record(id).state === 'error');
  await settle(50);
  t.deepEqual(await rig.log(id), theirs);
});

test('a lost run whose log cannot be read ends with a cause, gives its slot back, and crashes nothing', async (t) => {
  const { rig, log } = await start({ engine: (engine) => (engine.features = { deterministic: true }) });
  t.teardown(rig.close);
  const [id, next] = [(await rig.submit()).task_id, (await rig.submit()).task_id];
  (await rig.runOf(id)).token(2);
  await settle(50);
  log.isReadable = false;
  rig.engine.crash();
  await until(() => rig.pool.snapshot.value === 'starting');
  await settle(50);
  rig.clock.advance(1000);
  await until(() => rig.record(id).state === 'error');
  t.like(rig.record(id).context.outcome, { failure: { code: 'INTERNAL' } });
  log.isReadable = true;
  await until(() => rig.record(next).state === 'placed');
  t.is(rig.pool.leases, 1);
});

test('a task that was granted a slot but is still waiting for its log is kept by a durable close, and not run', async (t) => {
  const gate = Promise.withResolvers<void>();
  const memory = new MemoryStore();
  const store: Store = {
    isDurable: true,
    commit: (commit) => memory.commit(commit),
    fold: () => memory.fold(),
    close: async () => undefined,
  };
  const { rig, log } = await start({ ports: { store } });
  log.isDurable = true;
  log.tailGate = gate.promise;
  const id = (await rig.submit()).task_id;
  await until(() => rig.pool.leases === 1);
  t.is(rig.record(id).state, 'admitted');
  const closing = rig.close();
  await settle(50);
  t.is(rig.pool.leases, 0);
  gate.resolve();
  await closing;
  await settle(50);
  t.is(rig.engine.calls.length, 0);
  t.is(rig.record(id).state, 'admitted');
  t.deepEqual(typesOf(await rig.log(id)), ['started']);
  t.is(rig.clock.pending, 0);
});

test('a cancel while a granted task waits for its log gives the slot to the next one', async (t) => {
  const gate = Promise.withResolvers<void>();
  const { rig, log } = await start();
  t.teardown(rig.close);
  log.tailGate = gate.promise;
  const [id, next] = [(await rig.submit()).task_id, (await rig.submit()).task_id];
  const canceling = rig.orchestrator.cancel(id);
  gate.resolve();
  await canceling;
  await rig.runOf(next);
  t.deepEqual(
    rig.engine.calls.map((call) => call.task_id),
    [next],
  );
  t.is(rig.pool.leases, 1);
});
