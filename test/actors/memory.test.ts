import test from 'ava';
import fc from 'fast-check';
import { memoryOf } from '../../src/actors/memory-view.ts';
import { isOver } from '../../src/machines/task.ts';
import { TaskchartError } from '../../src/errors.ts';
import { remoteModels } from '../../src/models/source.ts';
import { until } from '../helpers/until.ts';
import { createRig, settle, type Rig, type RigOptions } from './rig.ts';

// What failed is worth more than which example it was.
fc.configureGlobal({ includeErrorInReport: true });

const GB = 1e9;

/** Two pools of the same size, and memory for one of them. */
function createTwo(options: RigOptions = {}): Rig {
  return createRig({
    preload: false,
    host_bytes: GB,
    ...options,
    spec: { model: 'a', memory_bytes: GB, ...options.spec },
    others: options.others ?? [{ id: 'other', model: 'b', memory_bytes: GB, pinned: false }],
  });
}

const phaseOf = (rig: Rig, id: string): string | undefined => rig.orchestrator.pools.get(id)?.phase;
const planned = (rig: Rig): string[] =>
  rig.observations.flatMap((seen) =>
    seen.type === 'memory.planned' ? [`${seen.do} ${seen.pool_id}: ${seen.reason}`] : [],
  );

async function ended(rig: Rig, id: string): Promise<void> {
  (await rig.runOf(id)).finish();
  await until(() => rig.record(id).state === 'ended');
}

test('two models take turns in memory for one, and tasks for both are served', async (t) => {
  const rig = createTwo();
  t.teardown(rig.close);
  for (const model_ref of ['a', 'b', 'a']) {
    const id = (await rig.submit({ model_ref })).task_id;
    await ended(rig, id);
  }
  t.deepEqual(planned(rig), [
    'load scripted: room',
    'unload scripted: swap',
    'load other: room',
    'unload other: swap',
    'load scripted: room',
  ]);
  t.is(rig.orchestrator.pools.get('other')?.replicas[0]?.snapshot.context.exit?.cause, 'swap');
});

test('a model that was never measured takes its file, the context of all its slots and a process', async (t) => {
  const models: typeof remoteModels = {
    ...remoteModels,
    verify: async (model) => ({
      ...(await remoteModels.verify(model)),
      size_bytes: 10 * GB,
      context_length: 8192,
      kv_bytes_per_token: 1e5,
    }),
  };
  const taken = async (spec: RigOptions['spec']): Promise<unknown> => {
    const rig = createRig({ pool: { models }, slots: 4, spec: { memory_bytes: undefined, ...spec } });
    t.teardown(rig.close);
    await rig.ready();
    return memoryOf(rig.pool);
  };
  t.deepEqual(await taken({}), { host: 10 * GB + 150e6 + 4 * 8192 * 1e5 });
  t.deepEqual(await taken({ ctx: 1000 }), { host: 10 * GB + 150e6 + 4 * 1000 * 1e5 });
  t.deepEqual(await taken({ ctx: 1000, kv_scale: 0.5 }), { host: 10 * GB + 150e6 + 4 * 1000 * 5e4 });
});

test('a replica that runs a task is not unloaded before the task is over', async (t) => {
  const rig = createTwo();
  t.teardown(rig.close);
  const first = (await rig.submit({ model_ref: 'a' })).task_id;
  const run = await rig.runOf(first);
  const second = (await rig.submit({ model_ref: 'b' })).task_id;
  rig.clock.advance(60_000);
  await settle();
  t.is(rig.engine.unloadCalls, 0);
  t.regex(rig.orchestrator.memory.waitOf('other')?.human ?? '', /^Pool other waits/);
  run.finish();
  await until(() => rig.record(second).state === 'placed' || rig.record(second).state === 'error');
  t.is(rig.record(first).state, 'ended');
});

