import { TaskchartError } from '../errors.ts';
import type { EmbedCall, RerankCall, Usage } from './engine.ts';
import type { RunResult } from './event-stream.ts';
import { type Upstream, refused, unreachable } from './llamacpp/upstream.ts';
import { aborted, emptyInput, givenUp, noUsage, readable } from './outcome.ts';
import { refusalOf } from './remote-failure.ts';
import { ranked, unit } from './vectors.ts';

/** Inputs of one request: enough to keep a batching engine busy, few enough for an abort to come soon. */
const BATCH = 32;

interface Request {
  upstream: Upstream;
  path: string;
  correlation_id: string | undefined;
  signal: AbortSignal;
}

/** What a server answers to a batch: a result for each input, in the order of the inputs. */
interface Batch<Result> {
  results: Result[];
  tokens_in: number;
}

/**
 * Embeds over an endpoint like `/v1/embeddings`.
 * @param check looks at each input before any is sent @throws TaskchartError that names the input
 */
export function embedBatches(
  request: Request & { model: string; check(text: string, i: number): Promise<void> },
  call: EmbedCall,
  vector: (i: number, vector: readonly number[]) => void,
): Promise<RunResult> {
  return inBatches(request, call.inputs, {
    async check(text, i) {
      if (text === '') throw new TaskchartError(emptyInput(i));
      await request.check(text, i);
    },
    body: (input) => ({ model: request.model, input, encoding_format: 'float' }),
    read: (answer, size) => readEmbeddings(answer, size),
    deliver(first, batch) {
      for (const [i, each] of batch.entries()) if (!request.signal.aborted) vector(first + i, unit(each));
    },
    end: () => undefined,
  });
}

/** Ranks over an endpoint like `/rerank`, and tells the order once all documents are scored. */
export function rerankBatches(
  request: Request & { model: string; check(text: string, i: number): Promise<void> },
  call: RerankCall,
  score: (index: number, score: number) => void,
): Promise<RunResult> {
  const scores: number[] = [];
  return inBatches(request, call.documents, {
    check: (text, i) => request.check(text, i),
    body: (documents) => ({ model: request.model, query: call.query, documents }),
    read: (answer, size) => readScores(answer, size),
    deliver: (_first, batch) => void scores.push(...batch),
    end() {
      for (const best of ranked(scores)) if (!request.signal.aborted) score(best.index, best.score);
    },
  });
}

async function inBatches<Result>(
  request: Request,
  inputs: readonly string[],
  steps: {
    check(text: string, i: number): Promise<void>;
    body(inputs: readonly string[]): object;
    read(answer: unknown, size: number): Batch<Result>;
    deliver(first: number, results: Result[]): void;
    end(): void;
  },
): Promise<RunResult> {
  const { signal } = request;
  const usage = noUsage();
  const asking = { ...request, broken: false };
  try {
    for (const [i, text] of inputs.entries()) await steps.check(text, i);
    for (let first = 0; first < inputs.length && !signal.aborted; first += BATCH) {
      const batch = inputs.slice(first, first + BATCH);
      const answer = await ask(asking, steps.body, batch, first, usage);
      if (signal.aborted) break;
      const { results, tokens_in } = steps.read(answer, batch.length);
      usage.tokens_in += tokens_in;
      steps.deliver(first, results);
    }
    if (signal.aborted) return { outcome: aborted(usage), broken: false };
    steps.end();
    if (signal.aborted) return { outcome: aborted(usage), broken: false };
    return { outcome: { kind: 'finished', reason: 'eos', usage }, broken: false };
  } catch (error) {
    if (signal.aborted) return { outcome: aborted(usage), broken: false };
    return { outcome: givenUp(readable(error), usage), broken: asking.broken };
  }
}

async function ask(
  request: Request & { broken: boolean },
  body: (inputs: readonly string[]) => object,
  batch: readonly string[],
  first: number,
  usage: Usage,
): Promise<unknown> {
  const { upstream, path, correlation_id, signal } = request;
  const headers: Record<string, string> =
    correlation_id === undefined ? {} : { 'x-correlation-id': correlation_id };
  const answer = await upstream.work(path, body(batch), signal, headers);
  if (answer.kind === 'unreachable') {
    request.broken = true;
    throw unreachable(answer.error, usage.tokens_in > 0);
  }
  if (answer.status === 200) return answer.body;
  const cause = refusalOf(answer.status, answer.body, answer.headers['retry-after']);
  if (cause.code !== 'INVALID_PARAMS') throw refused(answer.status, cause);
  // One of them is to blame, and only the server knows which.
  if (batch.length > 1) {
    for (const [i, input] of batch.entries()) await ask(request, body, [input], first + i, usage);
  }
  const message = batch.length > 1 ? cause.message : `\`inputs[${first}]\`: ${cause.message}`;
  throw new TaskchartError({ ...cause, message });
}

function readEmbeddings(answer: unknown, size: number): Batch<number[]> {
  const { data, usage } = answer as {
    data: { index?: number; embedding: number[] }[];
    usage?: { prompt_tokens?: number };
  };
  const results: number[][] = [];
  for (const [i, { index, embedding }] of data.entries()) {
    results[index ?? i] = embedding.map((component) => finite(component));
  }
  return { results: whole(results, size), tokens_in: usage?.prompt_tokens ?? 0 };
}

function readScores(answer: unknown, size: number): Batch<number> {
  const { results: told, usage } = answer as {
    results: { index: number; relevance_score: number }[];
    usage?: { prompt_tokens?: number; total_tokens?: number };
  };
  const results: number[] = [];
  for (const { index, relevance_score } of told) results[index] = finite(relevance_score);
  return {
    results: whole(results, size),
    tokens_in: usage?.prompt_tokens ?? usage?.total_tokens ?? 0,
  };
}

/** @throws Error where a result is missing */
function whole<Result>(results: Result[], size: number): Result[] {
  if (results.length !== size || Object.keys(results).length !== size) throw new Error('results are missing');
  return results;
}

/** @throws Error for what is no number: JSON has no other way to say that a computation failed than `null`. */
function finite(value: unknown): number {
  if (typeof value !== 'number') throw new Error('not a number');
  return value;
}
