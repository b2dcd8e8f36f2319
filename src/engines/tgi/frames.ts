import type { Ending, Frame, FrameReader } from '../event-stream.ts';
import type { RunOutput } from '../run-output.ts';

interface Token {
  text?: string;
  special?: boolean;
}

interface Details {
  finish_reason?: string;
  generated_tokens?: number;
  input_length?: number;
}

/** Reads streams of `/generate_stream`: one token a frame, the last one with `generated_text`. */
export class TgiFrames implements FrameReader {
  readonly #output: RunOutput;
  readonly #tokensIn: number;

  /** @param tokensIn used where the engine does not tell */
  constructor(output: RunOutput, tokensIn: number) {
    this.#output = output;
    this.#tokensIn = tokensIn;
    if (tokensIn > 0) output.prefilled(tokensIn);
  }

  frame(frame: Frame): Ending | undefined {
    const token = frame['token'] as Token | undefined;
    const stopped = token !== undefined && this.#output.push(token.special ? '' : (token.text ?? ''), 1);
    const details = frame['details'] as Details | null | undefined;
    if (stopped) return this.#finish('stop', details);
    if (typeof frame['generated_text'] !== 'string') return undefined;
    const reason = details?.finish_reason;
    return this.#finish(reason === 'length' ? 'limit' : reason === 'stop_sequence' ? 'stop' : 'eos', details);
  }

  end(): undefined {
    return undefined;
  }

  #finish(reason: 'eos' | 'limit' | 'stop', details: Details | null | undefined): Ending {
    this.#output.finish(reason, details?.generated_tokens);
    this.#output.usage.tokens_in = details?.input_length ?? this.#tokensIn;
    return { kind: 'finished', reason };
  }
}
