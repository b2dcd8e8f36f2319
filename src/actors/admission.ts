import type { Clock } from '../clock.ts';
import type { TaskRequest } from '../contract/generated/types.ts';
import { failure, TaskchartError } from '../errors.ts';
import { inputOf } from './engine-call.ts';
import type { Pool } from './pool.ts';

/** BOS, EOS and a few template markers: what an engine adds to a text at most. */
const ADDED_TOKENS = 8;
const ADDED_TOKENS_PER_MESSAGE = 32;

/** How long admission waits for a count before it accepts and leaves the check to the engine, in milliseconds. */
const COUNT_TIMEOUT_MS = 5000;

/**
 * Refuses a prompt that leaves no room for `max_tokens` in `ctx`. A token stands for at least one byte, so most
 * prompts need no counting; where nobody can count yet, the engine refuses later and nothing is cut.
 * @returns tokens of the input, where they had to be counted
 * @throws TaskchartError INVALID_PARAMS
 */
export async function checkTokens(
  request: TaskRequest,
  pool: Pool,
  clock: Clock,
): Promise<number | undefined> {
  const room = request.ctx - request.max_tokens;
  if (room < 1)
    throw new TaskchartError(
      failure(
        'INVALID_PARAMS',
        `max_tokens: must leave room for the prompt in ctx ${request.ctx}, got ${request.max_tokens}`,
        { engine: request.engine, pool_id: pool.spec.id },
      ),
    );
  if (mostTokens(request) <= room) return undefined;
  const tokens = await countInTime(request, pool, clock);
  if (tokens !== undefined && tokens > room)
    throw new TaskchartError(
      failure(
        'INVALID_PARAMS',
        `${request.messages ? 'messages' : 'prompt'}: has ${tokens} tokens, at most ${room} fit beside max_tokens ${request.max_tokens} in ctx ${request.ctx}`,
        { engine: request.engine, pool_id: pool.spec.id },
      ),
    );
  return tokens;
}

/** @returns undefined where nobody can tell, or not in time */
async function countInTime(request: TaskRequest, pool: Pool, clock: Clock): Promise<number | undefined> {
  const late = new AbortController();
  const timer = clock.setTimeout(() => late.abort(), COUNT_TIMEOUT_MS);
  try {
    return await pool.count(inputOf(request), late.signal);
  } catch (error) {
    if (late.signal.aborted) return undefined;
    throw error;
  } finally {
    clock.clearTimeout(timer);
  }
}

function mostTokens(request: TaskRequest): number {
  const input = inputOf(request);
  if (input.kind === 'prompt') return Buffer.byteLength(input.text) + ADDED_TOKENS;
  return input.messages.reduce(
    (sum, message) =>
      sum + Buffer.byteLength(message.content) + Buffer.byteLength(message.role) + ADDED_TOKENS_PER_MESSAGE,
    ADDED_TOKENS,
  );
}
