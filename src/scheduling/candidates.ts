import type { EngineFamily, EngineProperties } from '../engines/engine.ts';
import type { Failure } from '../errors.ts';
import type { Rates } from './estimate.ts';

/** A pool as placement sees it. What is undefined is not known, and then nothing is refused because of it. */
export interface PlacementPool {
  id: string;
  engine: EngineFamily;
  /** The model reference the pool was configured with. */
  model: string;
  /** Profile that the pool has pinned. */
  sampler_profile_version: string;
  /** Tokens one slot holds. */
  ctx_max: number | undefined;
  max_tokens_out: number | undefined;
  workloads: readonly string[] | undefined;
  /** What its engine can do; undefined until one was loaded. */
  features:
    | (Pick<EngineProperties['features'], 'chat' | 'grammar' | 'json_schema' | 'tokenizer'> &
        Partial<Pick<EngineProperties['features'], 'deterministic' | 'deterministic_cold'>>)
    | undefined;
  /** Devices that it runs on, in the words of `require_device_mask`; left out where it has none. */
  device_mask?: string | undefined;
  /** Memory of those devices, where known. */
  memory_free_bytes?: number | undefined;
  memory_total_bytes?: number | undefined;
  /** Why an unready or draining pool takes no new work. */
  refusal: Failure | undefined;
  /** When a newcomer of the job's class would get a slot, in milliseconds from now. */
  predicted_start_ms: number;
  rates: Rates;
  waiting: number;
  leases: number;
  slots_total: number;
  /** Whether its queue would refuse a newcomer of the job's class. */
  is_full?: boolean | undefined;
}

/** What a task asks of a pool; a request has this shape. */
export interface PlacementJob {
  engine: string;
  model_ref: string;
  workload: string;
  ctx: number;
  max_tokens: number;
  expected_tokens?: number | undefined;
  sampler_profile_version?: string | undefined;
  determinism?: 'strict' | 'best_effort' | undefined;
  /** Needs a chat template. */
  messages?: readonly unknown[] | undefined;
  sampling?: { grammar?: string | undefined; json_schema?: object | undefined } | undefined;
  /** Memory that the task needs beside the loaded model, where known. */
  memory_bytes?: number | undefined;
  /** Pool that holds the session's cache. */
  affinity_pool_id?: string | undefined;
  placement?:
    | {
        mode?: 'pin' | 'prefer' | 'auto' | undefined;
        pin_pool_id?: string | undefined;
        prefer_pools?: readonly string[] | undefined;
        avoid_pools?: readonly string[] | undefined;
        require_device_mask?: string | undefined;
        allow_fallback?: boolean | undefined;
      }
    | undefined;
}

/** Names in quotes and in order, each once, so that the order of the pools does not show. */
export function list(names: readonly string[]): string {
  const unique = [...new Set(names)].sort();
  return unique.length === 0 ? 'none' : unique.map((name) => `"${name}"`).join(', ');
}

/** The same pools in the order of their ids. */
export function byId<P extends { id: string }>(pools: readonly P[]): P[] {
  return [...pools].sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
}
