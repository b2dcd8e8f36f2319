import { TaskchartError } from '../../errors.ts';
import type { EngineCall } from '../engine.ts';
import { resolveSampling } from '../llamacpp/sampling.ts';
import { unsupported } from '../outcome.ts';

/** The body of a `POST /generate_stream`, TGI's own. @throws TaskchartError for what TGI does not have */
export function generateBody(call: EngineCall, max_new_tokens: number, maxStops: number): object {
  const { temperature, top_k, top_p, min_p, repeat_penalty, stop } = resolveSampling(call.sampling);
  if (min_p > 0) throw new TaskchartError(unsupported('sampling.min_p', 'TGI has no such sampler'));
  const prompt = call.input.kind === 'prompt' ? call.input.text : '';
  return {
    inputs: prompt + (call.resume?.text ?? ''),
    parameters: {
      max_new_tokens,
      // Without details the last frame says neither why it ended nor how long the input was.
      details: true,
      return_full_text: false,
      seed: unsignedSeed(call.seed),
      // Any one of the samplers, at whatever value, would switch sampling on.
      ...(temperature === 0
        ? { do_sample: false }
        : {
            do_sample: true,
            temperature,
            ...(top_k > 0 ? { top_k } : {}),
            ...(top_p < 1 ? { top_p } : {}),
          }),
      ...(repeat_penalty === 1 ? {} : { repetition_penalty: repeat_penalty }),
      ...(stop.length > 0 ? { stop: stop.slice(0, maxStops) } : {}),
      ...(call.output?.kind === 'json_schema'
        ? { grammar: { type: 'json', value: call.output.schema } }
        : {}),
    },
  };
}

/** The body of a `POST /v1/chat/completions` of TGI. @throws TaskchartError for what it does not have */
export function chatBody(call: EngineCall, max_tokens: number, maxStops: number): object {
  const { temperature, top_k, top_p, min_p, repeat_penalty, stop } = resolveSampling(call.sampling);
  const missing =
    top_k > 0 ? 'top_k' : min_p > 0 ? 'min_p' : repeat_penalty === 1 ? undefined : 'repeat_penalty';
  if (missing !== undefined)
    throw new TaskchartError(unsupported(`sampling.${missing}`, 'TGI does not take it with messages'));
  return {
    model: 'tgi',
    messages: call.input.kind === 'chat' ? call.input.messages : [],
    max_tokens,
    stream: true,
    stream_options: { include_usage: true },
    seed: unsignedSeed(call.seed),
    // Zero is greedy here. Penalties stay out: TGI adds two to whatever presence_penalty says, zero included.
    temperature,
    ...(temperature > 0 && top_p < 1 ? { top_p } : {}),
    ...(stop.length > 0 ? { stop: stop.slice(0, maxStops) } : {}),
    ...(call.output?.kind === 'json_schema'
      ? { response_format: { type: 'json', value: call.output.schema } }
      : {}),
  };
}

/** TGI reads seeds as unsigned; negative ones are folded to large ones. */
export function unsignedSeed(seed: number): number {
  const whole = Math.trunc(seed);
  return whole < 0 ? Number.MAX_SAFE_INTEGER + whole : whole;
}
