import type { LlamaEmbeddingContext, LlamaModel, LlamaRankingContext } from 'node-llama-cpp';
import { TaskchartError } from '../../errors.ts';
import type { EmbedCall, EngineOutcome, RerankCall, Usage } from '../engine.ts';
import { aborted, emptyInput, inputOverflow, noUsage } from '../outcome.ts';
import { ranked, unit } from '../vectors.ts';
import { GrowingContext } from './growing-context.ts';

/** GGUF's numbers for what becomes of the tokens' vectors; these two read the last token's only. */
const NO_POOLING = 0;
const LAST_TOKEN = 3;

/** A batch for models that read an input bit by bit, in tokens. */
const BATCH = 512;

/** How a call tells how much it has read. */
type Started = (tokensIn: number) => void;

/** Embedding and ranking with a model in memory, on contexts of their own. Lives in the child. */
export class EmbeddedVectors {
  readonly #model: LlamaModel;
  readonly #ctxMax: number;
  readonly #embedding: GrowingContext<LlamaEmbeddingContext>;
  readonly #ranking: GrowingContext<LlamaRankingContext>;

  constructor(model: LlamaModel, ctxMax: number, threads: number) {
    this.#model = model;
    this.#ctxMax = ctxMax;
    const pooling = metadataOf(model).pooling_type ?? NO_POOLING;
    const whole = pooling !== NO_POOLING && pooling !== LAST_TOKEN;
    // What is pooled over all tokens has to be in one batch.
    this.#embedding = new GrowingContext((contextSize) =>
      model.createEmbeddingContext({ contextSize, batchSize: whole ? contextSize : BATCH, threads }),
    );
    this.#ranking = new GrowingContext((contextSize) =>
      model.createRankingContext({ contextSize, batchSize: contextSize, threads }),
    );
  }

  /** @throws TaskchartError INVALID_PARAMS for an input that is empty or too long, before any vector. */
  async embed(
    call: EmbedCall,
    started: Started,
    vector: (i: number, vector: number[]) => void,
    signal: AbortSignal,
  ): Promise<EngineOutcome> {
    const inputs = call.inputs.map((text) => this.#model.tokenize(text));
    const empty = inputs.findIndex((tokens) => tokens.length === 0);
    if (empty >= 0) throw new TaskchartError(emptyInput(empty));
    const lengths =
      inputs.length === 0
        ? []
        : await this.#embedding.use(1, (context) =>
            inputs.map((tokens) => context.calculateInputLength(tokens)),
          );
    const usage = this.#read(lengths, started);
    for (const [i, tokens] of inputs.entries()) {
      if (signal.aborted) return aborted(usage);
      const found = await this.#embedding.use(room(lengths[i]), (context) =>
        signal.aborted ? undefined : context.getEmbeddingFor(tokens),
      );
      if (found === undefined || signal.aborted) return aborted(usage);
      vector(i, unit(found.vector));
    }
    return { kind: 'finished', reason: 'eos', usage };
  }

  /** @throws TaskchartError INVALID_PARAMS for a document that is too long together with the query. */
  async rerank(
    call: RerankCall,
    started: Started,
    score: (index: number, score: number) => void,
    signal: AbortSignal,
  ): Promise<EngineOutcome> {
    const { query, documents } = call;
    const lengths =
      documents.length === 0
        ? []
        : await this.#ranking.use(1, (context) =>
            documents.map((document) => context.calculateInputLength(query, document)),
          );
    const usage = this.#read(lengths, started);
    const scores: number[] = [];
    for (const [i, document] of documents.entries()) {
      if (signal.aborted) return aborted(usage);
      const found = await this.#ranking.use(room(lengths[i]), (context) =>
        signal.aborted ? undefined : context.rank(query, document),
      );
      if (found === undefined || signal.aborted) return aborted(usage);
      scores.push(found);
    }
    for (const best of ranked(scores)) score(best.index, best.score);
    return { kind: 'finished', reason: 'eos', usage };
  }

  async dispose(): Promise<void> {
    await Promise.all([this.#embedding.dispose(), this.#ranking.dispose()]);
  }

  #read(lengths: readonly number[], started: Started): Usage {
    const long = lengths.findIndex((tokens) => tokens > this.#ctxMax);
    if (long >= 0) throw new TaskchartError(inputOverflow(long, lengths[long] as number, this.#ctxMax));
    const tokens_in = lengths.reduce((total, each) => total + each, 0);
    started(tokens_in);
    return { ...noUsage(), tokens_in };
  }
}

/** What the model can be asked for, by its file. */
export function workloadsOf(model: LlamaModel): ('completion' | 'embedding' | 'rerank')[] {
  const { hasDecoder, hasEncoder, supportsRanking } = model.fileInsights;
  // A model whose tokens see those behind them cannot write one after another.
  const writes = hasDecoder && metadataOf(model).attention?.causal !== false;
  // What ranks gives a score where the others give a vector.
  const embeds = !supportsRanking && !(hasEncoder && hasDecoder);
  return [
    ...(writes ? (['completion'] as const) : []),
    ...(embeds ? (['embedding'] as const) : []),
    ...(supportsRanking ? (['rerank'] as const) : []),
  ];
}

/** The library wants a context one larger than what goes in. */
function room(tokens = 0): number {
  return tokens + 1;
}

function metadataOf(model: LlamaModel): { pooling_type?: number; attention?: { causal?: boolean } } {
  return model.fileInfo.architectureMetadata as ReturnType<typeof metadataOf>;
}
