import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';
import type { GgufVocabulary } from '../../src/models/gguf.ts';

/** The model that comes with the project. */
export const STORYTELLER = fileURLToPath(
  new URL('../../models/storyteller/storyteller.gguf', import.meta.url),
);

/** A GGUF value with its type, named as the format's documentation names it. */
export type Typed =
  | { u8: number }
  | { i8: number }
  | { u16: number }
  | { i16: number }
  | { u32: number }
  | { i32: number }
  | { f32: number }
  | { bool: boolean }
  | { string: string }
  | { array: readonly Typed[] }
  | { u64: bigint }
  | { i64: bigint }
  | { f64: number };

const TYPES = ['u8', 'i8', 'u16', 'i16', 'u32', 'i32', 'f32', 'bool', 'string', 'array', 'u64', 'i64', 'f64'];

/** The bytes of a GGUF file without tensors. */
export function ggufFile(entries: Record<string, Typed>, version = 3): Buffer {
  const pairs = Object.entries(entries);
  return Buffer.concat([
    Buffer.from('GGUF'),
    u32(version),
    u64(0n),
    u64(BigInt(pairs.length)),
    ...pairs.flatMap(([key, value]) => [text(key), u32(typeOf(value)), payload(value)]),
  ]);
}

/** A file with a vocabulary that both llama.cpp and our reader accept. */
export function vocabularyFile(vocabulary: GgufVocabulary): Buffer {
  const strings = (list: readonly string[]): Typed => ({ array: list.map((string) => ({ string })) });
  const entries: Record<string, Typed> = {
    'general.architecture': { string: 'llama' },
    'llama.context_length': { u32: 128 },
    'llama.embedding_length': { u32: 32 },
    'llama.block_count': { u32: 1 },
    'llama.feed_forward_length': { u32: 32 },
    'llama.attention.head_count': { u32: 2 },
    'llama.attention.layer_norm_rms_epsilon': { f32: 1e-5 },
    'tokenizer.ggml.model': { string: vocabulary.model },
    'tokenizer.ggml.tokens': strings(vocabulary.tokens),
    'tokenizer.ggml.token_type': { array: (vocabulary.types ?? []).map((i32) => ({ i32 })) },
    'tokenizer.ggml.bos_token_id': { u32: vocabulary.bos ?? 1 },
    'tokenizer.ggml.eos_token_id': { u32: vocabulary.eos ?? 2 },
  };
  if (vocabulary.pre !== undefined) entries['tokenizer.ggml.pre'] = { string: vocabulary.pre };
  if (vocabulary.merges !== undefined) entries['tokenizer.ggml.merges'] = strings(vocabulary.merges);
  if (vocabulary.scores !== undefined) {
    entries['tokenizer.ggml.scores'] = { array: vocabulary.scores.map((f32) => ({ f32 })) };
  }
  if (vocabulary.model_name !== undefined) entries['general.name'] = { string: vocabulary.model_name };
  return ggufFile(entries);
}

/** The tokenizer.json that a byte-level vocabulary with the rules of GPT-2 would come with. */
export function storytellerJson({ tokens, types, merges, bos = 0, add_bos }: GgufVocabulary): object {
  const name = tokens[bos] ?? '';
  const special = { SpecialToken: { id: name, type_id: 0 } };
  const prompt = { Sequence: { id: 'A', type_id: 0 } };
  return {
    truncation: null,
    padding: null,
    added_tokens: tokens.flatMap((content, id) =>
      types?.[id] === 3 || types?.[id] === 4
        ? { id, content, special: types[id] === 3, normalized: false, lstrip: false, rstrip: false }
        : [],
    ),
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: {
      type: 'TemplateProcessing',
      single: add_bos ? [special, prompt] : [prompt],
      special_tokens: { [name]: { id: name, ids: [bos], tokens: [name] } },
    },
    model: {
      type: 'BPE',
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges,
    },
  };
}

/** Writes a file that is gone when the test is over. */
export async function scratchFile(
  t: ExecutionContext,
  bytes: Uint8Array,
  name = 'model.gguf',
): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'taskchart-model-'));
  t.teardown(() => rm(folder, { recursive: true }));
  const path = join(folder, name);
  await writeFile(path, bytes);
  return path;
}

function typeOf(value: Typed): number {
  return TYPES.indexOf(Object.keys(value)[0] ?? '');
}

function payload(value: Typed): Buffer {
  if ('string' in value) return text(value.string);
  if ('array' in value) {
    const [first = { u8: 0 }] = value.array;
    return Buffer.concat([u32(typeOf(first)), u64(BigInt(value.array.length)), ...value.array.map(payload)]);
  }
  const bytes = Buffer.alloc(8);
  if ('u8' in value) return bytes.subarray(0, bytes.writeUInt8(value.u8));
  if ('i8' in value) return bytes.subarray(0, bytes.writeInt8(value.i8));
  if ('u16' in value) return bytes.subarray(0, bytes.writeUInt16LE(value.u16));
  if ('i16' in value) return bytes.subarray(0, bytes.writeInt16LE(value.i16));
  if ('u32' in value) return u32(value.u32);
  if ('i32' in value) return bytes.subarray(0, bytes.writeInt32LE(value.i32));
  if ('f32' in value) return bytes.subarray(0, bytes.writeFloatLE(value.f32));
  if ('bool' in value) return bytes.subarray(0, bytes.writeUInt8(value.bool ? 1 : 0));
  if ('u64' in value) return u64(value.u64);
  if ('i64' in value) return bytes.subarray(0, bytes.writeBigInt64LE(value.i64));
  return bytes.subarray(0, bytes.writeDoubleLE(value.f64));
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function u64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([u64(BigInt(bytes.length)), bytes]);
}
