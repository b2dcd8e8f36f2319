import type {
  EmbedCall,
  EngineCall,
  EngineInput,
  EngineOutcome,
  EngineProperties,
  RerankCall,
} from '../engine.ts';

/** What the child loads. */
export interface EmbeddedModelOptions {
  model_path: string;
  model_id: string;
  /** Tokens per slot. @default the context the model was trained with */
  ctx?: number;
  slots: number;
  /** Compute threads. They spin while they wait, so more than free cores is much slower than one. @default 1 */
  threads?: number;
  /** `sha256:<hex>` where the owner knows it already; hashed while loading otherwise. */
  model_digest?: string;
  /**
   * Keep a slot's KV cache for the next run's common prefix. Faster, but a partly cached prompt is decoded
   * in other batch shapes, so the output is no longer guaranteed to be that of a cold run. @default false
   */
  reuse_prefix?: boolean;
}

export type ParentMessage =
  | { type: 'load'; options: EmbeddedModelOptions }
  | { type: 'run'; run: number; call: EngineCall }
  | { type: 'embed'; run: number; call: EmbedCall }
  | { type: 'rerank'; run: number; call: RerankCall }
  | { type: 'abort'; run: number }
  | { type: 'count'; request: number; input: EngineInput }
  | { type: 'ping'; request: number }
  | { type: 'unload' };

/** Run, text, tokens: one per delta, in the order they were decoded. */
export type DeltaEntry = [run: number, text: string, tokens: number];

export type ChildMessage =
  | { type: 'loading'; fraction: number }
  | { type: 'loaded'; properties: EngineProperties }
  | { type: 'load-failed'; message: string }
  | { type: 'started'; run: number; tokens_in: number; tokens_cached: number }
  | { type: 'progress'; run: number; done: number; total: number }
  | { type: 'deltas'; deltas: DeltaEntry[] }
  | { type: 'vector'; run: number; i: number; vector: number[] }
  | { type: 'score'; run: number; index: number; score: number }
  | { type: 'ended'; run: number; outcome: EngineOutcome }
  /** The answer to `count` and `ping`; no tokens where the engine cannot tell. */
  | { type: 'answer'; request: number; tokens?: number };
