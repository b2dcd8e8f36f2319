import type { Clock } from '../clock.ts';
import type { EngineCall, EngineOutcome, EngineSink, Usage } from './engine.ts';
import { StopStrings } from './stop-strings.ts';

/** How the synthetic engine behaves. All times are in milliseconds. */
export interface SyntheticSettings {
  /** @default 0 */
  load_ms: number;
  /** @default 0 */
  first_token_ms: number;
  /** Tokens per second and run; 0 is as fast as it can. @default 0 */
  tokens_per_second: number;
  /** What it claims to hold in memory, in bytes. @default 0 */
  memory_bytes: number;
  /**
   * `load`: loading is refused. `at_token`: the engine crashes when a run would produce token number N, so a
   * run that resumes at N or later goes through. @default 'never'
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

/** Tokens between two turns of the event loop when the engine runs as fast as it can. */
const BATCH = 64;

/** One run of the synthetic engine: timers while there is time to pass, else one turn of the loop per batch. */
export class SyntheticRun {
  readonly usage: Usage;
  readonly #engine: SyntheticOwner;
  readonly #sink: EngineSink;
  readonly #signal: AbortSignal;
  readonly #resolve: (outcome: EngineOutcome) => void;
  readonly #stops: StopStrings | undefined;
  readonly #firstDue: number;
  readonly #msPerToken: number;
  readonly #end: number;
  readonly #crashAt: number;
  readonly #start: number;
  #next: number;
  #timer: unknown;

  constructor(
    engine: SyntheticOwner,
    call: EngineCall,
    sink: EngineSink,
    signal: AbortSignal,
    tokensIn: number,
    limit: number,
    resolve: (outcome: EngineOutcome) => void,
  ) {
    const { first_token_ms, tokens_per_second, fail } = engine.settings;
    this.#engine = engine;
    this.#sink = sink;
    this.#signal = signal;
    this.#resolve = resolve;
    this.#start = call.resume?.tokens_out ?? 0;
    this.#next = this.#start;
    this.#end = this.#start + limit;
    this.#crashAt = typeof fail === 'object' && fail.at_token > this.#start ? fail.at_token : Infinity;
    this.#msPerToken = tokens_per_second > 0 ? 1000 / tokens_per_second : 0;
    this.#firstDue = engine.clock.now() + first_token_ms;
    this.#stops = call.sampling?.stop?.length ? new StopStrings(call.sampling.stop) : undefined;
    this.usage = { tokens_in: tokensIn, tokens_cached: 0, tokens_out: 0 };
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
    const due =
      this.#msPerToken > 0
        ? this.#start + Math.floor((this.#engine.clock.now() - this.#firstDue) / this.#msPerToken + 1e-9) + 1
        : this.#next + BATCH;
    this.#produce(Math.min(due, this.#end, this.#crashAt));
    if (!this.#engine.runs.has(this)) return;
    if (this.#next >= this.#end) return this.#finish('limit');
    if (this.#next >= this.#crashAt) return this.#engine.crash(this.#crashAt);
    this.#schedule();
  };

  /** A timer while there is time to pass, else the end of the event loop's turn, so that others get theirs. */
  #schedule(): void {
    const wait = this.#firstDue + (this.#next - this.#start) * this.#msPerToken - this.#engine.clock.now();
    if (wait > 0) this.#timer = this.#engine.clock.setTimeout(this.#tick, Math.ceil(wait));
    else setImmediate(this.#tick);
  }

  #produce(until: number): void {
    while (this.#next < until) {
      let text = ` t${this.#next++}`;
      this.usage.tokens_out++;
      const stop = this.#stops?.push(text);
      if (stop !== undefined) text = stop.text;
      this.#sink.delta({ channel: 'text', text, tokens: 1 });
      if (stop?.stopped) return this.#finish('stop');
      // The sink may have ended this very run.
      if (!this.#engine.runs.has(this)) return;
    }
  }

  #finish(reason: 'limit' | 'stop'): void {
    const rest = this.#stops?.flush() ?? '';
    if (rest !== '') this.#sink.delta({ channel: 'text', text: rest, tokens: 0 });
    this.settle({ kind: 'finished', reason, usage: this.usage });
  }
}
