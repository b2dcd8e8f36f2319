import test from 'ava';
import fc from 'fast-check';
import { predictLoad } from '../../src/scheduling/predict-load.ts';
import { planSwaps } from '../../src/scheduling/swap-planner.ts';
import { DEFAULT_SWAP_RULES, type SwapPool, type SwapRules } from '../../src/scheduling/swap-view.ts';
import { simulate, type SimulatedModel } from '../helpers/swap-simulation.ts';
import { busy, idle, NOW, queue, swapPool as pool, viewOf } from './swap-pools.ts';

const predict = (id: string, ...pools: SwapPool[]): number | undefined =>
  predictLoad(viewOf(...pools), DEFAULT_SWAP_RULES, id);

test('a loaded pool is there, a loading one needs the rest of its load', (t) => {
  t.is(predict('a', pool('a', idle(0))), 0);
  t.is(predict('a', pool('a', { state: 'loading', since: NOW - 1000 })), 3000);
});

test('a newcomer to a cold pool waits for its load, and for whoever has to go first', (t) => {
  t.is(predict('a', pool('a')), 4000);
  t.is(predict('a', pool('a'), pool('b', idle(9))), 500 + 4000);
  t.is(predict('a', pool('a'), pool('b', { ...busy(), state: 'unloading' })), 1000 + 500 + 4000);
  t.is(predict('a', pool('a'), pool('b', { ...busy(), ...queue(10, 9) })), 1000 + 10_000 + 500 + 4000);
});

test('a pool that others pass waits no longer than the bound', (t) => {
  const passed = pool('a', { ...queue(1, 9000), passed_over_since: NOW - 8000 });
  const due_ms = DEFAULT_SWAP_RULES.max_overtaken_ms - 8000;
  t.is(predict('a', passed, pool('b', { ...busy(), ...queue(900, 10) })), due_ms + 500 + 4000);
});

test('of what came in the same millisecond, whoever came first is loaded first', (t) => {
  const came = (sequence: number): Partial<SwapPool> => ({
    ...queue(1, 100),
    oldest: { sequence, accepted_at: NOW },
  });
  t.is(predict('a', pool('a', came(2)), pool('b', came(1))), 4000 + 1000 + 500 + 4000);
  t.is(predict('b', pool('a', came(2)), pool('b', came(1))), 4000);
});

test('nothing is said of a pool that never fits, must not be loaded, or does not exist', (t) => {
  t.is(predict('a', pool('a', { memory_bytes: { gpu0: 101 } })), undefined);
  t.is(predict('a', pool('a', { can_load: false })), undefined);
  t.is(predict('z', pool('a')), undefined);
});

const models = fc.array(
  fc.record({ load_ms: fc.integer({ min: 1, max: 500 }), unload_ms: fc.integer({ min: 1, max: 50 }) }),
  { minLength: 1, maxLength: 4 },
);

test('if nobody else comes and nobody is overdue, every prediction comes true', (t) => {
  const rules: SwapRules = { ...DEFAULT_SWAP_RULES, max_overtaken_ms: Infinity, payback: Infinity };
  fc.assert(
    fc.property(
      models,
      fc.array(fc.tuple(fc.nat(3), fc.integer({ min: 1, max: 300 })), { minLength: 1 }),
      (all, runs) => {
        const simulated: SimulatedModel[] = all.map((model, i) => ({
          id: `m${i}`,
          memory_bytes: { gpu0: 100 },
          slots: 1,
          ...model,
        }));
        const trace = runs.map(([pick, run_ms]) => ({
          at_ms: 0,
          pool_id: `m${pick % simulated.length}`,
          priority: 'batch' as const,
          run_ms,
        }));
        const predicted = new Map<string, number | undefined>();
        const { tasks } = simulate({
          devices: [{ id: 'gpu0', budget_bytes: 100 }],
          models: simulated,
          trace,
          plan: (view) => {
            for (const { id, waiting } of view.pools)
              if (waiting > 0 && !predicted.has(id)) predicted.set(id, predictLoad(view, rules, id));
            return planSwaps(view, rules);
          },
        });
        for (const [id, predicted_ms] of predicted) {
          const loaded_at = tasks.find(({ pool_id }) => pool_id === id)?.granted_at;
          t.true(Math.abs((predicted_ms ?? Infinity) - (loaded_at ?? 0)) <= 1);
        }
      },
    ),
    { numRuns: 300 },
  );
  t.pass();
});
