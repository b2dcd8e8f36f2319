import { Merger } from './merger.ts';
import type { Pairs } from './merger.ts';

const BLOCK = '\u2581';
const REMEMBERED_PAIRS = 500_000;
/** Above any symbol number, so that two of them make one map key. */
const KEY_STEP = 2 ** 22;

/** SentencePiece as llama.cpp does it: neighbours merge into whatever token scores best, leftovers become bytes. */
export class SentencePieceEncoder {
  readonly #tokens: ReadonlyMap<string, number>;
  readonly #byte_tokens: readonly number[];
  readonly #pairs: ScoredPairs;
  readonly #merger: Merger;
  readonly #utf8 = new TextEncoder();

  /**
   * @param tokens ids by token text; ids are dense from 0.
   * @param scores by id, higher merges first.
   * @param byte_tokens ids of the 256 byte tokens, by byte.
   */
  constructor(
    tokens: ReadonlyMap<string, number>,
    scores: readonly number[],
    byte_tokens: readonly number[],
  ) {
    this.#tokens = tokens;
    this.#byte_tokens = byte_tokens;
    this.#pairs = new ScoredPairs(tokens, scores);
    this.#merger = new Merger(this.#pairs);
  }

  /** Appends the tokens of a text that holds no special token; a prefix blank is already in it. */
  encode(text: string, out: number[]): void {
    const escaped = text.replaceAll(' ', BLOCK);
    const symbols = new Int32Array(escaped.length);
    let count = 0;
    for (const char of escaped) symbols[count++] = this.#pairs.symbol(char);
    count = this.#merger.merge(symbols, count);
    for (let at = 0; at < count; at += 1) {
      const symbol = symbols[at] ?? -1;
      if (symbol < this.#tokens.size) out.push(symbol);
      else
        for (const byte of this.#utf8.encode(this.#pairs.text(symbol)))
          out.push(this.#byte_tokens[byte] ?? 0);
    }
    this.#pairs.trim();
  }
}

class ScoredPairs implements Pairs {
  merged = -1;
  readonly #tokens: ReadonlyMap<string, number>;
  readonly #texts: string[];
  /** Place of each token in the order of scores, equal scores sharing one. */
  readonly #ranks: Int32Array;
  readonly #strangers = new Map<string, number>();
  readonly #known = new Map<number, number>();

  constructor(tokens: ReadonlyMap<string, number>, scores: readonly number[]) {
    this.#tokens = tokens;
    this.#texts = [...tokens.keys()];
    const order = [...new Set(scores)].sort((a, b) => b - a);
    const places = new Map(order.map((score, place) => [score, place]));
    this.#ranks = Int32Array.from(this.#texts, (_, id) => places.get(scores[id] ?? 0) ?? 0);
  }

  /** The number of a single character, a token's id where it is one. */
  symbol(char: string): number {
    const known = this.#tokens.get(char) ?? this.#strangers.get(char);
    if (known !== undefined) return known;
    const symbol = this.#texts.push(char) - 1;
    this.#strangers.set(char, symbol);
    return symbol;
  }

  text(symbol: number): string {
    return this.#texts[symbol] ?? '';
  }

  rank(left: number, right: number): number {
    if (left < 0 || right < 0) return -1;
    const key = left * KEY_STEP + right;
    let merged = this.#known.get(key);
    if (merged === undefined) {
      merged = this.#tokens.get(this.text(left) + this.text(right)) ?? -1;
      if (this.#known.size >= REMEMBERED_PAIRS) this.#known.clear();
      this.#known.set(key, merged);
    }
    this.merged = merged;
    return merged < 0 ? -1 : (this.#ranks[merged] ?? -1);
  }

  /** Forgets characters that are no tokens once they are many; between two texts only. */
  trim(): void {
    if (this.#strangers.size < 65_536) return;
    this.#texts.length = this.#tokens.size;
    this.#strangers.clear();
    this.#known.clear();
  }
}
