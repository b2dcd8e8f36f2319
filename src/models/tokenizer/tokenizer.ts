import type { GgufVocabulary } from '../gguf.ts';
import { BytePairEncoder } from './byte-pairs.ts';
import { preTokenizer } from './pre-tokenizer.ts';
import { SentencePieceEncoder } from './sentence-piece.ts';
import { SpecialTokens } from './special-tokens.ts';

export interface EncodeOptions {
  /**
   * Whether control tokens written out in the text (`<|im_end|>`) become those tokens; otherwise they are text.
   * llama-server does so with the prompt of `/completion`, and the adapter of the embedded engine asks for it;
   * node-llama-cpp left alone does not with a string.
   * @default true
   */
  parse_special?: boolean;
  /**
   * Whether BOS and EOS are added where the model asks for them, as engines do with a prompt.
   * @default true
   */
  add_special?: boolean;
}

/** Turns text into the token ids that llama.cpp would make of it. */
export interface Tokenizer {
  /** Lone surrogates count as U+FFFD, as they do on the way to an engine. */
  encode(text: string, options?: EncodeOptions): number[];
}

interface Ends {
  bos?: number;
  eos?: number;
}

const MAX_RANKS = 2 ** 20;
/** What llama.cpp assumes of a byte-level BPE file that names no BOS or EOS. */
const DEFAULT_BPE_END = 11;

/**
 * Builds the tokenizer of a model file.
 * @returns undefined where it cannot be exact: an unknown family or pre-tokenizer, or tables that llama.cpp refuses.
 */
export function createTokenizer(vocabulary: GgufVocabulary): Tokenizer | undefined {
  const { tokens, types, scores } = vocabulary;
  const ids = new Map(tokens.map((text, id) => [asCString(text) || `[EMPTY_${id}]`, id]));
  const complete = (table: readonly unknown[] | undefined): boolean =>
    table === undefined || table.length >= tokens.length;
  if (ids.size !== tokens.length || ids.size > MAX_RANKS || !complete(types) || !complete(scores)) {
    return undefined;
  }
  const specials = SpecialTokens.of(vocabulary, ids);
  if (specials === undefined) return undefined;
  if (vocabulary.model === 'gpt2') return bytePairTokenizer(vocabulary, ids, specials);
  if (vocabulary.model === 'llama') return sentencePieceTokenizer(vocabulary, ids, specials);
  return undefined;
}

/** llama.cpp reads token texts as C strings: they end at a NUL. */
function asCString(text: string): string {
  const end = text.indexOf('\0');
  return end < 0 ? text : text.slice(0, end);
}

/** How many tokens an engine makes of a text; the options are those of {@link Tokenizer.encode}. */
export function countTokens(tokenizer: Tokenizer, text: string, options?: EncodeOptions): number {
  return tokenizer.encode(text, options).length;
}

function bytePairTokenizer(
  vocabulary: GgufVocabulary,
  ids: ReadonlyMap<string, number>,
  specials: SpecialTokens,
): Tokenizer | undefined {
  const { merges } = vocabulary;
  const traits = preTokenizer(vocabulary.pre);
  if (traits === undefined || merges === undefined || merges.length >= MAX_RANKS) return undefined;
  const ends = endsOf(vocabulary, {
    add_bos: traits.add_bos,
    ...(traits.default_bos ? { bos: DEFAULT_BPE_END } : {}),
    eos: DEFAULT_BPE_END,
  });
  if (ends === undefined) return undefined;
  const encoder = new BytePairEncoder(ids, merges, traits);
  return {
    encode: (raw, options) =>
      framed(ends, options, (out) => {
        const text = raw.toWellFormed();
        for (const { start, end, token } of specials.partition(text, options?.parse_special ?? true)) {
          if (token < 0) encoder.encode(text, start, end, out);
          else out.push(token);
        }
      }),
  };
}

function sentencePieceTokenizer(
  vocabulary: GgufVocabulary,
  ids: ReadonlyMap<string, number>,
  specials: SpecialTokens,
): Tokenizer | undefined {
  const { scores = vocabulary.tokens.map(() => 0), add_space_prefix = true } = vocabulary;
  const prefix = add_space_prefix ? ' ' : '';
  const bytes: number[] = [];
  for (let byte = 0; byte < 256; byte += 1) {
    const token = ids.get(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
    if (token === undefined) return undefined;
    bytes.push(token);
  }
  const ends = endsOf(vocabulary, { add_bos: true, bos: 1, eos: 2 });
  if (ends === undefined) return undefined;
  const encoder = new SentencePieceEncoder(ids, scores, bytes);
  return {
    encode: (raw, options) =>
      framed(ends, options, (out) => {
        const text = raw.toWellFormed();
        for (const { start, end, token } of specials.partition(text, options?.parse_special ?? true)) {
          // Plain text stands at the start or behind a special token, where a word begins.
          if (token < 0) encoder.encode(prefix + text.slice(start, end), out);
          else out.push(token);
        }
      }),
  };
}

function framed(ends: Ends, options: EncodeOptions | undefined, body: (out: number[]) => void): number[] {
  const add = options?.add_special ?? true;
  const out: number[] = [];
  if (add && ends.bos !== undefined) out.push(ends.bos);
  body(out);
  if (add && ends.eos !== undefined) out.push(ends.eos);
  return out;
}

/** The tokens that frame a prompt; undefined where the model asks for one it does not have. */
function endsOf(
  vocabulary: GgufVocabulary,
  defaults: { add_bos: boolean; bos?: number; eos?: number },
): Ends | undefined {
  const valid = (id: number | undefined): number | undefined =>
    id !== undefined && id < vocabulary.tokens.length ? id : undefined;
  const bos = valid(vocabulary.bos) ?? valid(defaults.bos);
  const eos = valid(vocabulary.eos) ?? valid(defaults.eos);
  const ends: Ends = {};
  if (vocabulary.add_bos ?? defaults.add_bos) {
    if (bos === undefined) return undefined;
    ends.bos = bos;
  }
  if (vocabulary.add_eos ?? false) {
    if (eos === undefined) return undefined;
    ends.eos = eos;
  }
  return ends;
}