test('a loaded model goes on serving its queue, but only until a task of another was passed for too long', async (t) => {
  const rig = createTwo({ swap: { max_overtaken_ms: 10_000, min_residency_ms: 0, payback: Infinity } });
  t.teardown(rig.close);
  const run = await rig.runOf((await rig.submit({ model_ref: 'a' })).task_id);
  const passed = (await rig.submit({ model_ref: 'b' })).task_id;
  const later: string[] = [];
  for (let i = 0; i < 10; i++) later.push((await rig.submit({ model_ref: 'a' })).task_id);
  run.finish();
  let served = 0;
  while (rig.record(passed).state !== 'placed') {
    rig.clock.advance(4000);
    await settle();
    const [live] = rig.engine.live;
    if (live && phaseOf(rig, 'scripted') !== 'cold') {
      live.finish();
      served++;
    }
    await settle();
    if (served > later.length) return t.fail('the task of the other model never had its turn');
  }
  t.true(served >= 2 && served <= 5, `${served} tasks went before it`);
  await ended(rig, passed);
  for (const id of later) if (rig.record(id).state !== 'ended') await ended(rig, id);
  t.pass();
});

test('a pinned model stays, and what never fits beside it is refused for good', async (t) => {
  const rig = createTwo({ spec: { pinned: true } });
  t.teardown(rig.close);
  await ended(rig, (await rig.submit({ model_ref: 'a' })).task_id);
  const id = (await rig.submit({ model_ref: 'b' })).task_id;
  await until(() => rig.record(id).state === 'error');
  t.like((await rig.log(id)).at(-1)?.data, { code: 'POOL_UNAVAILABLE', retriable: false });
  const refused = await t.throwsAsync(rig.submit({ model_ref: 'b' }), { instanceOf: TaskchartError });
  t.like(refused?.failure, { code: 'POOL_UNAVAILABLE', retriable: false });
  t.is(phaseOf(rig, 'scripted'), 'ready');
});

test('a model that nobody used for its idle time is unloaded, and loaded again for the next task', async (t) => {
  const rig = createRig({ preload: false, spec: { idle_ttl_ms: 60_000 } });
  t.teardown(rig.close);
  await ended(rig, (await rig.submit()).task_id);
  rig.clock.advance(59_999);
  await settle();
  t.is(rig.pool.phase, 'ready');
  rig.clock.advance(1);
  await until(() => rig.pool.phase === 'cold');
  t.is(rig.pool.replicas[0]?.snapshot.context.exit?.cause, 'idle');
  await ended(rig, (await rig.submit()).task_id);
});

test('pools that preload share what there is, and the others wait for a task of theirs', async (t) => {
  const rig = createTwo({ preload: true });
  t.teardown(rig.close);
  await until(() => phaseOf(rig, 'scripted') === 'ready');
  await settle();
  t.is(phaseOf(rig, 'other'), 'waiting');
  await ended(rig, (await rig.submit({ model_ref: 'b' })).task_id);
});

test('a predicted start counts what has to be unloaded and loaded before', async (t) => {
  const rig = createTwo({ engine: (engine) => (engine.loads = 'held') });
  t.teardown(rig.close);
  const first = (await rig.submit({ model_ref: 'a' })).task_id;
  await until(() => phaseOf(rig, 'scripted') === 'starting');
  rig.clock.advance(8000);
  rig.engine.loaded();
  await ended(rig, first);
  const { predicted_start_ms } = await rig.submit({ model_ref: 'b' });
  t.true(predicted_start_ms >= 1000, String(predicted_start_ms));
  rig.engines.get('other')?.loaded();
});

