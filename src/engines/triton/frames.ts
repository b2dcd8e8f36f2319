import type { EngineInput } from '../engine.ts';
import type { Ending, Frame, FrameReader } from '../event-stream.ts';
import type { RunOutput } from '../run-output.ts';
import { estimatedTokens } from '../token-bound.ts';

/** Reads streams of `/v2/models/<model>/generate_stream`. */
export class TritonFrames implements FrameReader {
  readonly #output: RunOutput;
  readonly #input: EngineInput;
  readonly #max_tokens: number;
  readonly #tellsReason: boolean;
  #any = false;

  /** @param tellsReason whether frames have a `finish_reason`; otherwise the end of the body is the end of the run */
  constructor(output: RunOutput, input: EngineInput, max_tokens: number, tellsReason: boolean) {
    this.#output = output;
    this.#input = input;
    this.#max_tokens = max_tokens;
    this.#tellsReason = tellsReason;
  }

  frame(frame: Frame): Ending | undefined {
    this.#any = true;
    const { text_output, finish_reason, num_input_tokens, num_output_tokens } = frame;
    if (typeof num_input_tokens === 'number') this.#output.prefilled(num_input_tokens);
    const text = typeof text_output === 'string' ? text_output : '';
    // What this frame adds, not the sum.
    const tokens = typeof num_output_tokens === 'number' ? num_output_tokens : text === '' ? 0 : 1;
    if (this.#output.push(text, tokens)) return this.#finish('stop');
    if (!this.#tellsReason || typeof finish_reason !== 'string') return undefined;
    // The word, as Python prints a missing value.
    if (finish_reason === 'None') return undefined;
    return this.#finish(finish_reason === 'length' ? 'limit' : 'eos');
  }

  end(broken: boolean): Ending | undefined {
    if (broken || this.#tellsReason || !this.#any) return undefined;
    return this.#finish(this.#output.counted >= this.#max_tokens ? 'limit' : 'eos');
  }

  #finish(reason: 'eos' | 'limit' | 'stop'): Ending {
    this.#output.finish(reason);
    if (this.#output.usage.tokens_in === 0) this.#output.usage.tokens_in = estimatedTokens(this.#input);
    return { kind: 'finished', reason };
  }
}
