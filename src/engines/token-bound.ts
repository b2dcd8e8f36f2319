import type { EngineInput } from './engine.ts';

/** BOS, EOS and a few template markers: what an engine adds to a text at most. */
const ADDED_TOKENS = 8;
const ADDED_TOKENS_PER_MESSAGE = 32;

/** Bytes that a token stands for in common text; for estimates only. */
const BYTES_PER_TOKEN = 4;

/** Tokens that an input has at most: a token stands for at least a byte. */
export function mostTokens(input: EngineInput): number {
  return textsOf(input).reduce((sum, text) => sum + Buffer.byteLength(text), ADDED_TOKENS) + framing(input);
}

/** Tokens that an input may have, where the engine does not tell. */
export function estimatedTokens(input: EngineInput): number {
  const bytes = textsOf(input).reduce((sum, text) => sum + Buffer.byteLength(text), 0);
  return Math.max(1, Math.ceil(bytes / BYTES_PER_TOKEN));
}

/** What the caller wrote, piece by piece. */
export function textsOf(input: EngineInput): string[] {
  return input.kind === 'prompt' ? [input.text] : input.messages.map(({ content }) => content);
}

function framing(input: EngineInput): number {
  return input.kind === 'prompt' ? 0 : input.messages.length * ADDED_TOKENS_PER_MESSAGE;
}
