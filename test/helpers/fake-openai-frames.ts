/** The frames of completions and conversations, as OpenAI and those who speak alike send them. */
import type { Asked, Reply } from './fake-engine.ts';

export interface OpenAiStreamOptions {
  tokens_in: number;
  error: object;
  /** vLLM tells the stop string. @default false */
  tells_stop?: boolean;
  /** `stream_options` mean nothing to it: it never tells usage. @default false */
  silent_usage?: boolean;
  /** Usage on the last choice frame instead of in one of its own. @default false */
  usage_with_last?: boolean;
  /** Said before the answer. */
  reasoning?: string;
  leaks_stops?: boolean;
}

export function openAiStream({ path, body }: Asked, options: OpenAiStreamOptions): Reply {
  const { tokens_in, error, tells_stop = false, silent_usage = false, usage_with_last = false } = options;
  const chat = path.endsWith('/chat/completions');
  const object = chat ? 'chat.completion.chunk' : 'text_completion';
  const wants = (body['stream_options'] ?? {}) as {
    include_usage?: boolean;
    continuous_usage_stats?: boolean;
  };
  const frame = (choices: object[], completion_tokens?: number) => ({
    id: chat ? 'chatcmpl-1' : 'cmpl-1',
    object,
    created: 1,
    model: body['model'],
    choices,
    ...(completion_tokens === undefined ? {} : { usage: usageOf(tokens_in, completion_tokens) }),
  });
  const choice = (text: string, extra: object = {}) => ({
    index: 0,
    ...(chat ? { delta: { content: text } } : { text }),
    logprobs: null,
    finish_reason: null,
    ...extra,
  });
  const continuous = wants.continuous_usage_stats === true && !silent_usage;
  const thought = options.reasoning;
  return {
    kind: 'stream',
    tokens_in,
    max_tokens: Number(body['max_tokens'] ?? body['max_completion_tokens'] ?? 16),
    seed: Number(body['seed'] ?? 0),
    stops: (body['stop'] ?? []) as string[],
    first: chat
      ? [
          frame(
            [{ index: 0, delta: { role: 'assistant', content: '' }, finish_reason: null }],
            continuous ? 0 : undefined,
          ),
          ...(thought === undefined
            ? []
            : [frame([{ index: 0, delta: { reasoning_content: thought }, finish_reason: null }])]),
        ]
      : [],
    token(text, n, end) {
      if (end === undefined) return [frame([choice(text)], continuous ? n : undefined)];
      const finish_reason = end.reason === 'limit' ? 'length' : 'stop';
      const last = choice(text, {
        finish_reason,
        ...(tells_stop ? { stop_reason: end.stop ?? null } : {}),
      });
      const tells = wants.include_usage === true && !silent_usage;
      if (tells && usage_with_last) return [frame([last], n)];
      return [frame([last], continuous ? n : undefined), ...(tells ? [frame([], n)] : [])];
    },
    error,
    done: true,
    ...(options.leaks_stops ? { leaks_stops: true } : {}),
  };
}

function usageOf(prompt_tokens: number, completion_tokens: number): object {
  return {
    prompt_tokens,
    completion_tokens,
    total_tokens: prompt_tokens + completion_tokens,
    prompt_tokens_details: null,
  };
}
