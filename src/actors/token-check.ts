import type { Clock } from '../clock.ts';
import type { TaskRequest } from '../contract/generated/types.ts';
import type { EngineInput } from '../engines/engine.ts';
import { failure, TaskchartError } from '../errors.ts';
import { inputOf } from './engine-call.ts';
import type { Pool } from './pool.ts';

/** BOS, EOS and a few template markers: what an engine adds to a text at most. */
const ADDED_TOKENS = 8;
const ADDED_TOKENS_PER_MESSAGE = 32;

/** How long a caller may wait for a count, in milliseconds. */
const COUNT_TIMEOUT_MS = 15_000;

/**
 * Refuses an input that does not fit into `ctx`: a completion's together with `max_tokens`, each text of an
 * embedding, the query with each document of a ranking. A token stands for at least one byte, so most texts need no
 * counting; where nobody can count yet, the engine refuses later and nothing is cut. A count that comes too late is
 * a sign of too much work, and refused like any other.
 * @param pool any that serves the model
 * @returns tokens of a completion's input, where they had to be counted
 * @throws TaskchartError INVALID_PARAMS; ADMISSION_REJECT where too many prompts wait to be counted
 */
export async function checkTokens(
  request: TaskRequest,
  pool: Pool,
  clock: Clock,
): Promise<number | undefined> {
  const refuse = (message: string): TaskchartError =>
    new TaskchartError(failure('INVALID_PARAMS', message, { engine: request.engine, pool_id: pool.spec.id }));
  if (request.workload !== 'completion') {
    for (const { name, text } of textsOf(request)) {
      const tokens = await tokensAbove(request.ctx, { kind: 'prompt', text }, pool, clock);
      if (tokens !== undefined && tokens > request.ctx)
        throw refuse(`${name}: has ${tokens} tokens, at most ${request.ctx} fit in ctx`);
    }
    return undefined;
  }
  const room = request.ctx - request.max_tokens;
  if (room < 1)
    throw refuse(
      `max_tokens: must leave room for the prompt in ctx ${request.ctx}, got ${request.max_tokens}`,
    );
  const tokens = await tokensAbove(room, inputOf(request), pool, clock);
  if (tokens !== undefined && tokens > room)
    throw refuse(
      `${request.messages ? 'messages' : 'prompt'}: has ${tokens} tokens, at most ${room} fit beside max_tokens ${request.max_tokens} in ctx ${request.ctx}`,
    );
  return tokens;
}

/** What an engine sees at a time, and the field that it comes from. */
function textsOf({ workload, prompt, inputs }: TaskRequest): { name: string; text: string }[] {
  const query = workload === 'rerank' ? `${prompt ?? ''}\n` : '';
  const texts = (inputs ?? []).map((text, i) => ({ name: `inputs[${i}]`, text: query + text }));
  return inputs ? texts : [{ name: 'prompt', text: prompt ?? '' }];
}

/** @returns undefined where it certainly fits, and where nobody can tell */
async function tokensAbove(
  limit: number,
  input: EngineInput,
  pool: Pool,
  clock: Clock,
): Promise<number | undefined> {
  if (mostTokens(input) <= limit) return undefined;
  const late = new AbortController();
  const timer = clock.setTimeout(() => late.abort(), COUNT_TIMEOUT_MS);
  try {
    return await pool.count(input, late.signal);
  } catch (error) {
    const place = { engine: pool.spec.engine, pool_id: pool.spec.id };
    if (late.signal.aborted)
      throw new TaskchartError(
        failure('ADMISSION_REJECT', `the input was not counted within ${COUNT_TIMEOUT_MS} ms`, {
          ...place,
          policy_label: 'tokenizer',
          retry_after_ms: COUNT_TIMEOUT_MS,
        }),
      );
    // The threads do not know whose prompt it was.
    if (error instanceof TaskchartError)
      throw new TaskchartError({ ...place, ...error.failure }, error.status);
    throw error;
  } finally {
    clock.clearTimeout(timer);
  }
}

function mostTokens(input: EngineInput): number {
  if (input.kind === 'prompt') return Buffer.byteLength(input.text) + ADDED_TOKENS;
  return input.messages.reduce(
    (sum, message) =>
      sum + Buffer.byteLength(message.content) + Buffer.byteLength(message.role) + ADDED_TOKENS_PER_MESSAGE,
    ADDED_TOKENS,
  );
}
