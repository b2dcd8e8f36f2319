import { stat } from 'node:fs/promises';
import { GgufError, readGgufVocabulary } from '../models/gguf.ts';
import { countTokens, createTokenizer } from '../models/tokenizer/tokenizer.ts';
import type { EncodeOptions, Tokenizer } from '../models/tokenizer/tokenizer.ts';

/** A text to count with the vocabulary of a model file. */
export interface CountJob extends EncodeOptions {
  model_path: string;
  text: string;
}

/** A vocabulary of 150,000 tokens takes some 30 MB here, so a thread keeps only the two it used last. */
const KEPT = 2;

/** In the order of their last use; a file that cannot be counted with is remembered too. */
const loaded = new Map<string, Tokenizer | undefined>();

/**
 * The work of a tokenizer thread.
 * @returns undefined where the file's tokenizer cannot be followed exactly.
 */
export default async function count({ model_path, text, ...options }: CountJob): Promise<number | undefined> {
  const tokenizer = await load(model_path).catch((error: unknown) => {
    throw error instanceof GgufError ? error : new Error(`cannot read the model file: ${codeOf(error)}`);
  });
  return tokenizer === undefined ? undefined : countTokens(tokenizer, text, options);
}

async function load(path: string): Promise<Tokenizer | undefined> {
  const { size, mtimeMs } = await stat(path);
  const key = JSON.stringify([path, size, mtimeMs]);
  const known = loaded.get(key);
  const found = loaded.delete(key);
  let tokenizer = known;
  if (!found) {
    const vocabulary = await readGgufVocabulary(path);
    tokenizer = vocabulary === undefined ? undefined : createTokenizer(vocabulary);
  }
  loaded.set(key, tokenizer);
  for (const oldest of loaded.keys()) {
    if (loaded.size <= KEPT) break;
    loaded.delete(oldest);
  }
  return tokenizer;
}

/** The system's code alone: its message would carry the path. */
function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error);
}
