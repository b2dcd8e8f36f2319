import { readFile, stat } from 'node:fs/promises';
import type { EncodeOptions } from '../tokenizer.ts';
import { addedTokensOf } from './added-tokens.ts';
import { BpeModel } from './bpe-model.ts';
import { frameOf } from './frame.ts';
import { Inexact, part } from './inexact.ts';
import { normalizerOf } from './normalizer.ts';
import { cutterOf } from './pieces.ts';
import { CLASS_STRANGER } from './unicode-strangers.ts';

/** A tokenizer.json that cannot be read; the message is one line for the person who chose the file. */
export class TokenizerJsonError extends Error {
  override readonly name = 'TokenizerJsonError';
}

/** Turns text into the token ids that engines which read tokenizer.json make of it. */
export interface JsonTokenizer {
  /**
   * Special tokens that are written out in the text are those tokens unless `parse_special` is false.
   * @returns undefined for a text that cannot be followed exactly
   */
  encode(text: string, options?: EncodeOptions): number[] | undefined;
}

/** The largest that models come with are below 40 MB. */
const MAX_BYTES = 256 * 1024 * 1024;

/**
 * Reads a tokenizer.json. It can be large (tens of megabytes): meant for a worker thread.
 * @returns undefined where it cannot be followed exactly
 * @throws TokenizerJsonError where it is none; file system errors as they are
 */
export async function readTokenizerJson(path: string): Promise<JsonTokenizer | undefined> {
  const { size } = await stat(path);
  if (size > MAX_BYTES) throw new TokenizerJsonError(`tokenizer.json is larger than ${MAX_BYTES} bytes`);
  let content: unknown;
  try {
    content = JSON.parse(await readFile(path, 'utf8'));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new TokenizerJsonError('tokenizer.json is not valid JSON');
  }
  if (typeof content !== 'object' || content === null || !('model' in content)) {
    throw new TokenizerJsonError('tokenizer.json has no model');
  }
  return createJsonTokenizer(content);
}

/**
 * Builds the tokenizer of a parsed tokenizer.json: byte pair encoding, of bytes or of characters.
 * @returns undefined where it asks for anything that cannot be followed exactly
 */
export function createJsonTokenizer(content: unknown): JsonTokenizer | undefined {
  return unlessInexact(() => build(content));
}

function build(content: unknown): JsonTokenizer {
  const settings = part(content);
  // Engines set these two themselves, each in its own way.
  if ((settings['truncation'] ?? settings['padding'] ?? null) !== null)
    throw new Inexact('a length of its own');
  const normalizer = normalizerOf(settings['normalizer']);
  const cutter = cutterOf(settings['pre_tokenizer']);
  if (normalizer.moves_start && cutter.minds_start) throw new Inexact('a start that moves');
  const model = new BpeModel(part(settings['model']), cutter.byte_level);
  const added = addedTokensOf(settings['added_tokens'], normalizer.apply, (token) => model.idOf(token));
  const { before, after } = frameOf(settings['post_processor']);

  const encodePlain = (plain: string, first: boolean, parse_special: boolean, out: number[]): void => {
    const whole = normalizer.apply(plain);
    added.normalized.cut(whole, parse_special, (start, end, id) => {
      if (id >= 0) out.push(id);
      else cutter.cut(whole.slice(start, end), first && start === 0, (piece) => model.encode(piece, out));
    });
  };

  return {
    encode: (raw, { parse_special = true, add_special = true } = {}) =>
      unlessInexact(() => {
        const text = raw.toWellFormed();
        if (CLASS_STRANGER.test(text)) throw new Inexact('a character of another class');
        const out: number[] = add_special ? [...before] : [];
        added.raw.cut(text, parse_special, (start, end, id) => {
          if (id >= 0) out.push(id);
          else encodePlain(text.slice(start, end), start === 0, parse_special, out);
        });
        if (add_special) out.push(...after);
        return out;
      }),
  };
}

function unlessInexact<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    // A regular expression that runs out of stack on a long text ends as a RangeError.
    if (error instanceof Inexact || error instanceof RangeError) return undefined;
    throw error;
  }
}
