import type { Delta, EngineSink, Usage } from './engine.ts';
import { noUsage } from './outcome.ts';
import { StopStrings } from './stop-strings.ts';

/**
 * What a run over HTTP puts out: every token that has text counted once and never more than were asked for, no text of
 * a stop string, nothing after an abort.
 */
export class RunOutput {
  readonly usage: Usage = noUsage();
  readonly #sink: EngineSink;
  readonly #signal: AbortSignal;
  readonly #max_tokens: number;
  readonly #stops: StopStrings | undefined;
  /** Tokens that have come, and whose text has not gone out or that have none. */
  #pending = 0;
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

  /** Tokens that have come, with text or without. */
  get counted(): number {
    return this.usage.tokens_out + this.#pending;
  }

  /** What the engine says of the input, the first time. */
  prefilled(tokens_in: number, tokens_cached = this.usage.tokens_cached): void {
    const isNew = this.usage.tokens_in !== tokens_in || this.usage.tokens_cached !== tokens_cached;
    this.usage.tokens_in = tokens_in;
    this.usage.tokens_cached = tokens_cached;
    if (isNew && !this.#signal.aborted) this.#sink.prefilled?.(tokens_in, tokens_cached);
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
   * The run is over: what was held back goes out.
   * @param told the engine's own count, where it tells: frames may have had several tokens each
   */
  finish(reason: 'eos' | 'limit' | 'stop', told = 0): void {
    const rest = this.#stops?.flush() ?? '';
    const unseen = reason === 'stop' ? 0 : told - this.counted;
    if (rest === '') this.#pending = 0;
    this.#count(unseen);
    // The mark at the end is one of those that the engine counts.
    if (reason === 'eos' && told > 0) this.#pending = Math.max(0, this.#pending - 1);
    if (rest !== '' || this.#pending > 0) this.#deliver(rest, 'text');
  }

  #count(fresh: number): void {
    this.#pending = Math.min(this.#pending + Math.max(0, fresh), this.#max_tokens - this.usage.tokens_out);
  }

  #deliver(text: string, channel: Delta['channel']): void {
    if (this.#signal.aborted) return;
    const tokens = this.#pending;
    this.#pending = 0;
    this.usage.tokens_out += tokens;
    this.#sink.delta({ channel, text, tokens });
  }
}
