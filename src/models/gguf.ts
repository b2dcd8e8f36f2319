import { open } from 'node:fs/promises';
import { BlockReader, GgufError } from './tokenizer/block-reader.ts';

export { GgufError };

/** A long array that was stepped over: what it holds, without the elements. */
interface GgufSkippedArray {
  element_type: number;
  length: number;
}

/** A metadata value; 64-bit integers beyond the safe range come as bigint, long arrays as a note of their size. */
type GgufValue = string | number | bigint | boolean | GgufValue[] | GgufSkippedArray;

/** What a model file says about itself before its tensors. */
export interface GgufHeader {
  /** Format version, 2 or 3. */
  version: number;
  metadata: Map<string, GgufValue>;
  /** `general.architecture`; empty where the file names none. */
  architecture: string;
  name?: string;
  /** Tokens the model was trained for. */
  context_length?: number;
  embedding_length?: number;
  block_count?: number;
  /** llama.cpp's number for the mix of quantisations. */
  file_type?: number;
  /** Jinja source. */
  chat_template?: string;
  tensor_count: number;
  /** Size of the whole file. */
  size_bytes: number;
}

/** The tokenizer tables of a model file, as stored: defaults are the reader's business. */
export interface GgufVocabulary {
  /** Family: `gpt2` is byte-level BPE, `llama` is SentencePiece. */
  model: string;
  /** Name of the pre-tokenizer; absent in old files. */
  pre?: string;
  tokens: string[];
  /** llama.cpp token types by id (1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte). */
  types?: number[];
  /** Pairs joined by one space, best first. */
  merges?: string[];
  scores?: number[];
  bos?: number;
  eos?: number;
  add_bos?: boolean;
  add_eos?: boolean;
  add_space_prefix?: boolean;
  /** Ids the file gives under `tokenizer.ggml.<name>_token_id`, by name. */
  named_tokens: Map<string, number>;
  /** `general.name`: llama.cpp treats some models by name. */
  model_name?: string;
  architecture: string;
}

export interface GgufReadOptions {
  /** Stops the reading between two blocks; the call then rejects with the signal's reason. */
  signal?: AbortSignal;
}

const STRING = 8;
const ARRAY = 9;
/** Bytes of one element by value type; strings and arrays by their smallest encoding. */
const SIZES = [1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8];
const KEPT_ELEMENTS = 64;
const MAX_ENTRIES = 65_536;
const MAX_NESTING = 4;

/**
 * Reads the header of a GGUF file (version 2 or 3) in growing blocks, giving the event loop back between them.
 * Arrays of more than 64 elements are stepped over.
 * @throws GgufError with one line where the file is none, is cut off or has an unknown version; file system errors as they are.
 */
export async function readGgufHeader(path: string, options: GgufReadOptions = {}): Promise<GgufHeader> {
  const { version, tensor_count, size_bytes, metadata } = await readMetadata(path, options, () => false);
  const architecture = valueOf(metadata, 'general.architecture', isString) ?? '';
  return {
    version,
    metadata,
    architecture,
    ...optional('name', valueOf(metadata, 'general.name', isString)),
    ...optional('context_length', valueOf(metadata, `${architecture}.context_length`, isNumber)),
    ...optional('embedding_length', valueOf(metadata, `${architecture}.embedding_length`, isNumber)),
    ...optional('block_count', valueOf(metadata, `${architecture}.block_count`, isNumber)),
    ...optional('file_type', valueOf(metadata, 'general.file_type', isNumber)),
    ...optional('chat_template', valueOf(metadata, 'tokenizer.chat_template', isString)),
    tensor_count,
    size_bytes,
  };
}

/**
 * Reads the tokenizer tables of a GGUF file. They can be large (some hundred thousand strings): meant for a
 * worker thread.
 * @returns undefined where the file carries no vocabulary.
 * @throws GgufError as {@link readGgufHeader} does.
 */
export async function readGgufVocabulary(
  path: string,
  options: GgufReadOptions = {},
): Promise<GgufVocabulary | undefined> {
  const tables = new Set(
    ['tokens', 'token_type', 'merges', 'scores'].map((name) => `tokenizer.ggml.${name}`),
  );
  const { metadata } = await readMetadata(path, options, (key) => tables.has(key));
  const field = (name: string): string => `tokenizer.ggml.${name}`;
  const model = valueOf(metadata, field('model'), isString);
  const tokens = listOf(metadata, field('tokens'), isString);
  if (model === undefined || tokens === undefined) return undefined;
  const named = new Map<string, number>();
  for (const [key, value] of metadata) {
    const name = /^tokenizer\.ggml\.(.+)_token_id$/.exec(key)?.[1];
    if (name !== undefined && typeof value === 'number') named.set(name, value);
  }
  return {
    model,
    tokens,
    named_tokens: named,
    architecture: valueOf(metadata, 'general.architecture', isString) ?? '',
    ...optional('pre', valueOf(metadata, field('pre'), isString)),
    ...optional('types', listOf(metadata, field('token_type'), isNumber)),
    ...optional('merges', listOf(metadata, field('merges'), isString)),
    ...optional('scores', listOf(metadata, field('scores'), isNumber)),
    ...optional('bos', named.get('bos')),
    ...optional('eos', named.get('eos')),
    ...optional('add_bos', valueOf(metadata, field('add_bos_token'), isFlag)),
    ...optional('add_eos', valueOf(metadata, field('add_eos_token'), isFlag)),
    ...optional('add_space_prefix', valueOf(metadata, field('add_space_prefix'), isFlag)),
    ...optional('model_name', valueOf(metadata, 'general.name', isString)),
  };
}

