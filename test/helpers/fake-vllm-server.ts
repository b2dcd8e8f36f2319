/** A vLLM server without a model: its real wire, and faults on demand. */
import {
  type Asked,
  type FakeEngine,
  type FakeEngineOptions,
  type Reply,
  ok,
  runFake,
  startFakeEngine,
} from './fake-engine.ts';
import { countTokens, rendered, scoreOf, vectorOf } from './fake-engine-texts.ts';
import { openAiStream } from './fake-openai-frames.ts';

export interface FakeVllmOptions extends FakeEngineOptions {
  /** @default 'story' */
  model?: string;
  /** @default '0.11.2' */
  version?: string;
  /** `--runner`, and for a pooling one what the model is made for. @default 'generate' */
  task?: 'generate' | 'embed' | 'score';
  /** @default true */
  chat_template?: boolean;
  /** Whether the list tells `max_model_len`; older versions do not. @default true */
  lists_ctx?: boolean;
}

type Message = { role: string; content: string };

export function startFakeVllmServer(options: FakeVllmOptions = {}): Promise<FakeEngine> {
  const { model = 'story', version = '0.11.2', task = 'generate', ctx = 512, lists_ctx = true } = options;
  const tooLong = (tokens: number, max_tokens = 0): Reply =>
    refuse(
      400,
      'BadRequestError',
      `This model's maximum context length is ${ctx} tokens. However, you requested ${tokens + max_tokens} tokens (${tokens} in the messages, ${max_tokens} in the completion).`,
      'input_tokens',
    );
  const generate = (asked: Asked, tokens_in: number): Reply => {
    const max_tokens = Number(asked.body['max_tokens'] ?? 16);
    if (tokens_in + max_tokens > ctx) return tooLong(tokens_in, max_tokens);
    if (asked.body['stream'] !== true)
      return ok({ choices: [{ index: 0, text: ' w', finish_reason: 'length' }] });
    const error = {
      error: { message: 'EngineCore died', type: 'InternalServerError', param: null, code: 500 },
    };
    return openAiStream(asked, { tokens_in, error, tells_stop: true });
  };
  const embed = ({ body }: Asked): Reply => {
    const input = [body['input']].flat() as string[];
    const longest = Math.max(...input.map(countTokens));
    if (longest > ctx) return tooLong(longest);
    const prompt_tokens = input.reduce((sum, text) => sum + countTokens(text), 0);
    const data = input.map((text, index) => ({ object: 'embedding', index, embedding: vectorOf(text) }));
    return {
      kind: 'vectors',
      body: { object: 'list', model, data, usage: { prompt_tokens, total_tokens: prompt_tokens } },
    };
  };
  const rank = ({ body }: Asked): Reply => {
    const { query, documents } = body as { query: string; documents: string[] };
    const tokens = documents.map((text) => countTokens(query) + countTokens(text));
    if (Math.max(...tokens) > ctx) return tooLong(Math.max(...tokens));
    const results = documents.map((text, index) => ({
      index,
      document: { text },
      relevance_score: scoreOf(query, text),
    }));
    results.sort((one, other) => other.relevance_score - one.relevance_score);
    const total_tokens = tokens.reduce((sum, each) => sum + each, 0);
    return { kind: 'vectors', body: { id: 'rerank-1', model, usage: { total_tokens }, results } };
  };
  return startFakeEngine(
    {
      loading_status: 503,
      // The rest is open, whatever key there is.
      needsKey: (path) => path.startsWith('/v1'),
      unauthorized: { status: 401, body: { error: 'Unauthorized' } },
      reply(asked) {
        const { path, body } = asked;
        if (path === '/health') return { kind: 'answer', status: 200 };
        if (path === '/version') return ok({ version });
        if (path === '/v1/models') {
          const entry = {
            id: model,
            object: 'model',
            owned_by: 'vllm',
            ...(lists_ctx ? { max_model_len: ctx } : {}),
          };
          return ok({ object: 'list', data: [entry] });
        }
        if (body['model'] !== model)
          return refuse(404, 'NotFoundError', `The model \`${String(body['model'])}\` does not exist.`);
        const messages = body['messages'] as Message[] | undefined;
        if (messages !== undefined && options.chat_template === false)
          return refuse(
            400,
            'BadRequestError',
            'As of transformers v4.44, default chat template is no longer allowed',
          );
        const text = messages
          ? rendered(messages, body['continue_final_message'] === true)
          : String(body['prompt']);
        switch (path) {
          case '/tokenize': {
            const count = countTokens(text);
            return ok({ count, max_model_len: ctx, tokens: Array.from({ length: count }, (_, i) => i) });
          }
          case '/v1/completions':
          case '/v1/chat/completions':
            if (task !== 'generate') break;
            return generate(asked, countTokens(text));
          case '/v1/embeddings':
            if (task !== 'embed') break;
            return embed(asked);
          case '/rerank':
            if (task !== 'score') break;
            return rank(asked);
        }
        return { kind: 'answer', status: 404, body: { detail: 'Not Found' } };
      },
    },
    options,
  );
}

function refuse(code: number, type: string, message: string, param: string | null = null): Reply {
  return { kind: 'answer', status: code, body: { error: { message, type, param, code } } };
}

if (import.meta.main) await runFake(startFakeVllmServer);
