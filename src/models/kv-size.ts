import type { GgufHeader } from './gguf.ts';

/** Of the `<architecture>.*` entries of a GGUF file. */
export interface KvMetadata {
  block_count?: number;
  embedding_length?: number;
  attention?: {
    head_count?: number | number[];
    head_count_kv?: number | number[];
    key_length?: number;
    value_length?: number;
    sliding_window?: number;
    kv_lora_rank?: number;
  };
  ssm?: object;
}

/** The cache holds 16-bit floats unless asked otherwise. */
const BYTES_PER_ELEMENT = 2;

/**
 * What one token of context takes in the KV cache, in bytes: keys and values of every layer's KV heads.
 * @returns undefined where the file does not say enough, or the model keeps something else than all keys and values.
 */
export function kvBytesPerToken(metadata: KvMetadata): number | undefined {
  const { block_count: layers, embedding_length, attention = {}, ssm } = metadata;
  const { head_count, head_count_kv = head_count, sliding_window, kv_lora_rank } = attention;
  if (layers === undefined || head_count_kv === undefined || ssm !== undefined) return undefined;
  if (sliding_window !== undefined || kv_lora_rank !== undefined) return undefined;
  const width =
    typeof head_count === 'number' && embedding_length !== undefined
      ? embedding_length / head_count
      : undefined;
  const { key_length = width, value_length = width } = attention;
  if (key_length === undefined || value_length === undefined) return undefined;
  const heads = Array.isArray(head_count_kv)
    ? head_count_kv.reduce((total, each) => total + each, 0)
    : head_count_kv * layers;
  return heads * (key_length + value_length) * BYTES_PER_ELEMENT;
}

/** The same from a header that was read, whose keys have dots, and whose long arrays were stepped over. */
export function kvBytesOfHeader({ architecture, metadata }: GgufHeader): number | undefined {
  const model: Record<string, unknown> = {};
  const attention: Record<string, unknown> = {};
  for (const [key, value] of metadata) {
    if (!key.startsWith(`${architecture}.`)) continue;
    const [name = '', part] = key.slice(architecture.length + 1).split('.');
    if (name === 'attention' && part !== undefined) attention[part] = value;
    else model[name] = part === undefined ? value : {};
  }
  const { head_count, head_count_kv = head_count } = attention;
  if (typeof head_count_kv !== 'number' && !Array.isArray(head_count_kv)) return undefined;
  const bytes = kvBytesPerToken({ ...model, attention } as KvMetadata);
  return Number.isFinite(bytes) ? bytes : undefined;
}
