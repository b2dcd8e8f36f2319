import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { GgufError, readGgufVocabulary } from '../models/gguf.ts';
import { readTokenizerJson, TokenizerJsonError } from '../models/tokenizer/json/tokenizer-json.ts';
import type { JsonTokenizer } from '../models/tokenizer/json/tokenizer-json.ts';
import { createTokenizer } from '../models/tokenizer/tokenizer.ts';
import type { EncodeOptions } from '../models/tokenizer/tokenizer.ts';

/** A text to count with the vocabulary of a model. */
export interface CountJob extends EncodeOptions {
  /** A GGUF file, a tokenizer.json (by its ending `.json`), or a folder that has a tokenizer.json. */
  model_path: string;
  text: string;
}

/** What came of it; without an exact count there is none, since an estimate may be wrong both ways. */
export type TokenCount = (
  | { exact: true; count: number }
  | {
      exact: false;
    }
) & {
  /** `gguf:` and the pre-tokenizer or the family that the file names (`gguf:llama-bpe`), or `tokenizer.json`. */
  tokenizer_name: string;
};

interface Loaded {
  tokenizer_name: string;
  /** Absent where the model cannot be counted with exactly. */
  tokenizer?: JsonTokenizer;
}

/** A vocabulary of 150,000 tokens takes some 30 MB here, so a thread keeps only the two it used last. */
const KEPT = 2;

/** In the order of their last use; a file that cannot be counted with is remembered too. */
const loaded = new Map<string, Loaded>();

/** The work of a tokenizer thread. */
export default async function count({ model_path, text, ...options }: CountJob): Promise<TokenCount> {
  const { tokenizer_name, tokenizer } = await load(model_path).catch((error: unknown) => {
    if (error instanceof GgufError || error instanceof TokenizerJsonError) throw error;
    throw new Error(`cannot read the model file: ${codeOf(error)}`);
  });
  const tokens = tokenizer?.encode(text, options);
  return tokens === undefined
    ? { exact: false, tokenizer_name }
    : { exact: true, count: tokens.length, tokenizer_name };
}

async function load(path: string): Promise<Loaded> {
  const found = await stat(path);
  const file = found.isDirectory() ? join(path, 'tokenizer.json') : path;
  const { size, mtimeMs } = found.isDirectory() ? await stat(file) : found;
  const key = JSON.stringify([file, size, mtimeMs]);
  const entry = loaded.get(key) ?? (await read(file));
  loaded.delete(key);
  loaded.set(key, entry);
  for (const oldest of loaded.keys()) {
    if (loaded.size <= KEPT) break;
    loaded.delete(oldest);
  }
  return entry;
}

async function read(file: string): Promise<Loaded> {
  if (file.endsWith('.json')) return named('tokenizer.json', await readTokenizerJson(file));
  const vocabulary = await readGgufVocabulary(file);
  if (vocabulary === undefined) return named('gguf', undefined);
  const { model, pre = 'default' } = vocabulary;
  return named(`gguf:${model === 'gpt2' ? pre : model}`, createTokenizer(vocabulary));
}

function named(tokenizer_name: string, tokenizer: JsonTokenizer | undefined): Loaded {
  return tokenizer === undefined ? { tokenizer_name } : { tokenizer_name, tokenizer };
}

/** The system's code alone: its message would carry the path. */
function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : String(error);
}
