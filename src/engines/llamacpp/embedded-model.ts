import {
  type Llama,
  type LlamaContext,
  type LlamaContextSequence,
  LlamaLogLevel,
  type LlamaModel,
  type SequenceEvaluateOptions,
  type Token,
  getLlama,
  getModuleVersion,
} from 'node-llama-cpp';
import { TaskchartError, failure, toFailure } from '../../errors.ts';
import type {
  EmbedCall,
  EngineCall,
  EngineInput,
  EngineOutcome,
  EngineProperties,
  RerankCall,
} from '../engine.ts';
import { aborted, contextOverflow, failed, noFreeSlot, noUsage, unsupported } from '../outcome.ts';
import { ChatTemplate } from './chat-template.ts';
import { constrain } from './constrain.ts';
import type { EmbeddedModelOptions } from './embedded-protocol.ts';
import { EmbeddedVectors, workloadsOf } from './embedded-vectors.ts';
import { type KvMetadata, kvBytesPerToken } from '../../models/kv-size.ts';
import { checkModelFile, digestOf } from './model-file.ts';
import { PENALTY_WINDOW, engineSeed, resolveSampling } from './sampling.ts';
import { Output, TokenPieces } from './token-text.ts';

/** Where a run reports to, inside the child. */
export interface RunReporter {
  started(tokensIn: number, tokensCached: number): void;
  progress(done: number, total: number): void;
  delta(text: string, tokens: number): void;
}

/** The contexts of a model: one that completes, cut into as many sequences as there are slots, and those beside it. */
interface Contexts {
  completion: LlamaContext | undefined;
  vectors: EmbeddedVectors;
}

/** A model in memory, which works for as many calls at a time as there are slots. Lives in the child. */
export class EmbeddedModel {
  readonly properties: EngineProperties;
  readonly #llama: Llama;
  readonly #model: LlamaModel;
  readonly #contexts: Contexts;
  readonly #sequences: LlamaContextSequence[];
  readonly #reuse: boolean;
  readonly #pieces: TokenPieces;
  readonly #chat: ChatTemplate | undefined;
  #busy = 0;

  private constructor(
    llama: Llama,
    model: LlamaModel,
    contexts: Contexts,
    chat: ChatTemplate | undefined,
    properties: EngineProperties,
  ) {
    const { completion } = contexts;
    this.#llama = llama;
    this.#model = model;
    this.#contexts = contexts;
    this.#reuse = properties.features.kv_reuse;
    this.#pieces = new TokenPieces(model);
    this.#chat = chat;
    this.#sequences =
      completion === undefined
        ? []
        : Array.from({ length: properties.slots_total }, () => completion.getSequence());
    this.properties = properties;
  }

  static async load(
    options: EmbeddedModelOptions,
    onProgress: (fraction: number) => void,
  ): Promise<EmbeddedModel> {
    await checkModelFile(options.model_path);
    const threads = options.threads ?? 1;
    const llama = await getLlama({
      gpu: false,
      build: 'never',
      skipDownload: true,
      maxThreads: threads,
      progressLogs: false,
      logLevel: LlamaLogLevel.error,
    });
    const [model, model_digest] = await Promise.all([
      llama.loadModel({ modelPath: options.model_path, gpuLayers: 0, onLoadProgress: onProgress }),
      options.model_digest ?? digestOf(options.model_path),
    ]);
    const workloads = workloadsOf(model);
    const completes = workloads.includes('completion');
    const ctx = options.ctx ?? model.trainContextSize;
    const completion = completes
      ? await model.createContext({
          contextSize: ctx,
          sequences: options.slots,
          threads,
          failedCreationRemedy: false,
        })
      : undefined;
    const ctx_max = Math.min(ctx, completion?.contextSize ?? model.trainContextSize);
    const chat = completes ? ChatTemplate.of(model) : undefined;
    const kv_bytes_per_token = kvBytesPerToken(model.fileInfo.architectureMetadata as KvMetadata);
    const reuse = options.reuse_prefix ?? false;
    const properties: EngineProperties = {
      engine_version: `llama.cpp-${llama.llamaCppRelease.release}+node-llama-cpp-${await getModuleVersion()}`,
      ctx_max,
      slots_total: options.slots,
      model_id: options.model_id,
      model_digest,
      workloads,
      features: {
        chat: chat === undefined ? 'none' : 'rendered',
        grammar: completes,
        json_schema: completes,
        resume: completes,
        tokenizer: true,
        // Slots decode in one batch, and a batch of another shape rounds in another way.
        deterministic: options.slots === 1 && !reuse,
        deterministic_cold: options.slots === 1,
        kv_reuse: reuse,
      },
      memory_bytes: process.memoryUsage.rss(),
      ...(kv_bytes_per_token === undefined ? {} : { kv_bytes_per_token }),
    };
    const contexts = { completion, vectors: new EmbeddedVectors(model, ctx_max, threads) };
    return new EmbeddedModel(llama, model, contexts, chat, properties);
  }

