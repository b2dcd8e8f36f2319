import type { ChatMessage, EngineFamily, TaskUsage } from '../contract/generated/types.ts';
import type { Failure } from '../errors.ts';

export type { ChatMessage, EngineFamily };

/** What a task asks the engine to continue. Messages stay structured until the adapter renders them. */
export type EngineInput =
  { kind: 'prompt'; text: string } | { kind: 'chat'; messages: readonly ChatMessage[] };

/** Sampling settings; whatever is absent is the greedy profile (temperature 0), never an engine's own default. */
export interface Sampling {
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  repeat_penalty?: number;
  stop?: readonly string[];
}

/** A constraint on the output that the engine has to enforce while decoding. */
export type OutputConstraint = { kind: 'grammar'; gbnf: string } | { kind: 'json_schema'; schema: object };

/** One run of one task on one slot: plain data, safe to send to another process. */
export interface EngineCall {
  task_id: string;
  /** Grows with every grant; an answer that carries an older lease belongs to a run that was given up. */
  lease: number;
  input: EngineInput;
  /** Upper bound of the tokens of this run, those of earlier runs not included; at least 1. */
  max_tokens: number;
  seed: number;
  sampling?: Sampling;
  output?: OutputConstraint;
  /** Nothing that earlier calls left in a cache may be used. */
  cold?: true;
  /** Text that earlier runs of this task already produced; the engine goes on after it. */
  resume?: { text: string; tokens_out: number };
  /** Sent to engines over HTTP as `X-Correlation-Id`. */
  correlation_id?: string;
}

/** Texts to embed, on one slot. */
export interface EmbedCall {
  task_id: string;
  lease: number;
  inputs: readonly string[];
  correlation_id?: string;
}

/** Documents to rank against a query, on one slot. */
export interface RerankCall {
  task_id: string;
  lease: number;
  query: string;
  documents: readonly string[];
  correlation_id?: string;
}

/** A piece of output. `tokens` counts the tokens it stands for: an engine may hold back half a character. */
export interface Delta {
  channel: 'text' | 'reasoning' | 'tool';
  text: string;
  tokens: number;
}

/** Tokens of a run; its task's usage is that of its last run. */
export type Usage = TaskUsage;

/**
 * The one result of a run. Everything said before it came through the sink; nothing comes after it. The usage of
 * an aborted run is what the engine decoded, which may be more than was delivered: after the abort nothing is.
 */
export type EngineOutcome =
  | { kind: 'finished'; reason: 'eos' | 'limit' | 'stop'; usage: Usage }
  | { kind: 'aborted'; usage: Usage }
  | {
      kind: 'failed';
      failure: Failure;
      usage: Usage;
      /**
       * The engine has not begun, because it is busy, loading or gone. The call is not to blame and may be given to it
       * again, in `failure.retry_after_ms` where it says when.
       */
      declined?: true;
    };

/** Where a run's output goes while it runs. Called synchronously, in order, never after the outcome. */
export interface EngineSink {
  delta(delta: Delta): void;
  /** Tokens of the input, once they are known: at the latest with the first delta, where the engine tells before the end. */
  prefilled?(tokens_in: number, tokens_cached: number): void;
  /** Prefill progress in tokens, where the engine tells. */
  progress?(done: number, total: number): void;
}

/** What an engine turned out to be once loaded; capabilities are computed from this, never assumed. */
export interface EngineProperties {
  engine_version: string;
  /** Tokens one slot can hold, prompt and output together. */
  ctx_max: number;
  slots_total: number;
  model_id: string;
  /** `sha256:<hex>` of the model file where the adapter has one to hash. */
  model_digest?: string;
  workloads: readonly ('completion' | 'embedding' | 'rerank')[];
  features: {
    chat: 'native' | 'rendered' | 'none';
    grammar: boolean;
    json_schema: boolean;
    resume: boolean;
    /** Whether `count` is exact. */
    tokenizer: boolean;
    /** Whether the same call gives the same bytes, whatever runs beside it and whatever ran before. */
    deterministic: boolean;
    /** Whether that is so of a call that is `cold`, where it is not of every one. */
    deterministic_cold?: boolean;
    /** Whether a slot keeps the KV cache of its last call for one that begins alike. */
    kv_reuse: boolean;
  };
  /** Memory of the engine in bytes, where it was measured: of its devices if it has some, else resident on the host. */
  memory_bytes?: number;
  /** What one token of context takes in a slot's KV cache, in bytes, where the adapter can tell. */
  kv_bytes_per_token?: number;
}

