import { writeFile } from 'node:fs/promises';
import { readGgufFileInfo } from 'node-llama-cpp';

const ALIGNMENT = 32;
const EMBEDDING = 32;
const HEADS = 2;
const HEAD = 16;
const FEED_FORWARD = 48;
const LABELS = ['yes', 'no'];

/** GGUF's numbers for the kinds of values. */
const KIND = { u32: 4, i32: 5, f32: 6, bool: 7, text: 8, list: 9 } as const;

/**
 * Writes a model that ranks: one layer of qwen3 with made-up weights, a head for two labels, and the vocabulary of
 * another model. Its scores mean nothing, but they are computed as those of a real one.
 */
export async function writeTinyRanker(path: string, vocabularyOf: string): Promise<void> {
  const { metadata } = await readGgufFileInfo(vocabularyOf);
  const ggml = metadata.tokenizer.ggml as unknown as Record<string, unknown> & { tokens: string[] };
  const entries = [
    entry('general.architecture', text('qwen3')),
    ...Object.entries({
      block_count: 1,
      context_length: 512,
      embedding_length: EMBEDDING,
      feed_forward_length: FEED_FORWARD,
      'attention.head_count': HEADS,
      'attention.head_count_kv': HEADS,
      'attention.key_length': HEAD,
      'attention.value_length': HEAD,
      pooling_type: 4,
    }).map(([key, value]) => entry(`qwen3.${key}`, u32(value))),
    entry('qwen3.attention.layer_norm_rms_epsilon', f32(1e-5)),
    entry('qwen3.rope.freq_base', f32(10_000)),
    entry('qwen3.classifier.output_labels', list(LABELS.map(text))),
    ...Object.entries(ggml).map(([key, value]) => entry(`tokenizer.ggml.${key}`, valueOf(key, value))),
  ];
  const heads = HEADS * HEAD;
  const shapes: Record<string, number[]> = {
    'token_embd.weight': [EMBEDDING, ggml.tokens.length],
    'output_norm.weight': [EMBEDDING],
    'cls.output.weight': [EMBEDDING, LABELS.length],
    'blk.0.attn_norm.weight': [EMBEDDING],
    'blk.0.attn_q.weight': [EMBEDDING, heads],
    'blk.0.attn_k.weight': [EMBEDDING, heads],
    'blk.0.attn_v.weight': [EMBEDDING, heads],
    'blk.0.attn_output.weight': [heads, EMBEDDING],
    'blk.0.attn_q_norm.weight': [HEAD],
    'blk.0.attn_k_norm.weight': [HEAD],
    'blk.0.ffn_norm.weight': [EMBEDDING],
    'blk.0.ffn_gate.weight': [EMBEDDING, FEED_FORWARD],
    'blk.0.ffn_up.weight': [EMBEDDING, FEED_FORWARD],
    'blk.0.ffn_down.weight': [FEED_FORWARD, EMBEDDING],
  };
  await writeFile(path, gguf(entries, shapes));
}

function gguf(entries: readonly Buffer[], shapes: Readonly<Record<string, number[]>>): Buffer {
  const infos: Buffer[] = [];
  const data: Buffer[] = [];
  let offset = 0;
  let state = 1;
  const random = (): number => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
    return state / 2 ** 30 - 1;
  };
  for (const [name, shape] of Object.entries(shapes)) {
    const count = shape.reduce((total, each) => total * each, 1);
    infos.push(
      Buffer.concat([
        bare(name),
        uint(shape.length),
        ...shape.map((each) => uint64(each)),
        uint(0),
        uint64(offset),
      ]),
    );
    const values = Float32Array.from({ length: count }, () => (shape.length === 1 ? 1 : random()));
    data.push(padded(Buffer.from(values.buffer)));
    offset += data.at(-1)?.length ?? 0;
  }
  const counts = [uint64(infos.length), uint64(entries.length)];
  const header = Buffer.concat([Buffer.from('GGUF'), uint(3), ...counts, ...entries, ...infos]);
  return Buffer.concat([padded(header), ...data]);
}

interface Value {
  kind: number;
  bytes: Buffer;
}

function valueOf(key: string, value: unknown): Value {
  if (typeof value === 'string') return text(value);
  if (typeof value === 'boolean') return { kind: KIND.bool, bytes: Buffer.from([value ? 1 : 0]) };
  if (typeof value === 'number') return u32(value);
  const items = value as unknown[];
  if (typeof items[0] === 'string') return list(items.map((each) => text(String(each))));
  const kind = key === 'scores' ? f32 : i32;
  return list(items.map((each) => kind(Number(each))));
}

function entry(key: string, { kind, bytes }: Value): Buffer {
  return Buffer.concat([bare(key), uint(kind), bytes]);
}

function list(values: readonly Value[]): Value {
  const bytes = [
    uint(values[0]?.kind ?? KIND.text),
    uint64(values.length),
    ...values.map((each) => each.bytes),
  ];
  return { kind: KIND.list, bytes: Buffer.concat(bytes) };
}

function text(value: string): Value {
  return { kind: KIND.text, bytes: bare(value) };
}

function bare(value: string): Buffer {
  return Buffer.concat([uint64(Buffer.byteLength(value)), Buffer.from(value)]);
}

function u32(value: number): Value {
  return { kind: KIND.u32, bytes: uint(value) };
}

function i32(value: number): Value {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return { kind: KIND.i32, bytes };
}

function f32(value: number): Value {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return { kind: KIND.f32, bytes };
}

function uint(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function uint64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & (ALIGNMENT - 1))]);
}
