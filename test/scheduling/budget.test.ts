import test from 'ava';
import fc from 'fast-check';
import {
  addSpending,
  budgetFields,
  chargeOf,
  NOTHING_SPENT,
  refusalByBudget,
  remainingOf,
  type Account,
  type Budgets,
} from '../../src/scheduling/budget.ts';

const PRICE = 0.000002;
const NONE: Budgets = { tokens: null, time_ms: null, cost: null };
const NEW: Account = { spent: NOTHING_SPENT, reserved_tokens: 0 };

const spent = (tokens: number, time_ms = 0): Account => ({
  spent: { tokens, time_ms, cost: tokens * PRICE },
  reserved_tokens: 0,
});

test('without budgets nothing is refused and nothing is reported', (t) => {
  t.is(refusalByBudget(NONE, spent(1e9, 1e9), 1e9, PRICE), undefined);
  t.deepEqual(remainingOf(NONE, spent(1e9, 1e9), PRICE), {});
  t.deepEqual(budgetFields({}), {});
});

test('what is left is the budget less what was spent and what is reserved', (t) => {
  const budgets = { tokens: 1000, time_ms: 5000, cost: 1 };
  const account = { spent: { tokens: 100, time_ms: 700.5, cost: 0.0002 }, reserved_tokens: 50 };
  const left = remainingOf(budgets, account, PRICE);
  t.deepEqual(left, { tokens: 850, time_ms: 4299, cost: 0.9997 });
  t.deepEqual(budgetFields(left), {
    tokens_budget_remaining: 850,
    time_budget_remaining_ms: 4299,
    cost_budget_remaining: 0.9997,
  });
});

test('only the configured budgets are reported', (t) => {
  t.deepEqual(Object.keys(remainingOf({ ...NONE, time_ms: 10 }, NEW, PRICE)), ['time_ms']);
});

test('a task is charged its tokens, its decoding time and its price for each token', (t) => {
  const charge = chargeOf({ tokens_out: 64, decode_ms: 2300 }, 128, PRICE);
  t.deepEqual(charge, { tokens: 64, time_ms: 2300, cost: 0.000128 });
  t.deepEqual(addSpending(charge, charge), { tokens: 128, time_ms: 4600, cost: 0.000256 });
});

test('no task is charged more tokens than it reserved', (t) => {
  t.is(chargeOf({ tokens_out: 70, decode_ms: 1 }, 64, PRICE).tokens, 64);
});

test('money is exact to a billionth, however many charges there were', (t) => {
  let sum = NOTHING_SPENT;
  for (let i = 0; i < 3; i++) sum = addSpending(sum, chargeOf({ tokens_out: 1, decode_ms: 0 }, 1, 0.1));
  t.is(sum.cost, 0.3);
  t.is(remainingOf({ ...NONE, cost: 0.7 }, { spent: sum, reserved_tokens: 0 }, PRICE).cost, 0.4);
  for (let i = 0; i < 100_000; i++)
    sum = addSpending(sum, chargeOf({ tokens_out: 1, decode_ms: 0 }, 1, PRICE));
  t.is(sum.cost, 0.5);
});

test('exactly what is left fits, one token more does not', (t) => {
  const budgets = { ...NONE, tokens: 100 };
  t.is(refusalByBudget(budgets, spent(36), 64, PRICE), undefined);
  const refusal = refusalByBudget(budgets, spent(36), 65, PRICE);
  t.like(refusal, { code: 'ADMISSION_REJECT', policy_label: 'budget.tokens', retriable: false });
  t.is(refusal?.retry_after_ms, undefined);
  t.regex(
    refusal?.message ?? '',
    /session budget tokens: 64 of 100 tokens are left .* max_tokens asks for 65/,
  );
});

