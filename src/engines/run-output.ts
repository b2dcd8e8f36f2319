import type { Delta, EngineSink, Usage } from './engine.ts';
import { noUsage } from './outcome.ts';
import { StopStrings } from './stop-strings.ts';

/**
 * What a run over HTTP puts out: every token counted once and never more than were asked for, no text of a stop
 * string, nothing after an abort.
 */
export class RunOutput {
  readonly usage: Usage = noUsage();
  readonly #sink: EngineSink;
  readonly #signal: AbortSignal;
  readonly #max_tokens: number;
  readonly #stops: StopStrings | undefined;
  #delivered = 0;
  #any = false;

  /** @param stops those that the engine itself may let through */
  constructor(sink: EngineSink, signal: AbortSignal, max_tokens: number, stops: readonly string[] = []) {
    this.#sink = sink;
    this.#signal = signal;
    this.#max_tokens = max_tokens;
    this.#stops = stops.length > 0 ? new StopStrings(stops) : undefined;
  }

  /** Whether the engine has put anything out yet. */
  get started(): boolean {
    return this.#any;
  }

  /** @returns whether a stop string was completed */
  push(text: string, tokens: number, channel: Delta['channel'] = 'text'): boolean {
    this.#any ||= tokens > 0 || text !== '';
    this.#count(tokens);
    if (this.#stops === undefined || channel !== 'text') {
      if (text !== '') this.#deliver(text, channel);
      return false;
    }
    const found = this.#stops.push(text);
    if (found.text !== '') this.#deliver(found.text, channel);
    return found.stopped;
  }

  /**
   * The run is over: what was held back goes out, and tokens that had no text are told.
   * @param tokens the engine's own count, where it tells
   */
  finish(tokens = 0): void {
    this.#count(tokens - this.usage.tokens_out);
    const rest = this.#stops?.flush() ?? '';
    if (rest !== '' || this.usage.tokens_out > this.#delivered) this.#deliver(rest, 'text');
  }

  /** The run was lost: what was not delivered is not counted, another run will write it again. */
  lose(): void {
    this.usage.tokens_out = this.#delivered;
  }

  #count(fresh: number): void {
    this.usage.tokens_out = Math.min(this.usage.tokens_out + Math.max(0, fresh), this.#max_tokens);
  }

  #deliver(text: string, channel: Delta['channel']): void {
    if (this.#signal.aborted) return;
    const tokens = this.usage.tokens_out - this.#delivered;
    this.#delivered = this.usage.tokens_out;
    this.#sink.delta({ channel, text, tokens });
  }
}
