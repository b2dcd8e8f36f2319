import type { EngineCall, OutputConstraint } from '../engine.ts';
import { resolveSampling } from '../llamacpp/sampling.ts';

/** vLLM reads top_k 0 as "all" only in newer versions, -1 in every one. */
const ALL_TOKENS = -1;

/** The body of a `POST /v1/completions` or `/v1/chat/completions`, and which of the two. */
export function generateRequest(
  call: EngineCall,
  model: string,
  max_tokens: number,
  version: string,
): { path: string; body: object } {
  const { input, resume } = call;
  const common = {
    model,
    max_tokens,
    stream: true,
    // With every frame: a frame may stand for several tokens, or for none.
    stream_options: { include_usage: true, continuous_usage_stats: true },
    ...samplingFields(call),
    ...(call.output ? constraintFields(call.output, version) : {}),
  };
  if (input.kind === 'prompt') {
    return { path: '/v1/completions', body: { prompt: input.text + (resume?.text ?? ''), ...common } };
  }
  return { path: '/v1/chat/completions', body: { ...chatFields(call), ...common } };
}

/** Messages, so that the template ends where the model is to go on; `/tokenize` takes the same. */
export function chatFields({ input, resume }: Pick<EngineCall, 'input' | 'resume'>): object {
  const messages = input.kind === 'chat' ? input.messages : [];
  if (resume === undefined) return { messages, add_generation_prompt: true };
  return {
    messages: [...messages, { role: 'assistant', content: resume.text }],
    add_generation_prompt: false,
    continue_final_message: true,
  };
}

/** Every sampler by value: what is left out would be the model's `generation_config.json`. */
function samplingFields({ sampling, seed }: EngineCall): object {
  const { temperature, top_k, top_p, min_p, repeat_penalty, stop } = resolveSampling(sampling);
  return {
    seed: Math.trunc(seed),
    temperature,
    top_p,
    top_k: top_k > 0 ? top_k : ALL_TOKENS,
    min_p,
    repetition_penalty: repeat_penalty,
    presence_penalty: 0,
    frequency_penalty: 0,
    ignore_eos: false,
    ...(stop.length > 0 ? { stop } : {}),
  };
}

/** vLLM ignores fields that it does not know, and a constraint under the wrong name would be one. */
function constraintFields(output: OutputConstraint, version: string): object {
  if (!takesStructuredOutputs(version)) {
    return output.kind === 'grammar' ? { guided_grammar: output.gbnf } : { guided_json: output.schema };
  }
  return {
    structured_outputs: output.kind === 'grammar' ? { grammar: output.gbnf } : { json: output.schema },
  };
}

/** From 0.11 on; a version that cannot be read is a build of the newest. */
function takesStructuredOutputs(version: string): boolean {
  const [, major, minor] = /^(\d+)\.(\d+)\./u.exec(version) ?? [];
  if (major === undefined || /dev/u.test(version)) return true;
  return Number(major) > 0 || Number(minor) >= 11;
}