test('exactly the money that is left fits, whatever the fractions', (t) => {
  const budgets = { ...NONE, cost: 0.3 };
  const account = { spent: { tokens: 1, time_ms: 0, cost: 0.1 }, reserved_tokens: 1 };
  t.is(refusalByBudget(budgets, account, 1, 0.1), undefined);
  t.like(refusalByBudget(budgets, account, 2, 0.1), { policy_label: 'budget.cost', retriable: true });
  t.like(refusalByBudget(budgets, account, 3, 0.1), { policy_label: 'budget.cost', retriable: false });
});

test('a refusal is retriable only where running tasks could give back enough', (t) => {
  const budgets = { ...NONE, tokens: 100 };
  const account = { spent: { tokens: 20, time_ms: 0, cost: 0 }, reserved_tokens: 60 };
  t.like(refusalByBudget(budgets, account, 80, PRICE), { retriable: true, retry_after_ms: 1000 });
  t.like(refusalByBudget(budgets, account, 81, PRICE), { retriable: false });
  const costs = { ...NONE, cost: 0.0002 };
  const dear = { spent: { tokens: 20, time_ms: 0, cost: 0.00004 }, reserved_tokens: 60 };
  t.like(refusalByBudget(costs, dear, 80, PRICE), { policy_label: 'budget.cost', retriable: true });
  t.like(refusalByBudget(costs, dear, 81, PRICE), { policy_label: 'budget.cost', retriable: false });
});

test('nothing is retriable once the time is used up', (t) => {
  const account = { spent: { tokens: 0, time_ms: 10, cost: 0 }, reserved_tokens: 100 };
  t.like(refusalByBudget({ ...NONE, tokens: 100, time_ms: 10 }, account, 1, PRICE), { retriable: false });
});

test('time is not reserved: it is refused once it is used up, for good', (t) => {
  const budgets = { ...NONE, time_ms: 1000 };
  t.is(refusalByBudget(budgets, spent(0, 999), 1e6, PRICE), undefined);
  for (const used of [999.5, 1000, 1500])
    t.like(refusalByBudget(budgets, spent(0, used), 1, PRICE), {
      code: 'ADMISSION_REJECT',
      policy_label: 'budget.time',
      retriable: false,
    });
  t.is(remainingOf(budgets, spent(0, 1500), PRICE).time_ms, -500);
});

test('a budget of nothing refuses everything', (t) => {
  for (const budget of ['tokens', 'time_ms', 'cost'] as const)
    t.is(refusalByBudget({ ...NONE, [budget]: 0 }, NEW, 1, PRICE)?.retriable, false, budget);
});

test('a budget that was made smaller is used up, and never negative but by time', (t) => {
  t.deepEqual(remainingOf({ tokens: 10, time_ms: 10, cost: 0.00001 }, spent(500, 30), PRICE), {
    tokens: 0,
    time_ms: -20,
    cost: 0,
  });
});

test('what is not refused fits in every budget there is', (t) => {
  const limit = fc.option(fc.nat(1000));
  fc.assert(
    fc.property(
      fc.record({ tokens: limit, time_ms: limit, cost: limit.map((c) => (c === null ? null : c / 1e5)) }),
      fc.record({ tokens: fc.nat(500), time_ms: fc.nat(500), reserved: fc.nat(500) }),
      fc.integer({ min: 1, max: 500 }),
      (budgets, used, max_tokens) => {
        const account = { ...spent(used.tokens, used.time_ms), reserved_tokens: used.reserved };
        const refusal = refusalByBudget(budgets, account, max_tokens, PRICE);
        const left = remainingOf(budgets, account, PRICE);
        const fits =
          max_tokens <= (left.tokens ?? Infinity) &&
          (left.time_ms ?? 1) > 0 &&
          Math.round(max_tokens * PRICE * 1e9) <= Math.round((left.cost ?? 1) * 1e9);
        t.is(refusal === undefined, fits);
        const afterAll = refusalByBudget(budgets, { ...account, reserved_tokens: 0 }, max_tokens, PRICE);
        if (refusal) t.is(refusal.retriable, afterAll === undefined);
      },
    ),
  );
});
