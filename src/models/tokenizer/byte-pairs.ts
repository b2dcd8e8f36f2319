import { BYTE_CHARS } from './byte-chars.ts';
import { Merger } from './merger.ts';
import { PairTable } from './pair-table.ts';
import type { PreTokenizerTraits } from './pre-tokenizer.ts';

/**
 * Pieces up to this many UTF-16 units are remembered. V8 copies substrings this short; a longer one would keep
 * the whole prompt it was cut from alive.
 */
const CACHED_UNITS = 12;
const CACHED_PIECES = 16_384;

/** Byte-level BPE: cuts a text into pieces and merges the bytes of each by rank. */
export class BytePairEncoder {
  readonly #traits: PreTokenizerTraits;
  readonly #tokens: ReadonlyMap<string, number>;
  readonly #token_count: number;
  readonly #byte_symbols: Int32Array;
  /** What stands for a symbol that merges made although it is no token. */
  readonly #substitutes: (readonly number[])[];
  #longest = 0;
  readonly #merger: Merger;
  readonly #utf8 = new TextEncoder();
  #bytes = new Uint8Array(0);
  #symbols = new Int32Array(0);
  readonly #cache = new Map<string, readonly number[]>();

  /**
   * @param tokens ids by token text, in GPT-2's stand-ins; ids are dense from 0.
   * @param merges pairs joined by a space, best first.
   */
  constructor(tokens: ReadonlyMap<string, number>, merges: readonly string[], traits: PreTokenizerTraits) {
    this.#traits = traits;
    this.#tokens = tokens;
    this.#token_count = tokens.size;
    const symbols = new SymbolTable(tokens);
    this.#byte_symbols = Int32Array.from(BYTE_CHARS, (char) => symbols.intern(char));
    const pairs = new PairTable(merges.length);
    merges.forEach((merge, rank) => {
      const gap = merge.indexOf(' ', 1);
      if (gap < 0) return;
      const left = merge.slice(0, gap);
      const right = merge.slice(gap + 1);
      pairs.add(symbols.intern(left), symbols.intern(right), rank, symbols.intern(left + right));
    });
    this.#substitutes = symbols.added.map((text) => [...text].flatMap((char) => this.#substitute(char)));
    for (const text of tokens.keys()) this.#longest = Math.max(this.#longest, text.length);
    this.#merger = new Merger(pairs);
  }

  /** Appends the tokens of `text[start, end)`, which holds no special token. */
  encode(text: string, start: number, end: number, out: number[]): void {
    this.#traits.split(text, start, end, (from, to) => this.#encodePiece(text, from, to, out));
  }

  #encodePiece(text: string, start: number, end: number, out: number[]): void {
    const piece = text.slice(start, end);
    const known = this.#cache.get(piece);
    if (known !== undefined) {
      for (const token of known) out.push(token);
      return;
    }
    const from = out.length;
    this.#mergePiece(piece, out);
    if (piece.length > CACHED_UNITS) return;
    if (this.#cache.size >= CACHED_PIECES) this.#cache.clear();
    this.#cache.set(piece, out.slice(from));
  }

  #mergePiece(piece: string, out: number[]): void {
    if (this.#bytes.length < piece.length * 3) {
      this.#bytes = new Uint8Array(piece.length * 3);
      this.#symbols = new Int32Array(piece.length * 3);
    }
    const { written } = this.#utf8.encodeInto(piece, this.#bytes);
    if (this.#traits.ignore_merges && written <= this.#longest) {
      let text = '';
      for (let at = 0; at < written; at += 1) text += BYTE_CHARS[this.#bytes[at] ?? 0];
      const token = this.#tokens.get(text);
      if (token !== undefined) {
        out.push(token);
        return;
      }
    }
    const symbols = this.#symbols;
    for (let at = 0; at < written; at += 1) symbols[at] = this.#byte_symbols[this.#bytes[at] ?? 0] ?? -1;
    const count = this.#merger.merge(symbols, written);
    for (let at = 0; at < count; at += 1) {
      const symbol = symbols[at] ?? -1;
      if (symbol < this.#token_count) out.push(symbol);
      else for (const token of this.#substitutes[symbol - this.#token_count] ?? []) out.push(token);
    }
  }

  /** llama.cpp looks such a symbol up byte by byte, which finds ASCII characters and drops the others. */
  #substitute(char: string): number[] {
    const token = char < '\u0080' ? this.#tokens.get(char) : undefined;
    return token === undefined ? [] : [token];
  }
}

/** Numbers for texts: tokens keep their id, every other text gets the next one. */
class SymbolTable {
  readonly added: string[] = [];
  readonly #tokens: ReadonlyMap<string, number>;
  readonly #others = new Map<string, number>();

  constructor(tokens: ReadonlyMap<string, number>) {
    this.#tokens = tokens;
  }

  intern(text: string): number {
    const known = this.#tokens.get(text) ?? this.#others.get(text);
    if (known !== undefined) return known;
    const id = this.#tokens.size + this.added.length;
    this.#others.set(text, id);
    this.added.push(text);
    return id;
  }
}
