import test from 'ava';
import fc from 'fast-check';
import { RateLimit } from '../../src/scheduling/rate-limit.ts';

/** How many are allowed at one moment. */
function burstAt(limit: RateLimit, now: number): number {
  let taken = 0;
  while (taken < 1000 && limit.take(now)) taken++;
  return taken;
}

test('those of one second may come at once, then one after the other', (t) => {
  const limit = new RateLimit(4);
  t.is(burstAt(limit, 0), 4);
  t.is(limit.waitFor(0), 250);
  t.is(limit.waitFor(100), 150);
  t.true(limit.take(250));
  t.is(limit.waitFor(250), 250);
});

test('at the very millisecond it is allowed, and not one before', (t) => {
  const limit = new RateLimit(3);
  burstAt(limit, 1000);
  const wait = limit.waitFor(1000);
  t.is(wait, 334);
  t.is(limit.waitFor(1333), 1);
  t.false(limit.take(1333));
  t.is(limit.waitFor(1334), 0);
  t.true(limit.take(1334));
});

test('a rate below one is one in several seconds', (t) => {
  const limit = new RateLimit(0.1);
  t.is(burstAt(limit, 0), 1);
  t.is(limit.waitFor(0), 10_000);
  t.is(burstAt(limit, 9_999), 0);
  t.is(burstAt(limit, 10_000), 1);
});

test('a rate with a fraction may burst by the next whole number', (t) => {
  t.is(burstAt(new RateLimit(2.5), 0), 3);
  t.is(burstAt(new RateLimit(2.5, 1), 0), 1);
});

test('a long pause saves up one burst, not more', (t) => {
  const limit = new RateLimit(5);
  t.is(burstAt(limit, 0), 5);
  t.is(burstAt(limit, 1e12), 5);
});

test('while the clock does not move, the burst is all there is', (t) => {
  const limit = new RateLimit(2);
  t.is(burstAt(limit, 77), 2);
  t.is(limit.waitFor(77), 500);
  t.is(limit.waitFor(77), 500);
  t.is(burstAt(limit, 77), 0);
});

test('a refusal and a look count nothing', (t) => {
  const limit = new RateLimit(1);
  t.is(limit.waitFor(0), 0);
  t.true(limit.take(0));
  for (let i = 0; i < 10; i++) t.false(limit.take(10));
  t.true(limit.take(1000));
});

test('never lets more through than the burst and the rate allow, and waiting as told is always enough', (t) => {
  fc.assert(
    fc.property(
      fc.double({ min: 0.01, max: 5000, noNaN: true }),
      fc.integer({ min: 1, max: 20 }),
      fc.double({ min: 0, max: 1e9, noNaN: true }),
      fc.array(fc.double({ min: 0, max: 5000, noNaN: true }), { maxLength: 60 }),
      (per_second, burst, start, pauses) => {
        const limit = new RateLimit(per_second, burst);
        let now = start;
        let allowed = 0;
        for (const pause of pauses) {
          now += pause;
          while (allowed < 500 && limit.take(now)) allowed++;
          const most = burst + ((now - start) / 1000) * per_second;
          t.true(allowed <= most + 1e-3, `${allowed} came where ${most} may`);
          now += limit.waitFor(now);
          t.is(limit.waitFor(now), 0);
        }
      },
    ),
  );
});