test('whatever comes, memory is never given twice, nobody waits for ever, and every task ends', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.record({
          model: fc.constantFrom('a', 'b', 'c'),
          batch: fc.boolean(),
          wait_ms: fc.constantFrom(0, 0, 100, 5000, 20_000),
          finishes: fc.nat(3),
          crash: fc.constantFrom(false, false, false, false, true),
        }),
        { minLength: 3, maxLength: 25 },
      ),
      fc.constantFrom(1, 2),
      async (steps, room) => {
        const rig = createTwo({
          host_bytes: room * GB,
          swap: { max_overtaken_ms: 15_000, min_residency_ms: 2000 },
          others: [
            { id: 'pb', model: 'b', memory_bytes: GB },
            { id: 'pc', model: 'c', memory_bytes: GB },
          ],
        });
        const ids: string[] = [];
        const live = (): { finish(): void }[] => [...rig.engines.values()].flatMap((engine) => engine.live);
        const check = (): void => {
          const holding = [...rig.orchestrator.pools.values()].filter(({ engines }) => engines.holdsMemory);
          if (holding.length > room) throw new Error(`${holding.length} models in memory for ${room}`);
        };
        for (const { model, batch, wait_ms, finishes, crash } of steps) {
          // Where its breaker is open, a pool takes nothing.
          await rig
            .submit({ model_ref: model, priority: batch ? 'batch' : 'interactive' })
            .then(({ task_id }) => ids.push(task_id))
            .catch((error: unknown) => {
              if (!(error instanceof TaskchartError)) throw error;
            });
          await settle();
          check();
          rig.clock.advance(wait_ms);
          await settle();
          check();
          if (crash) [...rig.engines.values()][0]?.crash();
          for (const run of live().slice(0, finishes)) run.finish();
          await settle();
          check();
        }
        for (let round = 0; round < 400 && ids.some((id) => !isOver(rig.record(id).state)); round++) {
          for (const run of live()) run.finish();
          rig.clock.advance(500);
          await settle();
          check();
        }
        for (const id of ids)
          if (!isOver(rig.record(id).state)) throw new Error(`${id} is ${rig.record(id).state}`);
        await rig.close();
        if (rig.clock.pending !== 0) throw new Error('a timer is left');
      },
    ),
    { numRuns: 60 },
  );
  t.pass();
});

test('a split model takes of each device what its share is: of a figure for the largest share, or of one for all', async (t) => {
  const devices = [
    { id: 0, bytes: 24 * GB },
    { id: 1, bytes: 12 * GB },
  ];
  const shares = [0.75, 0.25];
  const models: typeof remoteModels = {
    ...remoteModels,
    verify: async (model) => ({ ...(await remoteModels.verify(model)), size_bytes: 12 * GB - 150e6 }),
  };
  const taken = async (memory_bytes: number | undefined): Promise<unknown> => {
    const rig = createRig({ devices, pool: { models }, spec: { devices: [0, 1], shares, memory_bytes } });
    t.teardown(rig.close);
    await rig.ready();
    return memoryOf(rig.pool);
  };
  t.deepEqual(await taken(18 * GB), { 0: 18 * GB, 1: 6 * GB });
  t.deepEqual(await taken(undefined), { 0: 9 * GB, 1: 3 * GB });
});

test('a pool on several devices has as much to spare as the fullest of them, and a tie goes to whoever has more', async (t) => {
  const rig = createRig({
    devices: [
      { id: 0, bytes: 24 * GB },
      { id: 1, bytes: 12 * GB },
    ],
    spec: { devices: [0, 1], shares: [0.5, 0.5], memory_bytes: 4 * GB },
    others: [
      { id: 'big', devices: [0], memory_bytes: 4 * GB },
      { id: 'small', devices: [1], memory_bytes: 4 * GB },
    ],
  });
  t.teardown(rig.close);
  await rig.ready();
  const roomOf = (id: string): number | undefined => rig.orchestrator.pools.get(id)?.memoryRoom?.free_bytes;
  t.is(roomOf('scripted'), 4 * GB);
  t.is(roomOf('big'), 16 * GB);
  t.is(roomOf('small'), 4 * GB);
  const id = (await rig.submit({ placement: { avoid_pools: ['scripted'] } })).task_id;
  t.is(rig.record(id).pool_id, 'big');
  const masked = (await rig.submit({ placement: { require_device_mask: '0,1' } })).task_id;
  t.is(rig.record(masked).pool_id, 'scripted');
  const other = (await rig.submit({ placement: { require_device_mask: '1' } })).task_id;
  t.is(rig.record(other).pool_id, 'small');
  const refused = await t.throwsAsync(rig.submit({ placement: { require_device_mask: '2' } }), {
    instanceOf: TaskchartError,
  });
  t.is(refused?.failure.code, 'POOL_UNAVAILABLE');
});
