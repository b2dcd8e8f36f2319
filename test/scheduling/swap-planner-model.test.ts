import { deepEqual, equal, match, ok } from 'node:assert/strict';
import test from 'ava';
import fc from 'fast-check';
import type { Priority } from '../../src/contract/generated/types.ts';
import type { SwapPlan } from '../../src/scheduling/swap-plan.ts';
import { planSwaps } from '../../src/scheduling/swap-planner.ts';
import {
  DEFAULT_SWAP_RULES,
  neverFits,
  type SwapPool,
  type SwapRules,
  type SwapView,
} from '../../src/scheduling/swap-view.ts';
import { DEVICES, makeTrace, MODELS } from '../../bench/swap-trace.ts';
import {
  simulate,
  type SimulatedModel,
  type SimulatedTask,
  type TraceTask,
} from '../helpers/swap-simulation.ts';

const DEVICE_IDS = ['gpu0', 'gpu1'];
const BUDGET = 10;

const bytes = fc.integer({ min: 0, max: BUDGET });
const model = (id: string): fc.Arbitrary<SimulatedModel> =>
  fc
    .record({
      gpu0: bytes,
      gpu1: bytes,
      load_ms: fc.integer({ min: 1, max: 50 }),
      unload_ms: fc.integer({ min: 0, max: 10 }),
      slots: fc.integer({ min: 1, max: 3 }),
      pinned: fc.integer({ min: 0, max: 9 }).map((roll) => roll === 0),
      idle_ttl_ms: fc.constantFrom(0, 30),
    })
    .map(({ gpu0, gpu1, ...rest }) => ({
      id,
      memory_bytes: gpu0 + gpu1 === 0 ? { gpu0: 1 } : { gpu0, gpu1 },
      ...rest,
    }));

const models = fc
  .integer({ min: 1, max: 4 })
  .chain((count) => fc.tuple(...['a', 'b', 'c', 'd'].slice(0, count).map(model)));

const trace = (ids: readonly string[]): fc.Arbitrary<TraceTask[]> =>
  fc.array(
    fc.record({
      at_ms: fc.integer({ min: 0, max: 600 }),
      pool_id: fc.constantFrom(...ids),
      priority: fc.constantFrom<Priority>('interactive', 'batch'),
      run_ms: fc.integer({ min: 1, max: 40 }),
    }),
    { maxLength: 80, size: 'max' },
  );

const rules: fc.Arbitrary<SwapRules> = fc.record({
  idle_ttl_ms: fc.constantFrom(0, 0, 100),
  min_residency_ms: fc.constantFrom(0, 20, 100),
  max_overtaken_ms: fc.constantFrom(1, 30, 100, 300, Infinity),
  max_parallel_loads: fc.integer({ min: 1, max: 2 }),
  ageing: fc.constantFrom(0, 1, 3),
  payback: fc.constantFrom(1, 1, 3, Infinity),
});

const scene = models.chain((chosen) =>
  fc.record({
    models: fc.constant(chosen),
    trace: trace(chosen.map(({ id }) => id)),
    rules,
  }),
);

const devices = DEVICE_IDS.map((id) => ({ id, budget_bytes: BUDGET }));

interface Scene {
  models: readonly SimulatedModel[];
  trace: readonly TraceTask[];
  rules: SwapRules;
}

/** Replays a scene; every plan is looked at. */
function replay(
  { models, trace, rules }: Scene,
  look: (view: SwapView, plan: SwapPlan) => void = () => {},
  onLease?: Parameters<typeof simulate>[0]['onLease'],
): ReturnType<typeof simulate> {
  return simulate({
    devices,
    models,
    trace,
    ...(onLease && { onLease }),
    plan: (view) => {
      const plan = planSwaps(view, rules);
      look(view, plan);
      return plan;
    },
  });
}

function held(view: SwapView, device: string, states: readonly SwapPool['state'][]): SwapPool[] {
  return view.pools.filter(
    ({ state, memory_bytes }) => states.includes(state) && (memory_bytes[device] ?? 0) > 0,
  );
}

