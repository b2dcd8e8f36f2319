import test from 'ava';
import { TaskchartError } from '../../src/errors.ts';
import type { Store } from '../../src/store/store.ts';
import { request } from '../helpers/server.ts';
import { SimulatedClock } from '../helpers/simulated-clock.ts';
import { until } from '../helpers/until.ts';
import { Disk, EPOCH, idOf, over, put, restart, STARTED, stored, token } from './kept.ts';
import { createRig, settle } from './rig.ts';

/** Reads nothing before it is told to. */
function heldBack({ store }: { store: Store }): { store: Store; go: () => void; fail: (why: Error) => void } {
  const gate = Promise.withResolvers<void>();
  return {
    store: {
      ...store,
      async *fold() {
        await gate.promise;
        yield* store.fold();
      },
    },
    go: () => gate.resolve(),
    fail: (why) => gate.reject(why),
  };
}

test('what is asked for while it recovers waits for that, and then works', async (t) => {
  const disk = new Disk();
  put(disk, stored(1), stored(2));
  disk.append(idOf(2), STARTED, token(0));
  const ports = disk.open();
  const held = heldBack(ports);
  const rig = createRig({
    clock: new SimulatedClock(EPOCH),
    ports: { ...ports, store: held.store },
    slots: 4,
    engine: (engine) => (engine.features = { deterministic: true }),
  });
  t.teardown(rig.close);
  await rig.ready();
  t.is(rig.orchestrator.state, 'recovering');
  const again = rig.submit({ task_id: idOf(1) });
  const other = rig.submit({ task_id: idOf(1), prompt: 'another' });
  const fresh = rig.submit();
  const canceled = rig.orchestrator.cancel(idOf(2));
  const previewed = rig.orchestrator.preview(request);
  await settle();
  t.is(rig.engine.calls.length, 0);
  held.go();
  t.is((await again).task_id, idOf(1));
  await t.throwsAsync(other, { instanceOf: TaskchartError, message: /another body/ });
  t.true((await previewed).feasible);
  await canceled;
  t.like((await rig.log(idOf(2))).at(-1), { type: 'end', data: { canceled: true, tokens_out: 1 } });
  t.true(rig.record((await fresh).task_id).sequence > 2);
  t.is(rig.orchestrator.state, 'serving');
});

test('a store that cannot be read: who waits is told, nothing is accepted, and everything is given back', async (t) => {
  const ports = new Disk().open();
  const held = heldBack(ports);
  const rig = createRig({ clock: new SimulatedClock(EPOCH), ports: { ...ports, store: held.store } });
  await rig.ready();
  const submitting = rig.submit();
  const canceling = rig.orchestrator.cancel(idOf(1));
  held.fail(new Error('the disk is broken at /secret/path'));
  await t.throwsAsync(rig.orchestrator.recovered, { message: /the disk is broken/ });
  for (const asking of [submitting, canceling, rig.submit()]) {
    const refused = await t.throwsAsync(asking, { instanceOf: TaskchartError });
    t.is(refused?.code, 'INTERNAL');
    t.regex(refused?.message ?? '', /cannot read what it has accepted before/);
    t.false(refused?.message.includes('secret'));
  }
  await until(() => {
    rig.clock.advance(1);
    return rig.orchestrator.state === 'closed';
  });
  await rig.orchestrator.closed;
  await rig.close();
  t.false(rig.engine.isLoaded);
  t.is(rig.clock.pending, 0);
});

test('a store that breaks in the middle of reading harms none of what it has: the next process runs it', async (t) => {
  const disk = new Disk();
  put(disk, stored(1), stored(2));
  const before = await disk.facts();
  const ports = disk.open();
  const first = createRig({
    clock: new SimulatedClock(EPOCH),
    ports: {
      ...ports,
      store: {
        ...ports.store,
        async *fold() {
          for await (const [fact] of ports.store.fold()) if (fact) yield [fact];
          throw new Error('no more');
        },
      },
    },
  });
  await t.throwsAsync(first.orchestrator.recovered, { message: 'no more' });
  await first.close();
  t.deepEqual(await disk.facts(), before);
  const rig = restart(disk, { slots: 2 });
  t.teardown(rig.close);
  for (const n of [1, 2]) (await rig.runOf(idOf(n))).finish();
  t.is((await over(rig, 2)).at(-1)?.type, 'end');
});

test('a close while it recovers is not held up by what is left, loses none of it, and leaves nothing open', async (t) => {
  const disk = new Disk();
  const count = 6000;
  put(disk, ...Array.from({ length: count }, (_, n) => stored(n + 1)));
  disk.put([{ key: 'session/idle', data: sessionData(EPOCH - 1000) }]);
  const rig = restart(disk, { capacity: count, settings: { retained_ms: 3_600_000 } });
  await new Promise((resolve) => setImmediate(resolve));
  t.true(rig.orchestrator.isRecovering);
  await rig.close();
  await rig.orchestrator.recovered;
  t.is(rig.clock.pending, 0);
  t.true(rig.pool.queue_depth < count);
  t.is((await disk.facts()).size, count + 1);
  await t.throwsAsync(rig.submit(), { instanceOf: TaskchartError, message: /shutting down/ });
});

function sessionData(last_seen_wall_ms: number): object {
  return { turns: 1, running: 0, spent: { tokens: 0, time_ms: 0, cost: 0 }, last_seen_wall_ms };
}

test('a close before anything could be read leaves no timer either', async (t) => {
  const disk = new Disk();
  put(disk, stored(1));
  const ports = disk.open();
  const held = heldBack(ports);
  const rig = createRig({ clock: new SimulatedClock(EPOCH), ports: { ...ports, store: held.store } });
  const closing = rig.close();
  await settle();
  held.go();
  await closing;
  await rig.orchestrator.recovered;
  await settle();
  t.is(rig.clock.pending, 0);
  t.is((await disk.facts()).size, 1);
});