  embed(
    call: EmbedCall,
    started: (tokensIn: number) => void,
    vector: (i: number, vector: number[]) => void,
    signal: AbortSignal,
  ): Promise<EngineOutcome> {
    return this.#onSlot('embedding', () => this.#contexts.vectors.embed(call, started, vector, signal));
  }

  rerank(
    call: RerankCall,
    started: (tokensIn: number) => void,
    score: (index: number, score: number) => void,
    signal: AbortSignal,
  ): Promise<EngineOutcome> {
    return this.#onSlot('rerank', () => this.#contexts.vectors.rerank(call, started, score, signal));
  }

  run(call: EngineCall, report: RunReporter, signal: AbortSignal): Promise<EngineOutcome> {
    return this.#onSlot('completion', () => this.#complete(call, report, signal));
  }

  async #complete(call: EngineCall, report: RunReporter, signal: AbortSignal): Promise<EngineOutcome> {
    const usage = noUsage();
    let sequence: LlamaContextSequence | undefined;
    try {
      const prompt = this.#tokenize(call.input, call.resume?.text ?? '');
      usage.tokens_in = prompt.length;
      if (prompt.length >= this.properties.ctx_max)
        return failed(contextOverflow(prompt.length, this.properties.ctx_max));
      if (prompt.length === 0) return failed(failure('INVALID_PARAMS', 'The input has no tokens.'));
      const options = await this.#evaluateOptions(call, prompt);
      sequence = this.#take(prompt);
      if (this.#reuse && !call.cold) await sequence.adaptStateToTokens(prompt.slice(0, -1), false);
      else await sequence.clearHistory();
      usage.tokens_cached = sequence.nextTokenIndex;
      report.started(usage.tokens_in, usage.tokens_cached);
      const rest = await this.#prefill(sequence, prompt, report, signal);
      if (signal.aborted) return aborted(usage);

      const limit = Math.min(call.max_tokens, this.properties.ctx_max - prompt.length);
      const output = new Output(
        (text, tokens) => {
          usage.tokens_out += tokens;
          report.delta(text, tokens);
        },
        this.#pieces,
        call.sampling?.stop ?? [],
      );
      let reason: 'eos' | 'limit' | 'stop' = 'limit';
      let decoded = 0;
      for await (const token of sequence.evaluate(rest, options.evaluate)) {
        if (signal.aborted) break;
        decoded++;
        options.seen(token);
        if (this.#model.isEogToken(token)) {
          reason = 'eos';
          break;
        }
        if (output.token(token)) {
          reason = 'stop';
          break;
        }
        if (decoded >= limit) break;
      }
      if (signal.aborted) return aborted(usage);
      output.end();
      return { kind: 'finished', reason, usage };
    } catch (error) {
      return failed(toFailure(error), usage);
    } finally {
      if (sequence !== undefined) this.#sequences.push(sequence);
    }
  }

  /** @throws TaskchartError INVALID_PARAMS where the model cannot take this kind of input. */
  count(input: EngineInput): number {
    return this.#tokenize(input, '').length;
  }

