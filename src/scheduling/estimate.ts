import type { WorkAhead } from './line.ts';

/** What a pool has measured of itself; undefined where nothing was measured yet. Means that follow the last runs. */
export interface Rates {
  /** Milliseconds from grant to first token. */
  first_token_ms: number | undefined;
  /** Milliseconds from one token of a run to its next. */
  token_ms: number | undefined;
  /** Tokens of a finished run. */
  tokens_out: number | undefined;
  /** Milliseconds from the begin of a load until the engine is ready. */
  load_ms: number | undefined;
  /** The shortest times lately to a first token and between two, in milliseconds; each further run forgets a little. */
  least_first_token_ms?: number | undefined;
  least_token_ms?: number | undefined;
}

/** Nothing measured. */
export function newRates(): Rates {
  return {
    first_token_ms: undefined,
    token_ms: undefined,
    tokens_out: undefined,
    load_ms: undefined,
    least_first_token_ms: undefined,
    least_token_ms: undefined,
  };
}

/** Stand in for a rate until the first run has been measured: half a second for a task that names no length. */
const UNMEASURED = { first_token_ms: 100, token_ms: 10, tokens_out: 40 };

/** Exponentially weighted mean that starts at its first sample. */
export function smooth(mean: number | undefined, sample: number, weight = 0.2): number {
  return mean === undefined ? sample : mean + weight * (sample - mean);
}

/** Share of the way to each slower sample by which the least is forgotten. */
const FORGETS = 0.05;

function least(known: number | undefined, sample: number): number {
  return known === undefined || sample < known ? sample : known + FORGETS * (sample - known);
}

/** Takes a first token into account. @param ms since the slot was granted */
export function noteFirstToken(rates: Rates, ms: number): void {
  rates.first_token_ms = smooth(rates.first_token_ms, ms);
  rates.least_first_token_ms = least(rates.least_first_token_ms, ms);
}

/**
 * Takes a finished run into account: its length, and its speed where it has two tokens to measure between.
 * @param tokens_out tokens of this run alone, without those of a run that it went on from
 * @param first_token_at when its first token came; undefined where none did
 * @param ended_at on the same clock
 */
export function noteRun(
  rates: Rates,
  tokens_out: number,
  first_token_at: number | undefined,
  ended_at: number,
): void {
  rates.tokens_out = smooth(rates.tokens_out, tokens_out);
  if (first_token_at === undefined || tokens_out < 2) return;
  const token_ms = Math.max(0, ended_at - first_token_at) / (tokens_out - 1);
  rates.token_ms = smooth(rates.token_ms, token_ms);
  rates.least_token_ms = least(rates.least_token_ms, token_ms);
}

/** What a request says of the length of its output. */
export interface OutputWish {
  /** Upper bound in tokens. */
  max_tokens: number;
  /** The caller's guess in tokens. */
  expected_tokens?: number | undefined;
  /** Only `completion`, the default, writes tokens. */
  workload?: string | undefined;
}

/** Tokens that a task is expected to write, whole ones: the caller's guess, else the mean; never above `max_tokens`. */
export function expectedTokens(rates: Rates, { max_tokens, expected_tokens, workload }: OutputWish): number {
  if (workload !== undefined && workload !== 'completion') return 0;
  return Math.min(max_tokens, Math.round(expected_tokens ?? rates.tokens_out ?? UNMEASURED.tokens_out));
}

/** Milliseconds for which a task that writes so many tokens is expected to hold its slot. */
export function serviceTime(rates: Rates, tokens: number): number {
  return workTime(rates, { tasks: 1, tokens });
}

/** Milliseconds of one slot that these tasks are expected to take, all together. */
export function workTime({ first_token_ms, token_ms }: Rates, { tasks, tokens }: WorkAhead): number {
  return tasks * (first_token_ms ?? UNMEASURED.first_token_ms) + tokens * (token_ms ?? UNMEASURED.token_ms);
}

