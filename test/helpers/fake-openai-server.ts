/** A server that speaks as OpenAI does, without a model: the wire as servers differ in it, and faults on demand. */
import {
  type Asked,
  type FakeEngine,
  type FakeEngineOptions,
  type Reply,
  ok,
  runFake,
  startFakeEngine,
} from './fake-engine.ts';
import { countTokens, rendered, vectorOf } from './fake-engine-texts.ts';
import { openAiStream } from './fake-openai-frames.ts';

export interface FakeOpenAiOptions extends FakeEngineOptions {
  /** @default 'story' */
  model?: string;
  /** Where its calls are. @default '/v1' */
  base?: string;
  /** @default true */
  lists_models?: boolean;
  /** Whether the list tells the context. @default true */
  lists_ctx?: boolean;
  /** @default true */
  completions?: boolean;
  /** @default true */
  chat?: boolean;
  /** @default false */
  embeddings?: boolean;
  /** What `stream_options` are to it. @default 'taken' */
  usage?: 'taken' | 'refused' | 'ignored' | 'with_last';
  /** The only name under which it takes the bound of a conversation. @default 'max_tokens' */
  max_tokens_name?: 'max_tokens' | 'max_completion_tokens';
  /** Whether `response_format` is enforced; `blanks` is a model that then writes little else. @default true */
  schemas?: boolean | 'blanks';
  /** What the model thinks before it answers in a conversation. */
  reasoning?: string;
}

type Message = { role: string; content: string };

export function startFakeOpenAiServer(options: FakeOpenAiOptions = {}): Promise<FakeEngine> {
  const { model = 'story', base = '/v1', ctx = 512 } = options;
  return startFakeEngine(
    {
      loading_status: 503,
      needsKey: () => true,
      unauthorized: {
        status: 401,
        body: { error: { message: 'Incorrect API key provided: sk-wro***.', code: 'invalid_api_key' } },
      },
      reply(asked) {
        const { path, body } = asked;
        if (path === `${base}/models` && options.lists_models !== false) {
          const entry = {
            id: model,
            object: 'model',
            owned_by: 'fake',
            ...(options.lists_ctx === false ? {} : { context_length: ctx }),
          };
          return ok({ object: 'list', data: [entry] });
        }
        if (path === `${base}/completions` && options.completions !== false)
          return write(asked, options, countTokens(String(body['prompt'])));
        if (path === `${base}/chat/completions` && options.chat !== false)
          return write(asked, options, countTokens(rendered(body['messages'] as Message[])));
        if (path === `${base}/embeddings` && options.embeddings === true) {
          const input = [body['input']].flat() as string[];
          const longest = Math.max(...input.map(countTokens));
          if (longest > ctx) return tooLong(ctx, longest);
          const data = input.map((text, index) => ({
            object: 'embedding',
            index,
            embedding: vectorOf(text),
          }));
          const prompt_tokens = input.reduce((sum, text) => sum + countTokens(text), 0);
          return { kind: 'vectors', body: { object: 'list', data, usage: { prompt_tokens } } };
        }
        return refuse(404, 'not_found', `Unknown request URL: ${path}`);
      },
    },
    options,
  );
}

function write(asked: Asked, options: FakeOpenAiOptions, tokens_in: number): Reply {
  const { body, path } = asked;
  const { ctx = 512, usage = 'taken', max_tokens_name = 'max_tokens', model = 'story', reasoning } = options;
  const chat = path.endsWith('/chat/completions');
  if (body['model'] !== model) return refuse(404, 'model_not_found', 'The model does not exist');
  if (body['stream_options'] !== undefined && usage === 'refused')
    return refuse(400, 'unknown_parameter', 'Unrecognized request argument supplied: stream_options');
  if (chat && body['max_tokens'] !== undefined && max_tokens_name !== 'max_tokens')
    return refuse(
      400,
      'unsupported_parameter',
      "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    );
  if (tokens_in >= ctx) return tooLong(ctx, tokens_in);
  if (body['stream'] !== true) {
    const wanted = body['response_format'] !== undefined && options.schemas !== false;
    const word = !wanted ? 'Hello!' : options.schemas === 'blanks' ? '{\n\n   ' : '{"word": "xyzzy"}';
    return ok({ choices: [{ index: 0, text: ' w', message: { role: 'assistant', content: word } }] });
  }
  return openAiStream(asked, {
    tokens_in,
    error: { error: { message: 'The server had an error', type: 'server_error', code: null } },
    silent_usage: usage === 'ignored',
    usage_with_last: usage === 'with_last',
    ...(reasoning === undefined ? {} : { reasoning }),
  });
}

function tooLong(ctx: number, tokens: number): Reply {
  return refuse(
    400,
    'context_length_exceeded',
    `This model's maximum context length is ${ctx} tokens. However, your messages resulted in ${tokens} tokens.`,
  );
}

function refuse(status: number, code: string, message: string): Reply {
  return {
    kind: 'answer',
    status,
    body: { error: { message, type: 'invalid_request_error', param: null, code } },
  };
}

if (import.meta.main) await runFake(startFakeOpenAiServer);
