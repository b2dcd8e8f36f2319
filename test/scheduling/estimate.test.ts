import test from 'ava';
import fc from 'fast-check';
import { onTimeProbability, predictStart, smooth } from '../../src/scheduling/estimate.ts';

const RATES = { first_token_ms: 20, service_ms: 100, load_ms: 800 };

test('a free slot means now; an empty pool means when it is ready', (t) => {
  const view = {
    rates: RATES,
    ahead: 0,
    slots_total: 2,
    slots_free: 1,
    until_ready_ms: 0,
    held_ms: () => [30],
  };
  t.is(predictStart(view), 0);
  t.is(predictStart({ ...view, until_ready_ms: 800 }), 800);
});

test('with every slot taken, the soonest lease to end decides, then one service time a round', (t) => {
  const view = { rates: RATES, slots_total: 2, slots_free: 0, until_ready_ms: 0, held_ms: () => [30, 90] };
  t.deepEqual(
    [0, 1, 2, 3].map((ahead) => predictStart({ ...view, ahead })),
    [10, 70, 110, 170],
  );
});

test('is never earlier for a task that is further behind', (t) => {
  fc.assert(
    fc.property(
      fc.record({
        slots_total: fc.integer({ min: 1, max: 8 }),
        slots_free: fc.nat(8),
        until_ready_ms: fc.nat(5000),
        held_ms: fc.array(fc.nat(500), { maxLength: 8 }),
      }),
      fc.nat(50),
      (view, ahead) => {
        const full = { rates: RATES, ...view, held_ms: () => view.held_ms.slice(0, view.slots_total) };
        t.true(predictStart({ ...full, ahead: ahead + 1 }) >= predictStart({ ...full, ahead }));
      },
    ),
  );
});

test('the chance to be on time falls from 1 to 0 and never rises', (t) => {
  t.is(onTimeProbability(0, 1000), 1);
  t.is(onTimeProbability(5000, 1000), 0);
  fc.assert(
    fc.property(fc.nat(5000), fc.nat(5000), (end, later) => {
      t.true(onTimeProbability(end + later, 2000) <= onTimeProbability(end, 2000));
    }),
  );
});

test('a mean starts at its first sample', (t) => {
  t.is(smooth(undefined, 40), 40);
  t.is(smooth(40, 90), 50);
});
