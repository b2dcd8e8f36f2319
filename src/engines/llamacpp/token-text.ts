import type { LlamaModel, Token } from 'node-llama-cpp';
import { StopStrings } from '../stop-strings.ts';

/** What a decoder shows for bytes that are no character, or not one yet. */
const BROKEN = '\uFFFD';

/** A character has at most four bytes, hence four tokens; more without one is not text at all. */
const MAX_PENDING = 6;

/** The text of single tokens, as the model writes them in the middle of a line. */
export class TokenPieces {
  readonly #model: LlamaModel;
  readonly #anchor: Token[];
  readonly #anchorText: string;
  readonly #cache = new Map<Token, string>();

  constructor(model: LlamaModel) {
    this.#model = model;
    this.#anchor = model.tokenize('a').slice(-1);
    this.#anchorText = model.detokenize(this.#anchor);
  }

  single(token: Token): string {
    let piece = this.#cache.get(token);
    if (piece === undefined) this.#cache.set(token, (piece = this.text([token])));
    return piece;
  }

  /** Sentencepiece drops the space before the first word, so the tokens are read after a known one. */
  text(tokens: readonly Token[]): string {
    const text = this.#model.detokenize([...this.#anchor, ...tokens]);
    if (text.startsWith(this.#anchorText)) return text.slice(this.#anchorText.length);
    return this.#model.detokenize(tokens);
  }
}

/** Turns a run's tokens into text, holding back the bytes of a character until it is whole. */
class TokenText {
  readonly #pieces: TokenPieces;
  #pending: Token[] = [];

  constructor(pieces: TokenPieces) {
    this.#pieces = pieces;
  }

  /** @returns the text that is now complete, empty while a character is not. */
  push(token: Token): string {
    if (this.#pending.length === 0) {
      const piece = this.#pieces.single(token);
      if (!piece.endsWith(BROKEN)) return piece;
    }
    this.#pending.push(token);
    const text = this.#pieces.text(this.#pending);
    if (text.endsWith(BROKEN) && this.#pending.length < MAX_PENDING) return '';
    this.#pending = [];
    return text;
  }
}

/** A run's output on its way out: whole characters, no stop string, and every token that has text counted once. */
export class Output {
  readonly #deliver: (text: string, tokens: number) => void;
  readonly #text: TokenText;
  readonly #stops: StopStrings | undefined;
  #uncounted = 0;

  constructor(
    deliver: (text: string, tokens: number) => void,
    pieces: TokenPieces,
    stops: readonly string[],
  ) {
    this.#deliver = deliver;
    this.#text = new TokenText(pieces);
    this.#stops = stops.length > 0 ? new StopStrings(stops) : undefined;
  }

  /** @returns whether a stop string was completed by this token. */
  token(token: Token): boolean {
    this.#uncounted++;
    const text = this.#text.push(token);
    if (this.#stops === undefined) {
      if (text !== '') this.#send(text);
      return false;
    }
    const found = this.#stops.push(text);
    if (found.text !== '') this.#send(found.text);
    return found.stopped;
  }

  end(): void {
    const rest = this.#stops?.flush() ?? '';
    if (rest !== '') this.#send(rest);
  }

  #send(text: string): void {
    this.#deliver(text, this.#uncounted);
    this.#uncounted = 0;
  }
}
