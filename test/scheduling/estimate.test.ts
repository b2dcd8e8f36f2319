import test from 'ava';
import fc from 'fast-check';
import {
  backoff,
  expectedTokens,
  newRates,
  noteFirstToken,
  noteRun,
  onTimeProbability,
  predictDuration,
  predictStart,
  retryAfter,
  serviceTime,
  smooth,
  type Rates,
  type StartView,
} from '../../src/scheduling/estimate.ts';

const RATES: Rates = {
  first_token_ms: 20,
  token_ms: 2,
  tokens_out: 40,
  load_ms: 800,
  least_first_token_ms: 20,
  least_token_ms: 2,
};

const view = (changes: Partial<StartView>): StartView => ({
  rates: RATES,
  ahead: { tasks: 0, tokens: 0 },
  slots_total: 2,
  slots_free: 0,
  until_ready_ms: 0,
  running: () => [70, 10],
  ...changes,
});

test('a free slot means now; an empty pool means when it is ready', (t) => {
  t.is(predictStart(view({ slots_free: 1 })), 0);
  t.is(predictStart(view({ slots_free: 2, until_ready_ms: 800, running: () => [] })), 800);
});

test('with every slot taken, the run that ends soonest decides, then the work ahead shared by the slots', (t) => {
  t.deepEqual(
    [0, 1, 2].map((tasks) => predictStart(view({ ahead: { tasks, tokens: tasks * 40 } }))),
    [10, 10 + 50, 10 + 100],
  );
});

test('long tasks ahead cost more than short ones', (t) => {
  t.is(predictStart(view({ ahead: { tasks: 2, tokens: 2000 } })), 10 + 20 + 2000);
  t.is(predictStart(view({ ahead: { tasks: 2, tokens: 4 } })), 10 + 20 + 4);
});

test('running tasks are looked at only where no slot is free, and one that is over its time ends now', (t) => {
  const untouched = (): number[] => t.fail() as never;
  t.is(predictStart(view({ slots_free: 1, running: untouched })), 0);
  t.is(predictStart(view({ slots_free: 1, ahead: { tasks: 1, tokens: 40 }, running: untouched })), 50);
  t.is(predictStart(view({ running: () => [] })), 0);
  t.is(predictStart(view({ running: () => [-30, 5] })), 0);
});

test('is never earlier for a task with more ahead of it', (t) => {
  const work = fc.record({ tasks: fc.nat(50), tokens: fc.nat(5000) });
  fc.assert(
    fc.property(
      fc.record({
        slots_total: fc.integer({ min: 0, max: 8 }),
        slots_free: fc.nat(8),
        until_ready_ms: fc.nat(5000),
        running: fc.array(fc.nat(500), { maxLength: 8 }).map((all) => () => all),
      }),
      work,
      work,
      (changes, ahead, more) => {
        const further = { tasks: ahead.tasks + more.tasks, tokens: ahead.tokens + more.tokens };
        t.true(
          predictStart(view({ ...changes, ahead: further })) >= predictStart(view({ ...changes, ahead })),
        );
      },
    ),
  );
});

test('the tokens of a task are its guess, else the mean, and never more than it may write', (t) => {
  t.is(expectedTokens(RATES, { max_tokens: 100, expected_tokens: 7 }), 7);
  t.is(expectedTokens(RATES, { max_tokens: 100 }), 40);
  t.is(expectedTokens(RATES, { max_tokens: 30 }), 30);
  t.is(expectedTokens(RATES, { max_tokens: 30, expected_tokens: 1_000_000 }), 30);
  t.is(expectedTokens(RATES, { max_tokens: 30, workload: 'embedding' }), 0);
});

test('before anything is measured a task is taken to need half a second', (t) => {
  const rates = newRates();
  t.is(serviceTime(rates, expectedTokens(rates, { max_tokens: 1000 })), 500);
  t.is(serviceTime(RATES, 40), 100);
});

test('a finished run says how long and how fast runs are', (t) => {
  const rates = newRates();
  noteRun(rates, 11, 500, 600);
  t.is(rates.tokens_out, 11);
  t.is(rates.token_ms, 10);
  noteRun(rates, 1, 700, 700);
  noteRun(rates, 0, undefined, 900);
  t.is(rates.token_ms, 10, 'fewer than two tokens have no speed');
  t.true((rates.tokens_out ?? 0) < 11);
});

test('the least duration counts only what was measured and what the caller has said', (t) => {
  t.is(predictDuration(newRates(), { max_tokens: 500, expected_tokens: 500 }), 0);
  t.is(predictDuration(RATES, { max_tokens: 500 }), 20);
  t.is(predictDuration(RATES, { max_tokens: 500, expected_tokens: 100 }), 220);
  t.is(predictDuration(RATES, { max_tokens: 50, expected_tokens: 100 }), 120);
});

test('one slow run does not make every later one slow, and an engine that has become slow is known as such in time', (t) => {
  const rates = newRates();
  const wish = { max_tokens: 100, expected_tokens: 11 };
  const run = (first_ms: number, token_ms: number): void => {
    noteFirstToken(rates, first_ms);
    noteRun(rates, 11, 0, 10 * token_ms);
  };
  run(5000, 400);
  run(50, 10);
  t.is(predictDuration(rates, wish), 160);
  run(5000, 400);
  t.true(predictDuration(rates, wish) < 1000);
  for (let i = 0; i < 100; i++) run(5000, 400);
  t.true(predictDuration(rates, wish) > 9000);
});

test('a refused caller may come back when the next place is free, in a quarter of a second to half a minute', (t) => {
  t.deepEqual(
    [0, 1200.4, 90_000].map((next_slot_ms) => retryAfter({ next_slot_ms })),
    [250, 1201, 30_000],
  );
});

test('callers are asked to slow down from half a queue on, at most by what a place needs to become free', (t) => {
  const load = (waiting: number): number =>
    backoff({ waiting, capacity: 10, slots_total: 2, rates: RATES, next_slot_ms: 0 });
  t.deepEqual([0, 5, 6, 8, 10, 12].map(load), [0, 0, 10, 30, 50, 50]);
  t.is(backoff({ waiting: 0, capacity: 1, slots_total: 0, rates: newRates(), next_slot_ms: 0 }), 0);
  t.is(backoff({ waiting: 1, capacity: 1, slots_total: 0, rates: newRates(), next_slot_ms: 0 }), 500);
});

test('the chance to be on time falls from 1 to 0 and never rises', (t) => {
  t.is(onTimeProbability(0, 1000), 1);
  t.is(onTimeProbability(5000, 1000), 0);
  t.is(onTimeProbability(0, 0), 0);
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