/** Whether two pools and all that is pinned are more than a device has. */
function exclude(one: SwapPool, other: SwapPool, pools: readonly SwapPool[]): boolean {
  return DEVICE_IDS.some((device) => {
    const both = (one.memory_bytes[device] ?? 0) > 0 && (other.memory_bytes[device] ?? 0) > 0;
    const pinned = pools.filter(
      (pool) => pool.pinned && pool !== one && pool !== other && pool.state !== 'cold',
    );
    const sum = [one, other, ...pinned].reduce(
      (total, { memory_bytes }) => total + (memory_bytes[device] ?? 0),
      0,
    );
    return both && sum > BUDGET;
  });
}

test('memory is never promised twice, loads keep to their number, and no step surprises its pool', (t) => {
  fc.assert(
    fc.property(scene, (chosen) => {
      replay(chosen, (view, plan) => {
        const byId = new Map(view.pools.map((pool) => [pool.id, pool]));
        const loads = plan.steps.filter((step) => step.do === 'load').map(({ pool_id }) => pool_id);
        for (const device of DEVICE_IDS) {
          const there = held(view, device, ['loading', 'loaded', 'unloading']);
          const coming = held(view, device, ['cold']).filter(({ id }) => loads.includes(id));
          const taken = [...there, ...coming].reduce(
            (sum, pool) => sum + (pool.memory_bytes[device] ?? 0),
            0,
          );
          ok(taken <= BUDGET, `${device} holds ${taken}`);
          ok(held(view, device, ['loading']).length + coming.length <= chosen.rules.max_parallel_loads);
        }
        for (const step of plan.steps) {
          const pool = byId.get(step.pool_id) as SwapPool;
          equal(pool.state, step.do === 'load' ? 'cold' : 'loaded');
          if (step.do === 'load') ok(pool.waiting > 0);
          else ok(!pool.pinned);
        }
        for (const { pool_id } of plan.last_calls) equal(byId.get(pool_id)?.state, 'loaded');
        const asked = [...plan.steps, ...plan.last_calls].map(({ pool_id }) => pool_id);
        equal(new Set(asked).size, asked.length, 'a pool is told one thing');
      });
    }),
    { numRuns: 100 },
  );
  t.pass();
});

test('every pool that waits is told why, in a sentence of at most 100 characters', (t) => {
  fc.assert(
    fc.property(scene, (chosen) => {
      replay(chosen, (view, plan) => {
        const answered = [
          ...plan.waiting.map(({ pool_id }) => pool_id),
          ...plan.steps.filter((step) => step.do === 'load').map(({ pool_id }) => pool_id),
        ];
        const waiting = view.pools.filter((pool) => pool.waiting > 0 && pool.state !== 'loaded');
        deepEqual(answered.toSorted(), waiting.map(({ id }) => id).toSorted());
        for (const { human } of [...plan.steps, ...plan.last_calls, ...plan.waiting])
          match(human, /^Pool \w+ .{1,90}\.$/);
      });
    }),
    { numRuns: 60 },
  );
  t.pass();
});

test('the same view gives the same plan, in whatever order its pools come', (t) => {
  fc.assert(
    fc.property(scene, (chosen) => {
      replay(chosen, (view, plan) => {
        deepEqual(planSwaps({ ...view, pools: view.pools.toReversed() }, chosen.rules), plan);
      });
    }),
    { numRuns: 60 },
  );
  t.pass();
});

test('nobody waits for ever: whatever needs how many devices, every task that can be served is', (t) => {
  fc.assert(
    fc.property(scene, (chosen) => {
      let last: SwapView | undefined;
      const { tasks } = replay(chosen, (view) => void (last = view));
      for (const { pool_id, granted_at } of tasks) {
        const pool = last?.pools.find(({ id }) => id === pool_id) as SwapPool;
        equal(granted_at === undefined, neverFits(last as SwapView, pool) !== undefined, `pool ${pool_id}`);
      }
    }),
    { numRuns: 200 },
  );
  t.pass();
});

