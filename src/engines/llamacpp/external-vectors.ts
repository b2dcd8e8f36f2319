import { type Failure, TaskchartError, failure } from '../../errors.ts';
import type { EmbedCall, EngineOutcome, RerankCall, Usage } from '../engine.ts';
import { aborted, emptyInput, givenUp, inputOverflow, noUsage, readable } from '../outcome.ts';
import { ranked, unit } from '../vectors.ts';
import { type Upstream, type UpstreamAnswer, answered, unreachable } from './upstream.ts';

/** What became of a call. `broken`: the connection ended it, and the engine may be gone. */
export interface VectorsResult {
  outcome: EngineOutcome;
  broken: boolean;
}

/** One call on its way through several requests: a request with many inputs would take many slots of the server. */
class Passage {
  readonly usage: Usage = noUsage();
  readonly #upstream: Upstream;
  readonly #signal: AbortSignal;
  readonly #headers: Record<string, string>;
  broken = false;

  constructor(upstream: Upstream, correlation_id: string | undefined, signal: AbortSignal) {
    this.#upstream = upstream;
    this.#signal = signal;
    this.#headers = correlation_id === undefined ? {} : { 'x-correlation-id': correlation_id };
  }

  get aborted(): boolean {
    return this.#signal.aborted;
  }

  /** @throws TaskchartError for anything but a success; `i` is the input that an INVALID_PARAMS then names. */
  async ask(path: string, body: object, i: number): Promise<unknown> {
    const answer = await this.#upstream.work(path, body, this.#signal, this.#headers);
    if (answer.kind === 'unreachable') {
      this.broken = true;
      throw unreachable(answer.error, this.usage.tokens_in > 0);
    }
    const refusal = tooLong(answer);
    if (refusal !== undefined) throw new TaskchartError(named(refusal, i));
    try {
      return answered(answer);
    } catch (error) {
      throw error instanceof TaskchartError && error.code === 'INVALID_PARAMS'
        ? new TaskchartError(named(error.failure, i))
        : error;
    }
  }

  async through(work: () => Promise<void>): Promise<VectorsResult> {
    try {
      await work();
      if (this.aborted) return { outcome: aborted(this.usage), broken: false };
      return { outcome: { kind: 'finished', reason: 'eos', usage: this.usage }, broken: false };
    } catch (error) {
      if (this.aborted) return { outcome: aborted(this.usage), broken: false };
      return { outcome: givenUp(readable(error), this.usage), broken: this.broken };
    }
  }
}

/** Embeds over `/embedding`, input by input. What the caller wrote is never read as special tokens. */
export function embedOver(
  upstream: Upstream,
  call: EmbedCall,
  ctxMax: number,
  vector: (i: number, vector: readonly number[]) => void,
  signal: AbortSignal,
): Promise<VectorsResult> {
  const passage = new Passage(upstream, call.correlation_id, signal);
  return passage.through(async () => {
    const inputs: number[][] = [];
    for (const [i, content] of call.inputs.entries()) {
      if (content === '') throw new TaskchartError(emptyInput(i));
      const body = { content, add_special: true, parse_special: false };
      const { tokens } = (await passage.ask('/tokenize', body, i)) as { tokens: number[] };
      if (tokens.length === 0) throw new TaskchartError(emptyInput(i));
      if (tokens.length > ctxMax) throw new TaskchartError(inputOverflow(i, tokens.length, ctxMax));
      inputs.push(tokens);
    }
    for (const [i, content] of inputs.entries()) {
      const answer = await passage.ask('/embedding', { content }, i);
      if (passage.aborted) return;
      passage.usage.tokens_in += content.length;
      vector(i, unit(vectorOf(answer)));
    }
  });
}

/** Ranks over `/rerank`, document by document, and tells the order once all are scored. */
export function rerankOver(
  upstream: Upstream,
  call: RerankCall,
  score: (index: number, score: number) => void,
  signal: AbortSignal,
): Promise<VectorsResult> {
  const passage = new Passage(upstream, call.correlation_id, signal);
  return passage.through(async () => {
    const scores: number[] = [];
    for (const [i, document] of call.documents.entries()) {
      const answer = await passage.ask('/rerank', { query: call.query, documents: [document] }, i);
      const { results, usage } = answer as {
        results: { relevance_score: number }[];
        usage?: { prompt_tokens?: number };
      };
      scores.push(finite(results[0]?.relevance_score));
      passage.usage.tokens_in += usage?.prompt_tokens ?? 0;
    }
    if (passage.aborted) return;
    for (const best of ranked(scores)) score(best.index, best.score);
  });
}

/** One row where the server pools, else one for each token, of which the last has seen the whole input. */
function vectorOf(answer: unknown): number[] {
  const [{ embedding }] = answer as [{ embedding: number[] | number[][] }];
  const row = Array.isArray(embedding[0]) ? embedding.at(-1) : embedding;
  return (row as number[]).map((component) => finite(component));
}

/** @throws Error for what is no number: JSON has no other way to say that a computation failed than `null`. */
function finite(value: unknown): number {
  if (typeof value !== 'number') throw new Error('not a number');
  return value;
}

/** The server calls this an error of its own, but it is the input's: it must fit one physical batch. */
function tooLong(answer: UpstreamAnswer): Failure | undefined {
  const body = answer.kind === 'answer' ? (answer.body as { error?: { message?: unknown } } | null) : null;
  const message = String(body?.error?.message ?? '');
  const found = /input \((\d+) tokens\) is (?:too large|larger).*?(\d+)\D*$/su.exec(message);
  if (found === null) return undefined;
  return failure(
    'INVALID_PARAMS',
    `The input is ${found[1]} tokens and the engine takes ${found[2]} at once.`,
  );
}

function named(cause: Failure, i: number): Failure {
  return { ...cause, message: `\`inputs[${i}]\`: ${cause.message}` };
}
