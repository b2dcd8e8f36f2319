import type { Sampling } from '../engine.ts';

/** llama.cpp reads this seed as "choose one at random". */
const RANDOM_SEED = 0xffffffff;

/** How far back a repeat penalty looks, in tokens. */
export const PENALTY_WINDOW = 64;

/** Every sampler by value: what the call leaves out is off, never a default of the engine or of its command line. */
export function resolveSampling(sampling: Sampling = {}): Required<Sampling> {
  return {
    temperature: sampling.temperature ?? 0,
    top_k: sampling.top_k ?? 0,
    top_p: sampling.top_p ?? 1,
    min_p: sampling.min_p ?? 0,
    repeat_penalty: sampling.repeat_penalty ?? 1,
    stop: sampling.stop ?? [],
  };
}

/** A seed as llama.cpp holds it: 32 bits, and never the one that means random. */
export function engineSeed(seed: number): number {
  return ((Math.trunc(seed) % RANDOM_SEED) + RANDOM_SEED) % RANDOM_SEED;
}
