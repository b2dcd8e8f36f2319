import test from 'ava';
import fc from 'fast-check';
import { SUPERVISION } from '../../src/actors/supervision.ts';
import {
  breakerOpenFor,
  NO_HISTORY,
  noteFailed,
  noteRestarted,
  recentRestarts,
  restartDelay,
  type RestartHistory,
} from '../../src/machines/restart-policy.ts';

const RULE = SUPERVISION.replica.budget;

/** The wait before each restart of an engine that fails again at once, up to the breaker. */
function waits(isDevice: boolean): (number | undefined)[] {
  let history: RestartHistory = NO_HISTORY;
  let now = 0;
  const all: (number | undefined)[] = [];
  for (let tries = 0; tries < 20; tries++) {
    history = noteFailed(history, isDevice);
    const wait = restartDelay(RULE, history, now, 0.5);
    all.push(wait);
    if (wait === undefined) break;
    now += wait;
    history = noteRestarted(RULE, history, now);
  }
  return all;
}

test('each failure in a row doubles the wait, and the fifth opens the breaker', (t) => {
  t.deepEqual(waits(false), [1000, 2000, 4000, 8000, undefined]);
});

test('after a fault of the device the wait is twice as long, and such faults have a breaker of their own', (t) => {
  t.deepEqual(waits(true), [2000, 4000, 8000, 16_000, undefined]);
  let history: RestartHistory = NO_HISTORY;
  for (let pair = 0; pair < 4; pair++) history = noteFailed(noteFailed(history, true), false);
  t.not(restartDelay(RULE, history, 0, 0.5), undefined);
  t.is(restartDelay(RULE, noteFailed(history, true), 0, 0.5), undefined);
});

test('ten restarts within a minute open the breaker, however well each one went; older ones do not count', (t) => {
  let history: RestartHistory = NO_HISTORY;
  for (let restart = 0; restart < 10; restart++) history = noteRestarted(RULE, history, restart * 5000);
  const failed = noteFailed(history, false);
  t.is(restartDelay(RULE, failed, 50_000, 0.5), undefined);
  t.is(restartDelay(RULE, failed, 60_001, 0.5), 1000);
  t.is(recentRestarts(RULE, history, 60_001).length, 9);
});

test('the wait varies by a tenth, is never below its least, and grows to its longest and no further', (t) => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 4 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (failures, random) => {
        const wait = restartDelay(RULE, { ...NO_HISTORY, failures }, 0, random) as number;
        const middle = Math.min(RULE.max_ms, RULE.initial_ms * RULE.factor ** (failures - 1));
        t.true(wait >= RULE.min_ms && wait >= Math.floor(middle * 0.9) && wait <= Math.ceil(middle * 1.1));
      },
    ),
  );
  t.is(restartDelay({ ...RULE, initial_ms: 1 }, { ...NO_HISTORY, failures: 1 }, 0, 0), 500);
  t.is(restartDelay({ ...RULE, breaker_threshold: 99 }, { ...NO_HISTORY, failures: 50 }, 0, 0.5), 60_000);
});

test('each failed trial doubles the time for which the breaker stays open, up to what a timer holds', (t) => {
  t.deepEqual(
    [0, 1, 2, 40].map((trials) => breakerOpenFor(RULE, trials)),
    [300_000, 600_000, 1_200_000, 2 ** 31 - 1],
  );
});