test('the clock of a pool is that of its oldest task', (t) => {
  fc.assert(
    fc.property(scene, (chosen) => {
      replay(chosen, undefined, (_, waiting, pools) => {
        for (const pool of pools) {
          const oldest = waiting.find(({ pool_id }) => pool_id === pool.id);
          equal(pool.passed_over_since, oldest?.first_passed_at);
        }
      });
    }),
    { numRuns: 60 },
  );
  t.pass();
});

test('no task is passed for longer than the bound by a younger one of a pool that cannot be loaded beside its own', (t) => {
  let passes = 0;
  fc.assert(
    fc.property(scene, (chosen) => {
      let now = 0;
      replay(
        chosen,
        (view) => void (now = view.now),
        (granted, waiting, pools) => {
          const poolOf = ({ pool_id }: SimulatedTask): SwapPool =>
            pools.find(({ id }) => id === pool_id) as SwapPool;
          for (const task of waiting) {
            const pool = poolOf(task);
            if (task.sequence >= granted.sequence || task.first_passed_at === undefined) continue;
            if (pool.state === 'loaded' || !exclude(pool, poolOf(granted), pools)) continue;
            if (neverFits({ devices, pools }, pool) !== undefined) continue;
            passes++;
            ok(now - task.first_passed_at < chosen.rules.max_overtaken_ms);
          }
        },
      );
    }),
    { numRuns: 200 },
  );
  t.true(passes > 1000);
});

test('with one other pool an overdue task waits only for older tasks, what runs, and one unload and load of each', (t) => {
  const pair = fc
    .tuple(model('a'), model('b'))
    .map((both) => both.map((one) => ({ ...one, memory_bytes: { gpu0: BUDGET }, pinned: false })));
  const scenes = fc.record({ models: pair, trace: trace(['a', 'b']), rules });
  let overdue = 0;
  fc.assert(
    fc.property(scenes, (chosen) => {
      const { tasks } = replay(chosen);
      const longest_run_ms = tasks.reduce((most, { run_ms }) => Math.max(most, run_ms), 0);
      for (const pool of chosen.models) {
        const other = chosen.models.find((one) => one !== pool) as SimulatedModel;
        const own = tasks.filter(({ pool_id }) => pool_id === pool.id);
        for (const task of own) {
          const due_at = (task.first_passed_at ?? Infinity) + chosen.rules.max_overtaken_ms;
          if ((task.granted_at ?? 0) < due_at) continue;
          // Whoever is not the oldest and the next of its own pool also waits for others of that.
          if (own.some((one) => goesBefore(one, task) && (one.granted_at ?? 0) >= due_at)) continue;
          overdue++;
          const older_ms = tasks
            .filter(
              (one) =>
                one.pool_id === other.id && one.sequence < task.sequence && (one.granted_at ?? 0) >= due_at,
            )
            .reduce((sum, { run_ms }) => sum + run_ms, 0);
          const most_ms =
            older_ms + 2 * longest_run_ms + pool.unload_ms + other.load_ms + other.unload_ms + pool.load_ms;
          ok((task.granted_at ?? Infinity) - due_at <= most_ms);
        }
      }
    }),
    { numRuns: 200 },
  );
  t.true(overdue > 100);
});

function goesBefore(one: SimulatedTask, other: SimulatedTask): boolean {
  return one.sequence < other.sequence || (one.priority === 'interactive' && other.priority === 'batch');
}

test('three models with room for one are loaded at most a third as often as in order of arrival', (t) => {
  const trace = makeTrace(MODELS, { tasks: 400, utilisation: 0.75, seed: 3 });
  const { tasks, loads } = simulate({
    devices: DEVICES,
    models: MODELS,
    trace,
    plan: (view) => planSwaps(view),
  });
  const changes = trace.filter(({ pool_id }, i) => trace[i - 1]?.pool_id !== pool_id).length;
  t.true(loads <= changes / 3, `${loads} loads, ${changes} in order of arrival`);
  for (const { first_passed_at = 0, last_passed_at = 0 } of tasks)
    t.true(last_passed_at - first_passed_at <= DEFAULT_SWAP_RULES.max_overtaken_ms);
});