  async dispose(): Promise<void> {
    await this.#contexts.vectors.dispose();
    await this.#contexts.completion?.dispose();
    await this.#model.dispose();
    await this.#llama.dispose();
  }

  #tokenize(input: EngineInput, resumed: string): Token[] {
    const bos = this.#model.tokens.shouldPrependBosToken ? this.#model.tokens.bos : null;
    let tokens: Token[];
    if (input.kind === 'prompt') tokens = this.#model.tokenize(input.text + resumed, true);
    else if (this.#chat === undefined)
      throw new TaskchartError(unsupported('messages', 'the model has no chat template'));
    else tokens = this.#chat.tokenize(input.messages, resumed);
    // A template may write the BOS itself; a prompt is the caller's own.
    if (bos === null || (input.kind === 'chat' && tokens[0] === bos)) return tokens;
    return [bos, ...tokens];
  }

  /** Takes a slot for as long as the work lasts, whatever it is. */
  async #onSlot(
    workload: EngineProperties['workloads'][number],
    work: () => Promise<EngineOutcome>,
  ): Promise<EngineOutcome> {
    if (!this.properties.workloads.includes(workload))
      return failed(unsupported(workload, 'the model is not made for it'));
    if (this.#busy >= this.properties.slots_total) return failed(noFreeSlot(this.properties.slots_total));
    this.#busy++;
    try {
      return await work();
    } catch (error) {
      return failed(toFailure(error));
    } finally {
      this.#busy--;
    }
  }

  /** The free sequence that already holds most of the prompt. There is one for each slot. */
  #take(prompt: readonly Token[]): LlamaContextSequence {
    let best = this.#sequences.length - 1;
    if (this.#reuse) {
      const shared = this.#sequences.map(
        (sequence) => sequence.compareContextTokens([...prompt]).firstDifferentIndex,
      );
      for (const [index, length] of shared.entries()) if (length > (shared[best] ?? 0)) best = index;
    }
    return this.#sequences.splice(best, 1)[0] as LlamaContextSequence;
  }

  /** Decodes all but the last batch of the prompt, so that an abort need not wait for the whole of it. */
  async #prefill(
    sequence: LlamaContextSequence,
    prompt: Token[],
    report: RunReporter,
    signal: AbortSignal,
  ): Promise<Token[]> {
    const batch = this.#contexts.completion?.batchSize ?? prompt.length;
    let done = sequence.nextTokenIndex;
    while (prompt.length - done > batch && !signal.aborted) {
      await sequence.evaluateWithoutGeneratingNewTokens(prompt.slice(done, done + batch));
      done += batch;
      report.progress(done, prompt.length);
    }
    return prompt.slice(done);
  }

  /** Every sampler is named: what the call leaves out is off, never a default of the library. */
  async #evaluateOptions(
    call: EngineCall,
    prompt: Token[],
  ): Promise<{ evaluate: SequenceEvaluateOptions; seen: (token: Token) => void }> {
    const { temperature, top_k, top_p, min_p, repeat_penalty } = resolveSampling(call.sampling);
    const evaluate: SequenceEvaluateOptions = {
      temperature,
      topK: top_k,
      topP: top_p,
      minP: min_p,
      seed: engineSeed(call.seed),
      yieldEogToken: true,
    };
    const grammar = await constrain(this.#llama, this.#model, call);
    if (grammar !== undefined) evaluate.grammarEvaluationState = grammar;
    if (repeat_penalty === 1) return { evaluate, seen: () => undefined };
    const recent = prompt.slice(-PENALTY_WINDOW);
    evaluate.repeatPenalty = {
      punishTokens: () => recent,
      maxPunishTokens: PENALTY_WINDOW,
      penalty: repeat_penalty,
    };
    const seen = (token: Token) => {
      recent.push(token);
      if (recent.length > PENALTY_WINDOW) recent.shift();
    };
    return { evaluate, seen };
  }
}
