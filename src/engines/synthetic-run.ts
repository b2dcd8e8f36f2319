import type { Clock } from '../clock.ts';
import type { EngineCall, EngineOutcome, EngineSink, Usage } from './engine.ts';
import { StopStrings } from './stop-strings.ts';

/** How the synthetic engine behaves. All times are in milliseconds. */
export interface SyntheticSettings {
  /** @default 0 */
  load_ms: number;
  /** Until the first token, vector or score. @default 0 */
  first_token_ms: number;
  /** Tokens (vectors, scores) per second and run; 0 is as fast as it can. @default 0 */
  tokens_per_second: number;
  /** What it claims to hold in memory, in bytes. @default 0 */
  memory_bytes: number;
  /**
   * `load`: loading is refused. `at_token`: the engine crashes when a run would produce token (vector, score)
   * number N, so a run that resumes at N or later goes through. @default 'never'
   */
  fail: 'never' | 'load' | { at_token: number };
}

/** The engine as its runs see it. */
export interface SyntheticOwner {
  readonly clock: Clock;
  readonly settings: SyntheticSettings;
  /** The runs that have not settled. */
  readonly runs: Set<SyntheticRun>;
  /** Takes every run down, this one too. */
  crash(atToken: number): void;
}

/** What a run produces, step by step: tokens, vectors or scores. */
export interface SyntheticWork {
  readonly usage: Usage;
  /** Numbers of the first step and of the one after the last. */
  readonly from: number;
  readonly to: number;
  /** @returns whether the run stops here, before its last step. */
  step(number: number): boolean;
  /** Says what is left to say when the run ends of itself. */
  end(stopped: boolean): 'eos' | 'limit' | 'stop';
}

/** Steps between two turns of the event loop when the engine runs as fast as it can. */
const BATCH = 64;

/** One run of the synthetic engine: timers while there is time to pass, else one turn of the loop per batch. */
export class SyntheticRun {
  readonly #engine: SyntheticOwner;
  readonly #work: SyntheticWork;
  readonly #signal: AbortSignal;
  readonly #resolve: (outcome: EngineOutcome) => void;
  readonly #firstDue: number;
  readonly #msPerStep: number;
  readonly #crashAt: number;
  #next: number;
  #timer: unknown;

  constructor(
    engine: SyntheticOwner,
    work: SyntheticWork,
    signal: AbortSignal,
    resolve: (outcome: EngineOutcome) => void,
  ) {
    const { first_token_ms, tokens_per_second, fail } = engine.settings;
    this.#engine = engine;
    this.#work = work;
    this.#signal = signal;
    this.#resolve = resolve;
    this.#next = work.from;
    this.#crashAt = typeof fail === 'object' && fail.at_token > work.from ? fail.at_token : Infinity;
    this.#msPerStep = tokens_per_second > 0 ? 1000 / tokens_per_second : 0;
    this.#firstDue = engine.clock.now() + first_token_ms;
  }

  get usage(): Usage {
    return this.#work.usage;
  }

  start(): void {
    this.#signal.addEventListener('abort', this.#onAbort);
    this.#schedule();
  }

  settle(outcome: EngineOutcome): void {
    if (!this.#engine.runs.delete(this)) return;
    this.#engine.clock.clearTimeout(this.#timer);
    this.#signal.removeEventListener('abort', this.#onAbort);
    this.#resolve(outcome);
  }

  readonly #onAbort = () => this.settle({ kind: 'aborted', usage: this.usage });

  readonly #tick = () => {
    if (!this.#engine.runs.has(this)) return;
    const { from, to } = this.#work;
    const due =
      this.#msPerStep > 0
        ? from + Math.floor((this.#engine.clock.now() - this.#firstDue) / this.#msPerStep + 1e-9) + 1
        : this.#next + BATCH;
    this.#produce(Math.min(due, to, this.#crashAt));
    if (!this.#engine.runs.has(this)) return;
    if (this.#next >= to) return this.#finish(false);
    if (this.#next >= this.#crashAt) return this.#engine.crash(this.#crashAt);
    this.#schedule();
  };

  /** A timer while there is time to pass, else the end of the event loop's turn, so that others get theirs. */
  #schedule(): void {
    const steps = this.#next - this.#work.from;
    const wait = this.#firstDue + steps * this.#msPerStep - this.#engine.clock.now();
    if (wait > 0) this.#timer = this.#engine.clock.setTimeout(this.#tick, Math.ceil(wait));
    else setImmediate(this.#tick);
  }

  #produce(until: number): void {
    while (this.#next < until) {
      if (this.#work.step(this.#next++)) return this.#finish(true);
      // Whoever was told may have ended this very run.
      if (!this.#engine.runs.has(this)) return;
    }
  }

  #finish(stopped: boolean): void {
    const reason = this.#work.end(stopped);
    this.settle({ kind: 'finished', reason, usage: this.usage });
  }
}

/**
 * Work that makes up ` t0`, ` t1`, …, going on after what a resumed call has already. Only whole tokens leave: a run
 * that resumes goes on by their number, and has to see all of a stop string that began in the last one.
 */
export function syntheticText(
  call: EngineCall,
  sink: EngineSink,
  tokensIn: number,
  limit: number,
): SyntheticWork {
  const stops = call.sampling?.stop?.length ? new StopStrings(call.sampling.stop) : undefined;
  const usage = { tokens_in: tokensIn, tokens_cached: 0, tokens_out: 0 };
  const from = call.resume?.tokens_out ?? 0;
  const held: string[] = [];
  let free = '';
  const tell = (text: string): void => {
    usage.tokens_out++;
    sink.delta({ channel: 'text', text, tokens: 1 });
  };
  const tellWhole = (): void => {
    for (let [token] = held; token !== undefined && token.length <= free.length; [token] = held) {
      free = free.slice(token.length);
      held.shift();
      tell(token);
    }
  };
  return {
    usage,
    from,
    to: from + limit,
    step(number) {
      const token = ` t${number}`;
      if (!stops) {
        tell(token);
        return false;
      }
      const { text, stopped } = stops.push(token);
      held.push(token);
      free += text;
      tellWhole();
      return stopped;
    },
    end(stopped) {
      free += stops?.flush() ?? '';
      tellWhole();
      // What is left is the begin of the token in which a stop string began.
      if (free !== '') tell(free);
      return stopped ? 'stop' : 'limit';
    },
  };
}

/** Work that hands out results that are there already. */
export function syntheticResults<T>(
  results: readonly T[],
  tokensIn: number,
  tell: (result: T, number: number) => void,
): SyntheticWork {
  return {
    usage: { tokens_in: tokensIn, tokens_cached: 0, tokens_out: 0 },
    from: 0,
    to: results.length,
    step(number) {
      tell(results[number] as T, number);
      return false;
    },
    end: () => 'eos',
  };
}