/**
 * Why an engine that was loaded is no longer there. Causes are kept apart because each has its own remedy:
 * - `crash`: it ended with a code or a signal; `exit`: it ended by itself with code 0, which is no failure
 * - `oom`: the host was out of memory; `vram_oom`: its device was; `cuda`: another fault of the device
 * - `unreachable`: it does not answer; `deaf`: it answers and decodes nothing
 * - `unload`, `idle`, `swap`, `drain`: we wanted it to go
 */
export interface EngineLoss {
  cause:
    | 'crash'
    | 'exit'
    | 'oom'
    | 'vram_oom'
    | 'cuda'
    | 'unreachable'
    | 'deaf'
    | 'unload'
    | 'idle'
    | 'swap'
    | 'drain';
  message: string;
  exit_code?: number;
  signal?: string;
}

export type EngineHealth = { live: true; ready: boolean } | { live: false; ready: false; message: string };

/** What an engine tells its owner between calls. */
export interface EngineHost {
  /** Load progress, 0 to 1, where the engine tells. */
  loading?(fraction: number): void;
  /** What a load is waiting for, such as a server that does not answer yet; may be told again and again. */
  waiting?(why: string): void;
  /** What the engine's process writes to its stdout and stderr, as it comes. */
  output?(chunk: Buffer): void;
  /**
   * The engine went away without being asked to. Every run in flight is `failed`; that is told in the same turn, so
   * that nobody who hears of it still takes the engine for loaded.
   */
  lost(loss: EngineLoss): void;
}

/**
 * An engine behind its adapter: one process or server that serves one model on `slots_total` slots.
 * The pool keeps calls within the slots; an adapter neither queues nor retries once a token was delivered,
 * reads no environment and downloads nothing.
 */
export interface Engine {
  readonly family: EngineFamily;

  /**
   * Starts (or attaches to) the engine and loads the model.
   * Safe to call again after a loss or an unload.
   * @throws TaskchartError POOL_UNAVAILABLE with the reason on one line; an aborted `signal` also rejects.
   */
  load(signal: AbortSignal): Promise<EngineProperties>;

  /** Never rejects: no answer is an answer. */
  health(signal: AbortSignal): Promise<EngineHealth>;

  /**
   * Decodes one token: what tells an engine that works from one that only answers. It takes a slot, so it is for a
   * moment in which one is free. Never rejects.
   * @returns false where no token came before the `signal` aborted
   */
  probe?(signal: AbortSignal): Promise<boolean>;

  /**
   * Runs a call to its end. Never rejects; an aborted `signal` settles as `aborted` once the engine has let
   * go of the slot. An input that does not fit the context is `INVALID_PARAMS`, it is never cut.
   */
  run(call: EngineCall, sink: EngineSink, signal: AbortSignal): Promise<EngineOutcome>;

  /**
   * Embeds each input, in order, as a vector of length 1; there if `workloads` has `embedding`. Settles and aborts
   * as `run` does, with the reason `eos`; an abort takes effect after the input at work. An input that does not fit
   * the context is `INVALID_PARAMS` that names `inputs[i]`, it is never cut.
   */
  embed?(
    call: EmbedCall,
    vector: (i: number, vector: readonly number[]) => void,
    signal: AbortSignal,
  ): Promise<EngineOutcome>;

  /**
   * Scores each document against the query, best first; there if `workloads` has `rerank`. `index` is the
   * document's place in the call, which an `INVALID_PARAMS` names `inputs[index]`. Scores of one engine compare,
   * their scale is the engine's own. Otherwise as `embed`.
   */
  rerank?(
    call: RerankCall,
    score: (index: number, score: number) => void,
    signal: AbortSignal,
  ): Promise<EngineOutcome>;

  /**
   * Tokens the engine would prefill for this input (BOS and template included).
   * @returns undefined where the engine cannot tell.
   */
  count(input: EngineInput, signal: AbortSignal): Promise<number | undefined>;

  /**
   * Decodes one token on a free slot, which a health probe does not show. Left out where the adapter has no cheap way.
   * Never rejects; an aborted `signal` counts as no.
   * @returns whether it did
   */
  probe?(signal: AbortSignal): Promise<boolean>;

  /** Stops the engine and frees what it holds; safe to repeat. Runs in flight settle as `aborted`. */
  unload(): Promise<void>;
}
