import { failure, type Failure } from '../errors.ts';

/** What a session may spend; `null` is no limit, and then nothing is reported. */
export interface Budgets {
  /** Generated tokens. */
  tokens: number | null;
  /** Decoding time in milliseconds. */
  time_ms: number | null;
  /** Currency units. */
  cost: number | null;
}

/** What was used, in the units of {@link Budgets}. */
export interface Spending {
  tokens: number;
  time_ms: number;
  cost: number;
}

export const NOTHING_SPENT: Spending = { tokens: 0, time_ms: 0, cost: 0 };

/**
 * A session as its budgets see it. A task reserves its `max_tokens`, and by that their cost, when it is admitted; at
 * its end the reservation is given back and what it used is charged. Time is not reserved: nobody knows it before.
 */
export interface Account {
  spent: Spending;
  /** Tokens that unfinished tasks may still write. */
  reserved_tokens: number;
}

/** What is left of each budget there is. */
export interface Remaining {
  /** Never below 0. */
  tokens?: number;
  /** Whole milliseconds; below 0 where tasks that ran at once took more than was left. */
  time_ms?: number;
  /** Never below 0; rounded to 1e-9. */
  cost?: number;
}

/** How long to wait for reservations to come back, in milliseconds: how long tasks run is not known here. */
const RETRY_AFTER_MS = 1000;

/**
 * What a task that is over has used. No more than was reserved is charged, so that tasks which were admitted together
 * cannot spend more tokens than the budget has.
 */
export function chargeOf(
  usage: { tokens_out: number; decode_ms: number },
  reserved_tokens: number,
  cost_per_output_token: number,
): Spending {
  const tokens = Math.min(usage.tokens_out, reserved_tokens);
  return { tokens, time_ms: usage.decode_ms, cost: costOf(tokens, cost_per_output_token) };
}

export function addSpending(spent: Spending, charge: Spending): Spending {
  return {
    tokens: spent.tokens + charge.tokens,
    time_ms: spent.time_ms + charge.time_ms,
    cost: exact(spent.cost + charge.cost),
  };
}

/** Budget less what was spent and what is reserved. */
export function remainingOf(budgets: Budgets, account: Account, cost_per_output_token: number): Remaining {
  const { spent, reserved_tokens } = account;
  const remaining: Remaining = {};
  if (budgets.tokens !== null)
    remaining.tokens = Math.max(0, budgets.tokens - spent.tokens - reserved_tokens);
  if (budgets.time_ms !== null) remaining.time_ms = Math.floor(budgets.time_ms - spent.time_ms);
  if (budgets.cost !== null)
    remaining.cost = Math.max(
      0,
      exact(budgets.cost - spent.cost - costOf(reserved_tokens, cost_per_output_token)),
    );
  return remaining;
}

/** The same under the names of the wire: of `SessionInfo` and of `metrics` events. */
export function budgetFields({ tokens, time_ms, cost }: Remaining): {
  tokens_budget_remaining?: number;
  time_budget_remaining_ms?: number;
  cost_budget_remaining?: number;
} {
  return {
    ...(tokens === undefined ? {} : { tokens_budget_remaining: tokens }),
    ...(time_ms === undefined ? {} : { time_budget_remaining_ms: time_ms }),
    ...(cost === undefined ? {} : { cost_budget_remaining: cost }),
  };
}

/**
 * Why a task of so many tokens may not be admitted: ADMISSION_REJECT with the label of the budget. What is asked for
 * must fit. It is retriable only where it would fit once running tasks have given everything back.
 * @returns undefined where it fits
 */
export function refusalByBudget(
  budgets: Budgets,
  account: Account,
  max_tokens: number,
  cost_per_output_token: number,
): Failure | undefined {
  const left = remainingOf(budgets, account, cost_per_output_token);
  const cost = costOf(max_tokens, cost_per_output_token);
  if (left.tokens !== undefined && max_tokens > left.tokens)
    return refuse(
      'tokens',
      `${left.tokens} of ${budgets.tokens} tokens are left and max_tokens asks for ${max_tokens}`,
    );
  if (left.time_ms !== undefined && left.time_ms <= 0)
    return refuse(
      'time',
      `all ${budgets.time_ms} ms of decoding are used and max_tokens asks for ${max_tokens} tokens more`,
    );
  if (left.cost !== undefined && cost > left.cost)
    return refuse(
      'cost',
      `${decimal(left.cost)} of ${decimal(budgets.cost ?? 0)} currency units are left and max_tokens ${max_tokens} asks for ${decimal(cost)}`,
    );
  return undefined;

  function refuse(budget: 'tokens' | 'time' | 'cost', what: string): Failure {
    const alone = { ...account, reserved_tokens: 0 };
    const mayRecover =
      account.reserved_tokens > 0 &&
      refusalByBudget(budgets, alone, max_tokens, cost_per_output_token) === undefined;
    const advice = mayRecover
      ? 'ask for less, or again when running tasks have given theirs back'
      : 'ask for less, or use another session_id';
    return failure('ADMISSION_REJECT', `session budget ${budget}: ${what}; ${advice}`, {
      policy_label: `budget.${budget}`,
      retriable: mayRecover,
      ...(mayRecover ? { retry_after_ms: RETRY_AFTER_MS } : {}),
    });
  }
}

/** Without an exponent, which not everybody reads as a number. */
export function decimal(cost: number): string {
  return cost.toFixed(9).replace(/\.?0+$/, '');
}

function costOf(tokens: number, cost_per_output_token: number): number {
  return exact(tokens * cost_per_output_token);
}

/** Sums of binary fractions are a little off; a billionth of a unit is finer than any price. */
function exact(cost: number): number {
  return Math.round(cost * 1e9) / 1e9;
}
