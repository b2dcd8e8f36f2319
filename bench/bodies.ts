import type { TaskRequest } from '../src/contract/generated/types.ts';

export const MODEL = 'bench';

const PROMPT_BYTES = 200;
const FILLER = 'the quick brown fox jumps over the lazy dog and runs into the forest '.repeat(4);

/** A prompt of 200 bytes that no other number has. */
export function promptOf(number: number): string {
  return `${number} ${FILLER}`.slice(0, PROMPT_BYTES);
}

/** What a client posts for a task of its own: everything that is required, no id. */
export function requestOf(
  number: number,
  engine: TaskRequest['engine'] = 'synthetic',
  max_tokens = 1,
): TaskRequest {
  return {
    workload: 'completion',
    model_ref: MODEL,
    engine,
    ctx: 4096,
    priority: 'interactive',
    max_tokens,
    deadline_ms: 2_000_000_000,
    prompt: promptOf(number),
  };
}