/** Share of a load time that one which takes longer than usual is taken to need still. */
const LATE_SHARE = 0.25;

/** Milliseconds that a load still takes; never 0, for one that is late is not there yet. */
export function remainingLoad(load_ms: number, elapsed_ms: number): number {
  return Math.max(load_ms - elapsed_ms, load_ms * LATE_SHARE);
}

export interface StartView {
  rates: Rates;
  /** What goes first, as the queue counts it. */
  ahead: WorkAhead;
  slots_total: number;
  /** Slots that nobody holds, or will hold once the pool is ready; whoever is `ahead` has not got one yet. */
  slots_free: number;
  /** Milliseconds that the pool still needs to be ready; 0 when it is. */
  until_ready_ms: number;
  /** Milliseconds that each running task is still expected to take; asked for only where no slot is free. */
  running: () => readonly number[];
}

/**
 * When a task is expected to get a slot, in whole milliseconds from now: readiness; where more go first than slots are
 * free, also the rest of the run that ends soonest, and the work that goes first, shared by all slots.
 * Never earlier for more ahead.
 */
export function predictStart(view: StartView): number {
  const { ahead, until_ready_ms, slots_free, slots_total } = view;
  if (ahead.tasks < slots_free) return Math.round(until_ready_ms);
  const soonest_ms = slots_free > 0 ? 0 : view.running().reduce((a, b) => Math.min(a, b), Infinity);
  const work_ms = workTime(view.rates, ahead) / Math.max(1, slots_total);
  return Math.round(until_ready_ms + (Number.isFinite(soonest_ms) ? Math.max(0, soonest_ms) : 0) + work_ms);
}

/**
 * How long a task takes at least once it has a slot, in milliseconds: time to its first token, and its tokens where
 * its caller has said how many. Only the best that was measured lately counts, so that a deadline that this misses
 * cannot be kept, and one run that was slow shuts nobody out; a caller who names no length may get one token.
 */
export function predictDuration(rates: Rates, wish: OutputWish): number {
  const tokens = wish.expected_tokens === undefined ? 0 : expectedTokens(rates, wish);
  return (rates.least_first_token_ms ?? 0) + tokens * (rates.least_token_ms ?? 0);
}

/** How full a queue is, and how fast places in it become free. */
export interface QueueLoad {
  /** Places that are taken. */
  waiting: number;
  capacity: number;
  slots_total: number;
  rates: Rates;
  /** Milliseconds until a slot is free, and with it a place in the queue. */
  next_slot_ms: number;
}

/** When to try again after a full queue, in whole milliseconds: when the next place is free, from 250 to 30000. */
export function retryAfter({ next_slot_ms }: Pick<QueueLoad, 'next_slot_ms'>): number {
  return Math.min(30_000, Math.max(250, Math.ceil(next_slot_ms)));
}

/**
 * How long a caller should wait before it posts more, in whole milliseconds. 0 while the queue is at most half full.
 * Above that it grows evenly with every place that is taken, and at a full queue it is the time in which one place
 * becomes free: the expected time of a task of mean length, divided by the slots.
 */
export function backoff({ waiting, capacity, slots_total, rates }: QueueLoad): number {
  const excess = Math.min(1, (2 * waiting - capacity) / capacity);
  if (!(excess > 0)) return 0;
  const place_ms = serviceTime(rates, rates.tokens_out ?? UNMEASURED.tokens_out) / Math.max(1, slots_total);
  return Math.ceil(excess * place_ms);
}

/** Probability that the answer is complete before the deadline; 1 far inside, 0 when missed, falling between. */
export function onTimeProbability(predicted_end_ms: number, deadline_ms: number): number {
  if (deadline_ms <= 0) return 0;
  const slack = (deadline_ms - predicted_end_ms) / deadline_ms;
  return Math.round(Math.min(1, Math.max(0, 0.5 + slack)) * 100) / 100;
}
