import { BYTE_CHARS } from '../byte-chars.ts';
import { Merger } from '../merger.ts';
import { PairTable } from '../pair-table.ts';
import { Inexact, flag, list, part, text, tokenId, type Part } from './inexact.ts';

/**
 * Pieces up to this many UTF-16 units are remembered. V8 copies substrings this short; a longer one would keep
 * the whole prompt it was cut from alive.
 */
const CACHED_UNITS = 12;
const CACHED_PIECES = 16_384;
const MAX_RANKS = 2 ** 20;

/** The `model` of a tokenizer.json, where it is byte pair encoding. */
export class BpeModel {
  readonly #vocabulary: ReadonlyMap<string, number>;
  readonly #merger: Merger;
  /** Symbols by byte, of the stand-ins or of `<0x0A>`; -1 where a byte has none. */
  readonly #bytes: Int32Array;
  readonly #byte_level: boolean;
  readonly #byte_fallback: boolean;
  /** A piece up to this many UTF-16 units that is a token is taken whole, whatever the merges say. */
  readonly #taken_whole: number;
  /** What stands for a character that is in no token; -1 drops it. */
  readonly #unknown: number;
  readonly #fuse_unknown: boolean;
  readonly #utf8 = new TextEncoder();
  #buffer = new Uint8Array(0);
  #symbols = new Int32Array(0);
  readonly #cache = new Map<string, readonly number[]>();

  /**
   * @param byte_level whether pieces are to be taken as bytes
   * @throws Inexact where the model is of another kind, or has a setting that is not known
   */
  constructor(settings: Part, byte_level: boolean) {
    if ((settings['type'] ?? 'BPE') !== 'BPE') throw new Inexact('a model that is not known');
    if ((settings['dropout'] ?? 0) !== 0) throw new Inexact('merges are left out by chance');
    for (const name of ['continuing_subword_prefix', 'end_of_word_suffix']) {
      if ((settings[name] ?? '') !== '') throw new Inexact('marks within words');
    }
    this.#byte_level = byte_level;
    this.#vocabulary = vocabularyOf(settings['vocab']);
    this.#merger = new Merger(pairsOf(settings['merges'], this.#vocabulary));
    let longest = 0;
    if (flag(settings, 'ignore_merges', false))
      for (const token of this.#vocabulary.keys()) longest = Math.max(longest, token.length);
    this.#taken_whole = longest;
    this.#fuse_unknown = flag(settings, 'fuse_unk', false);
    const wants_bytes = flag(settings, 'byte_fallback', false);
    if (wants_bytes && byte_level) throw new Inexact('bytes of bytes');
    this.#bytes = Int32Array.from(
      BYTE_CHARS,
      (char, byte) => this.#vocabulary.get(byte_level ? char : byteName(byte)) ?? -1,
    );
    this.#byte_fallback = wants_bytes;
    if (wants_bytes && this.#bytes.includes(-1)) throw new Inexact('byte tokens are missing');
    const unknown = settings['unk_token'] ?? undefined;
    this.#unknown = unknown === undefined ? -1 : (this.#vocabulary.get(text(unknown)) ?? -2);
    if (this.#unknown === -2) throw new Inexact('the unknown token is in no vocabulary');
  }

  /** The id of a token that stands in the vocabulary. */
  idOf(token: string): number | undefined {
    return this.#vocabulary.get(token);
  }

  /** Appends the tokens of a piece. */
  encode(piece: string, out: number[]): void {
    const known = this.#cache.get(piece);
    if (known !== undefined) {
      for (const token of known) out.push(token);
      return;
    }
    const from = out.length;
    this.#merge(piece, out);
    if (piece.length > CACHED_UNITS) return;
    if (this.#cache.size >= CACHED_PIECES) this.#cache.clear();
    this.#cache.set(piece, out.slice(from));
  }

  #merge(piece: string, out: number[]): void {
    if (this.#symbols.length < piece.length * 3) {
      this.#buffer = new Uint8Array(piece.length * 3);
      this.#symbols = new Int32Array(piece.length * 3);
    }
    const whole = piece.length <= this.#taken_whole ? this.#vocabulary.get(this.#nameOf(piece)) : undefined;
    if (whole !== undefined) {
      out.push(whole);
      return;
    }
    const written = this.#byte_level ? this.#bytesOf(piece) : this.#charactersOf(piece);
    const count = this.#merger.merge(this.#symbols, written);
    for (let at = 0; at < count; at += 1) out.push(this.#symbols[at] ?? 0);
  }

  #nameOf(piece: string): string {
    if (!this.#byte_level) return piece;
    const { written } = this.#utf8.encodeInto(piece, this.#buffer);
    let name = '';
    for (let at = 0; at < written; at += 1) name += BYTE_CHARS[this.#buffer[at] ?? 0];
    return name;
  }

  /** @returns how many symbols the piece starts with */
  #bytesOf(piece: string): number {
    const { written } = this.#utf8.encodeInto(piece, this.#buffer);
    let count = 0;
    let was_unknown = false;
    for (let at = 0; at < written; at += 1) {
      const symbol = this.#bytes[this.#buffer[at] ?? 0] ?? -1;
      count = this.#put(count, symbol, was_unknown);
      was_unknown = symbol < 0;
    }
    return count;
  }

  #charactersOf(piece: string): number {
    let count = 0;
    let was_unknown = false;
    for (const char of piece) {
      const symbol = this.#vocabulary.get(char) ?? -1;
      if (symbol < 0 && this.#byte_fallback) {
        for (const byte of this.#utf8.encode(char)) count = this.#put(count, this.#bytes[byte] ?? -1, false);
        continue;
      }
      count = this.#put(count, symbol, was_unknown);
      was_unknown = symbol < 0;
    }
    return count;
  }

  #put(count: number, symbol: number, was_unknown: boolean): number {
    const put = symbol >= 0 ? symbol : this.#unknown;
    if (put < 0 || (symbol < 0 && was_unknown && this.#fuse_unknown)) return count;
    this.#symbols[count] = put;
    return count + 1;
  }
}

function byteName(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;
}

function vocabularyOf(value: unknown): Map<string, number> {
  return new Map(Object.entries(part(value)).map(([token, id]) => [token, tokenId(id)]));
}

function pairsOf(value: unknown, vocabulary: ReadonlyMap<string, number>): PairTable {
  const merges = list(value);
  if (merges.length >= MAX_RANKS) throw new Inexact('too many merges');
  const pairs = new PairTable(merges.length);
  merges.forEach((merge, rank) => {
    const [left = '', right = '', ...more] =
      typeof merge === 'string' ? merge.split(' ') : list(merge).map(text);
    const ids = [left, right, left + right].map((token) => vocabulary.get(token));
    const [first = -1, second = -1, merged = -1] = ids;
    if (more.length > 0 || first < 0 || second < 0 || merged < 0) throw new Inexact('a merge of no tokens');
    // Of two merges of one pair the library takes the last: not worth following.
    if (!pairs.add(first, second, rank, merged)) throw new Inexact('a pair that is merged twice');
  });
  return pairs;
}
