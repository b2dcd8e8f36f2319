/** What the fake llama-server answers to `/embedding` and `/rerank`. */

export interface FakeVectorOptions {
  /** `--embeddings`, with a vector for each input or, without pooling, for each token. @default off */
  embeddings?: 'pooled' | 'tokens';
  /** `--reranking`, which answers to `/embedding` too. @default false */
  reranking?: boolean;
  /** The physical batch, which an input has to fit, in tokens. @default 512 */
  batch?: number;
  /** Tokens per slot. @default 512 */
  ctx?: number;
  /** What goes wrong with that vector or score, counted over all clients from 0. */
  vector_fault?: { kind: 'error' | 'reset' | 'garbage' | 'null'; at: number };
}

interface Answer {
  status: number;
  body: unknown;
}

const DIMENSIONS = 8;

export function answerVectors(
  path: string,
  body: Record<string, unknown>,
  options: FakeVectorOptions,
): Answer {
  return path === '/embedding' ? embedding(body, options) : ranking(body, options);
}

/** A number for each word, by its letters. */
export function tokensOf(text: string): number[] {
  const words = text.split(/\s+/u).filter((word) => word !== '');
  return words.map((word) => [...Buffer.from(word)].reduce((hash, byte) => (hash * 31 + byte) % 9973, 7));
}

function embedding(body: Record<string, unknown>, options: FakeVectorOptions): Answer {
  if (options.embeddings === undefined && options.reranking !== true) {
    return error(
      501,
      'This server does not support embeddings. Start it with `--embeddings`',
      'not_supported_error',
    );
  }
  const content = body['content'];
  if (content === undefined)
    return error(400, '"input" or "content" must be provided', 'invalid_request_error');
  const tokens = Array.isArray(content) ? (content as number[]) : [1, ...tokensOf(String(content))];
  if (tokens.length === 0) return error(500, '"prompt" must not be empty', 'server_error');
  const refusal = tooLarge(tokens.length, options);
  if (refusal !== undefined) return refusal;
  const rows = tokens.map((_, end) => vectorOf(tokens.slice(0, end + 1)));
  const last = rows.at(-1) ?? [];
  const length = Math.hypot(...last);
  const pooled = [last.map((component) => component / length)];
  return { status: 200, body: [{ index: 0, embedding: options.embeddings === 'tokens' ? rows : pooled }] };
}

function ranking(body: Record<string, unknown>, options: FakeVectorOptions): Answer {
  if (options.reranking !== true) {
    return error(
      501,
      'This server does not support reranking. Start it with `--reranking`',
      'not_supported_error',
    );
  }
  const { query, documents } = body as { query?: string; documents?: string[] };
  if (query === undefined) return error(400, '"query" must be provided', 'invalid_request_error');
  if (documents === undefined || documents.length === 0)
    return error(400, '"documents" must be a non-empty string array', 'invalid_request_error');
  let prompt_tokens = 0;
  const results: { index: number; relevance_score: number }[] = [];
  for (const [index, document] of documents.entries()) {
    const [wanted, there] = [tokensOf(query), tokensOf(document)];
    const refusal = tooLarge(wanted.length + there.length + 4, options);
    if (refusal !== undefined) return refusal;
    prompt_tokens += wanted.length + there.length + 4;
    results.push({ index, relevance_score: wanted.filter((token) => there.includes(token)).length - 1.5 });
  }
  results.sort((one, other) => other.relevance_score - one.relevance_score);
  const usage = { prompt_tokens, total_tokens: prompt_tokens };
  return { status: 200, body: { model: 'fake.gguf', object: 'list', usage, results } };
}

function tooLarge(tokens: number, { batch = 512, ctx = 512 }: FakeVectorOptions): Answer | undefined {
  if (tokens > batch) {
    const advice = `increase the physical batch size (current batch size: ${batch})`;
    return error(500, `input (${tokens} tokens) is too large to process. ${advice}`, 'server_error');
  }
  if (tokens <= ctx) return undefined;
  const message = `input (${tokens} tokens) is larger than the max context size (${ctx} tokens). skipping`;
  return error(500, message, 'server_error');
}

function vectorOf(tokens: readonly number[]): number[] {
  return Array.from({ length: DIMENSIONS }, (_, dimension) =>
    tokens.reduce((total, token, i) => total + (((token * (dimension + 3) + i) % 17) - 8), 0.5),
  );
}

function error(code: number, message: string, type: string): Answer {
  return { status: code, body: { error: { code, message, type } } };
}
