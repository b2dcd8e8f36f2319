import { newRates } from '../../src/scheduling/estimate.ts';
import type { PlacementJob, PlacementPool } from '../../src/scheduling/placement.ts';

/** A pool that can take {@link job}. */
export function pool(id: string, changes: Partial<PlacementPool> = {}): PlacementPool {
  return {
    id,
    engine: 'llamacpp',
    model: 'storyteller',
    sampler_profile_version: 'v1',
    ctx_max: 512,
    max_tokens_out: undefined,
    workloads: ['completion'],
    features: undefined,
    refusal: undefined,
    predicted_start_ms: 0,
    rates: newRates(),
    waiting: 0,
    leases: 0,
    slots_total: 1,
    ...changes,
  };
}

export function job(changes: Partial<PlacementJob> = {}): PlacementJob {
  return {
    engine: 'llamacpp',
    model_ref: 'storyteller',
    workload: 'completion',
    ctx: 256,
    max_tokens: 64,
    ...changes,
  };
}
