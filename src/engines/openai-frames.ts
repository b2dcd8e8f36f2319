import { failure } from '../errors.ts';
import type { EngineInput } from './engine.ts';
import type { Ending, Frame, FrameReader } from './event-stream.ts';
import type { RunOutput } from './run-output.ts';
import { estimatedTokens } from './token-bound.ts';

interface Choice {
  index?: number;
  /** Of completions. */
  text?: string | null;
  /** Of conversations; servers disagree on the name of reasoning. */
  delta?: { content?: string | null; reasoning_content?: string | null; reasoning?: string | null } | null;
  finish_reason?: string | null;
  /** vLLM: the stop string, or the id of the token that ended it. */
  stop_reason?: unknown;
}

interface UsageTold {
  prompt_tokens?: number | null;
  completion_tokens?: number | null;
  prompt_tokens_details?: { cached_tokens?: number | null } | null;
}

/** Reads streams of `/v1/completions` and `/v1/chat/completions`, of OpenAI and of those who speak alike. */
export class OpenAiFrames implements FrameReader {
  readonly #output: RunOutput;
  readonly #input: EngineInput;
  #ending: Ending | undefined;
  /** Tokens of the output by the engine's last count. */
  #told = 0;

  constructor(output: RunOutput, input: EngineInput) {
    this.#output = output;
    this.#input = input;
  }

  frame(frame: Frame): Ending | undefined {
    const usage = frame['usage'] as UsageTold | null | undefined;
    const choice = (frame['choices'] as Choice[] | undefined)?.[0];
    const tokens = this.#take(usage ?? undefined, choice);
    if (choice === undefined || this.#ending !== undefined) return undefined;
    const { delta } = choice;
    const reasoning = delta?.reasoning_content ?? delta?.reasoning ?? '';
    if (reasoning !== '') this.#output.push(reasoning, tokens, 'reasoning');
    const stopped = this.#output.push(choice.text ?? delta?.content ?? '', reasoning === '' ? tokens : 0);
    if (stopped) return this.#finish('stop');
    if (typeof choice.finish_reason === 'string') this.#ending = endingOf(choice);
    // Usage may follow in a frame of its own.
    return this.#ending?.kind === 'failed' ? this.#ending : undefined;
  }

  end(): Ending | undefined {
    return this.#ending?.kind === 'finished' ? this.#finish(this.#ending.reason) : this.#ending;
  }

  /** @returns the tokens that this frame stands for: as the engine counts, else one for each frame with text */
  #take(usage: UsageTold | undefined, choice: Choice | undefined): number {
    if (typeof usage?.prompt_tokens === 'number')
      this.#output.prefilled(usage.prompt_tokens, usage.prompt_tokens_details?.cached_tokens ?? undefined);
    if (typeof usage?.completion_tokens === 'number') {
      this.#told = usage.completion_tokens;
      return Math.max(0, this.#told - this.#output.counted);
    }
    const { text, delta } = choice ?? {};
    const said = text ?? delta?.content ?? delta?.reasoning_content ?? delta?.reasoning ?? '';
    return said === '' ? 0 : 1;
  }

  #finish(reason: 'eos' | 'limit' | 'stop'): Ending {
    this.#output.finish(reason, this.#told);
    if (this.#output.usage.tokens_in === 0) this.#output.usage.tokens_in = estimatedTokens(this.#input);
    return { kind: 'finished', reason };
  }
}

function endingOf({ finish_reason, stop_reason }: Choice): Ending {
  switch (finish_reason) {
    case 'length':
      return { kind: 'finished', reason: 'limit' };
    case 'content_filter':
      return {
        kind: 'failed',
        failure: failure('INVALID_PARAMS', 'The content filter of the server stopped the output.'),
      };
    case 'abort':
    case 'error':
      return { kind: 'failed', failure: failure('WORKER_RESET', 'The engine gave the run up.') };
    case 'stop_sequence':
      return { kind: 'finished', reason: 'stop' };
    default:
      return { kind: 'finished', reason: typeof stop_reason === 'string' ? 'stop' : 'eos' };
  }
}
