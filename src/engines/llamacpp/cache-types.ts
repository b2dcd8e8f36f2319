import { parseLlamaFlags } from '../../config/llama-flags.ts';

/** Bytes of one value of the cache, by its type: of blocks of 32 values with their scales (ggml, llama.cpp v0.4.0). */
const BYTES: Readonly<Record<string, number>> = {
  f32: 4,
  f16: 2,
  bf16: 2,
  q8_0: 34 / 32,
  q5_1: 24 / 32,
  q5_0: 22 / 32,
  q4_1: 20 / 32,
  q4_0: 18 / 32,
  iq4_nl: 18 / 32,
};

/**
 * What the KV cache of a llama-server with these flags takes, as a share of one in f16, which is the default.
 * @param flags in any spelling; a type that is not known counts as f16
 */
export function cacheScale(flags: readonly string[]): number {
  const types = parseLlamaFlags(flags);
  const bytesOf = (name: string): number =>
    BYTES[types.find((flag) => flag.name === name)?.values[0] ?? 'f16'] ?? 2;
  return (bytesOf('--cache-type-k') + bytesOf('--cache-type-v')) / 4;
}