type KeepArray = (key: string) => boolean;
type Metadata = Map<string, GgufValue>;

async function readMetadata(
  path: string,
  { signal }: GgufReadOptions,
  keep: KeepArray,
): Promise<Pick<GgufHeader, 'version' | 'tensor_count' | 'size_bytes' | 'metadata'>> {
  signal?.throwIfAborted();
  const file = await open(path, 'r');
  try {
    const { size } = await file.stat();
    const reader = new BlockReader(file, size, signal);
    const version = await readMagic(reader, size);
    await reader.need(16);
    const tensor_count = reader.length();
    const entries = reader.length();
    if (entries > MAX_ENTRIES) throw new GgufError(`not a GGUF file: it claims ${entries} metadata entries`);
    const metadata: Metadata = new Map();
    for (let entry = 0; entry < entries; entry += 1) {
      const key = await readText(reader);
      await reader.need(4);
      metadata.set(key, await readValue(reader, reader.u32(), keep(key), 0));
    }
    return { version, tensor_count, size_bytes: size, metadata };
  } finally {
    await file.close();
  }
}

async function readMagic(reader: BlockReader, size: number): Promise<number> {
  if (size < 4) throw new GgufError(`not a GGUF file: it has ${size} bytes`);
  await reader.need(4);
  if (reader.text(4) !== 'GGUF') throw new GgufError('not a GGUF file: it does not start with GGUF');
  await reader.need(4);
  const version = reader.u32();
  if (version !== 2 && version !== 3) throw new GgufError(`GGUF version ${version} is not supported`);
  return version;
}

async function readText(reader: BlockReader): Promise<string> {
  if (!reader.has(8)) await reader.need(8);
  const length = reader.length();
  if (!reader.has(length)) await reader.need(length);
  return reader.text(length);
}

async function readValue(
  reader: BlockReader,
  type: number,
  keep: boolean,
  depth: number,
): Promise<GgufValue> {
  if (type === STRING) return readText(reader);
  if (type === ARRAY) return readArray(reader, keep, depth);
  await reader.need(sizeOf(type));
  return reader.scalar(type);
}

async function readArray(reader: BlockReader, keep: boolean, depth: number): Promise<GgufValue> {
  if (depth === MAX_NESTING) throw new GgufError('not a GGUF file: its arrays are nested too deep');
  await reader.need(12);
  const type = reader.u32();
  const count = reader.length();
  const size = sizeOf(type);
  reader.expect(count * size);
  const skipped: GgufSkippedArray = { element_type: type, length: count };
  const wanted = keep || count <= KEPT_ELEMENTS;
  if (type !== STRING && type !== ARRAY && !wanted) {
    reader.skip(count * size);
    return skipped;
  }
  const values: GgufValue[] = [];
  for (let index = 0; index < count; index += 1) {
    if (type === ARRAY) {
      const value = await readArray(reader, keep, depth + 1);
      if (wanted) values.push(value);
      continue;
    }
    if (!reader.has(size)) await reader.need(size);
    if (type !== STRING) values.push(reader.scalar(type));
    else {
      const length = reader.length();
      if (wanted && !reader.has(length)) await reader.need(length);
      if (wanted) values.push(reader.text(length));
      else reader.skip(length);
    }
  }
  return wanted ? values : skipped;
}

function sizeOf(type: number): number {
  const size = SIZES[type];
  if (size === undefined) throw new GgufError(`not a GGUF file: it has a value of unknown type ${type}`);
  return size;
}

const isString = (value: GgufValue): value is string => typeof value === 'string';
const isFlag = (value: GgufValue): value is boolean => typeof value === 'boolean';
const isNumber = (value: GgufValue): value is number => typeof value === 'number';

function valueOf<T extends GgufValue>(
  metadata: Metadata,
  key: string,
  is: (value: GgufValue) => value is T,
): T | undefined {
  const value = metadata.get(key);
  return value !== undefined && is(value) ? value : undefined;
}

function listOf<T extends GgufValue>(
  metadata: Metadata,
  key: string,
  is: (value: GgufValue) => value is T,
): T[] | undefined {
  const value = metadata.get(key);
  return Array.isArray(value) && value.every(is) ? value : undefined;
}

function optional<K extends string, T>(key: K, value: T | undefined): Partial<Record<K, T>> {
  return value === undefined ? {} : ({ [key]: value } as Partial<Record<K, T>>);
}
