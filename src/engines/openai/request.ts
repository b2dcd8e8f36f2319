import type { EngineCall } from '../engine.ts';
import { resolveSampling } from '../llamacpp/sampling.ts';

/** What this server turned out not to take; servers say so with a 400 that names the field. */
export interface Manners {
  /** `stream_options` is unknown to it: usage is then estimated. */
  usage: boolean;
  /** Its newer models take the bound of the output under this name only. */
  max_tokens_name: 'max_tokens' | 'max_completion_tokens';
}

/** The body of a `POST /chat/completions`. A bare prompt becomes the one message of a conversation. */
export function chatBody(call: EngineCall, model: string, manners: Manners): object {
  const { input, output } = call;
  const schema = output?.kind === 'json_schema' ? output.schema : undefined;
  return {
    messages: input.kind === 'chat' ? input.messages : [{ role: 'user', content: input.text }],
    [manners.max_tokens_name]: call.max_tokens,
    ...common(call, model, manners),
    ...(schema === undefined ? {} : { response_format: responseFormat(schema) }),
  };
}

/** The body of a `POST /completions`. */
export function completionBody(call: EngineCall, model: string, manners: Manners): object {
  const prompt = call.input.kind === 'prompt' ? call.input.text : '';
  return {
    prompt: prompt + (call.resume?.text ?? ''),
    max_tokens: call.max_tokens,
    ...common(call, model, manners),
  };
}

export function responseFormat(schema: object): object {
  return { type: 'json_schema', json_schema: { name: 'output', strict: true, schema } };
}

/**
 * Samplers that OpenAI does not have are sent only where the caller sets them, so that a server without them can
 * refuse; the penalty has two names.
 */
function common(call: EngineCall, model: string, manners: Manners): object {
  const { temperature, top_k, top_p, min_p, repeat_penalty, stop } = resolveSampling(call.sampling);
  return {
    model,
    stream: true,
    ...(manners.usage ? { stream_options: { include_usage: true } } : {}),
    seed: Math.trunc(call.seed),
    temperature,
    top_p,
    ...(top_k > 0 ? { top_k } : {}),
    ...(min_p > 0 ? { min_p } : {}),
    ...(repeat_penalty === 1 ? {} : { repetition_penalty: repeat_penalty, repeat_penalty }),
    ...(stop.length > 0 ? { stop } : {}),
  };
}

/**
 * What to do differently after a refusal, if that is to blame.
 * @returns undefined where another try would be refused again
 */
export function betterManners(message: string, manners: Manners): Manners | undefined {
  if (manners.usage && /stream_options|include_usage/u.test(message)) return { ...manners, usage: false };
  if (manners.max_tokens_name === 'max_tokens' && message.includes('max_completion_tokens'))
    return { ...manners, max_tokens_name: 'max_completion_tokens' };
  return undefined;
}
