import type { EngineCall } from '../engine.ts';
import { PENALTY_WINDOW, engineSeed, resolveSampling } from './sampling.ts';

/** The final frame without the echo of the prompt and of every setting; `stop` must stay, it ends the stream. */
const FINAL_FIELDS = ['content', 'stop', 'stop_type', 'tokens_predicted', 'tokens_evaluated', 'timings'];

/** The body of a `POST /completion`. */
export function completionBody(call: EngineCall, prompt: string, reusePrefix: boolean): object {
  return {
    prompt,
    stream: true,
    n_predict: call.max_tokens,
    seed: engineSeed(call.seed),
    ...resolveSampling(call.sampling),
    // Only these, in this order: whatever else the server was started with stays out.
    samplers: ['penalties', 'top_k', 'top_p', 'min_p', 'temperature'],
    repeat_last_n: PENALTY_WINDOW,
    presence_penalty: 0,
    frequency_penalty: 0,
    mirostat: 0,
    ignore_eos: false,
    cache_prompt: reusePrefix && !call.cold,
    return_progress: true,
    response_fields: FINAL_FIELDS,
    ...(call.output?.kind === 'grammar' ? { grammar: call.output.gbnf } : {}),
    ...(call.output?.kind === 'json_schema' ? { json_schema: call.output.schema } : {}),
  };
}
