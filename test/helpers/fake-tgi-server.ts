/** A text-generation-inference server without a model: its real wire, and faults on demand. */
import {
  type Asked,
  type EndReason,
  type FakeEngine,
  type FakeEngineOptions,
  type Reply,
  ok,
  runFake,
  startFakeEngine,
} from './fake-engine.ts';
import { countTokens, rendered } from './fake-engine-texts.ts';
import { openAiStream } from './fake-openai-frames.ts';

export interface FakeTgiOptions extends FakeEngineOptions {
  /** `--max-input-tokens`. @default one less than the context */
  max_input?: number;
  /** @default true */
  chat_template?: boolean;
  /** The first frame of each run is this instead: TGI has no other status than 200. */
  first_error?: { error: string; error_type: string };
}

type Message = { role: string; content: string };

interface Parameters {
  max_new_tokens?: number;
  do_sample?: boolean;
  temperature?: number;
  top_k?: number;
  top_p?: number;
  details?: boolean;
  seed?: number;
  stop?: string[];
}

const REASONS: Record<EndReason, string> = { eos: 'eos_token', limit: 'length', stop: 'stop_sequence' };

export function startFakeTgiServer(options: FakeTgiOptions = {}): Promise<FakeEngine> {
  const { ctx = 512, max_input = ctx - 1 } = options;
  return startFakeEngine(
    {
      loading_status: 503,
      needsKey: (path) => /^\/(generate|v1|tokenize|chat_tokenize)/u.test(path),
      unauthorized: { status: 401 },
      reply(asked) {
        const { path, body } = asked;
        const messages = body['messages'] as Message[] | undefined;
        if (messages !== undefined && options.chat_template === false)
          return {
            kind: 'answer',
            status: 422,
            body: { error: 'Template error: not found', error_type: 'template_error' },
          };
        switch (path) {
          case '/health':
            return { kind: 'answer', status: 200 };
          case '/info':
            return ok({
              model_id: 'org/story',
              model_sha: 'abc',
              max_concurrent_requests: 128,
              max_stop_sequences: 4,
              max_input_tokens: max_input,
              max_total_tokens: ctx,
              router: 'text-generation-router',
              version: '3.3.4',
            });
          case '/tokenize':
            return ok(simpleTokens(String(body['inputs'])));
          case '/chat_tokenize': {
            const templated_text = rendered(messages ?? []);
            return ok({ tokenize_response: simpleTokens(templated_text), templated_text });
          }
          case '/generate_stream':
            return generate(asked, ctx, max_input, options);
          case '/v1/chat/completions': {
            const tokens_in = countTokens(rendered(messages ?? []));
            const error = { error: { message: 'CUDA error', http_status_code: 424 } };
            return openAiStream(asked, { tokens_in, error, leaks_stops: true });
          }
          default:
            return { kind: 'answer', status: 404 };
        }
      },
    },
    options,
  );
}

function generate({ body }: Asked, ctx: number, max_input: number, { first_error }: FakeTgiOptions): Reply {
  const inputs = String(body['inputs']);
  const parameters = (body['parameters'] ?? { do_sample: true }) as Parameters;
  const tokens_in = countTokens(inputs);
  const max_tokens = parameters.max_new_tokens ?? 100;
  const invalid = first_error ?? validation(parameters, tokens_in, max_tokens, ctx, max_input);
  let said = '';
  return {
    kind: 'stream',
    tokens_in,
    max_tokens: invalid ? 1 : max_tokens,
    seed: parameters.seed ?? 0,
    stops: parameters.stop ?? [],
    leaks_stops: true,
    token(text, n, end, fresh) {
      if (invalid) return [invalid];
      said += text;
      const eos = end?.reason === 'eos';
      const frames: object[] = [];
      // One frame is one token, whatever comes together.
      for (let i = 1; i < fresh; i++) frames.push(frame(n - fresh + i, '', false));
      frames.push({
        ...frame(n, eos ? '</s>' : text, eos),
        ...(end && {
          generated_text: said,
          details: parameters.details
            ? {
                finish_reason: REASONS[end.reason],
                generated_tokens: n,
                seed: parameters.seed ?? null,
                input_length: tokens_in,
              }
            : null,
        }),
      });
      return frames;
    },
    error: { error: 'Request failed during generation: Server error: CUDA error', error_type: 'generation' },
    done: false,
  };
}

function frame(index: number, text: string, special: boolean): object {
  return { index, token: { id: index, text, logprob: -0.1, special }, generated_text: null, details: null };
}

function validation(
  { temperature, top_k, top_p, stop = [] }: Parameters,
  tokens_in: number,
  max_new: number,
  ctx: number,
  max_input: number,
): object | undefined {
  const say = (error: string) => ({ error: `Input validation error: ${error}`, error_type: 'validation' });
  if (temperature !== undefined && temperature <= 0) return say('`temperature` must be strictly positive');
  if (top_p !== undefined && (top_p <= 0 || top_p >= 1)) return say('`top_p` must be > 0.0 and < 1.0');
  if (top_k !== undefined && top_k <= 0) return say('`top_k` must be strictly positive');
  if (stop.length > 4) return say('`stop` supports up to 4 stop sequences');
  if (tokens_in > max_input)
    return say(`\`inputs\` must have less than ${max_input} tokens. Given: ${tokens_in}`);
  if (tokens_in + max_new > ctx)
    return say(
      `\`inputs\` tokens + \`max_new_tokens\` must be <= ${ctx}. Given: ${tokens_in} \`inputs\` tokens and ${max_new} \`max_new_tokens\``,
    );
  return undefined;
}

function simpleTokens(text: string): object[] {
  return Array.from({ length: countTokens(text) }, (_, id) => ({ id, text: '', start: 0, stop: 0 }));
}

if (import.meta.main) await runFake(startFakeTgiServer);
