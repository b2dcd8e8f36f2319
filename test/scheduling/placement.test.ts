import test from 'ava';
import { failure } from '../../src/errors.ts';
import { place, type PlacementJob, type PlacementPool } from '../../src/scheduling/placement.ts';

const pool = (id: string, changes: Partial<PlacementPool> = {}): PlacementPool => ({
  id,
  engine: 'llamacpp',
  model: 'storyteller',
  ctx_max: 512,
  max_tokens_out: undefined,
  workloads: ['completion'],
  refusal: undefined,
  predicted_start_ms: 0,
  waiting: 0,
  ...changes,
});

const job = (changes: Partial<PlacementJob> = {}): PlacementJob => ({
  engine: 'llamacpp',
  model_ref: 'storyteller',
  workload: 'completion',
  ctx: 256,
  max_tokens: 64,
  ...changes,
});

const unready = failure('POOL_UNREADY', 'pool a is not ready: no file');
const chosen = (pools: PlacementPool[], changes: Partial<PlacementJob> = {}): string => {
  const decision = place(pools, job(changes));
  return decision.kind === 'assigned' ? decision.pool_id : decision.failure.code;
};
const refusal = (pools: PlacementPool[], changes: Partial<PlacementJob>): string => {
  const decision = place(pools, job(changes));
  return decision.kind === 'refused' ? `${decision.failure.code} ${decision.failure.message}` : 'assigned';
};

test('takes the pool that is expected to start first, then the emptier, then the first by id', (t) => {
  t.is(chosen([pool('a', { predicted_start_ms: 10 }), pool('b')]), 'b');
  t.is(chosen([pool('a', { waiting: 2 }), pool('b')]), 'b');
  t.is(chosen([pool('b'), pool('a')]), 'a');
});

test('a refusal names the field and what this server has', (t) => {
  const pools = [pool('a'), pool('b', { model: 'other' })];
  t.is(
    refusal(pools, { engine: 'vllm' }),
    'POOL_UNAVAILABLE engine: no pool runs "vllm"; this server has "llamacpp"',
  );
  t.is(
    refusal(pools, { model_ref: 'gpt' }),
    'POOL_UNAVAILABLE model_ref: no llamacpp pool serves "gpt"; this server has "storyteller", "other"',
  );
  t.is(
    refusal(pools, { workload: 'rerank' }),
    'INVALID_PARAMS workload: "rerank" is not supported here; "completion" is',
  );
  t.is(
    refusal(pools, { ctx: 513 }),
    'INVALID_PARAMS ctx: must be at most 512 tokens for this model, got 513',
  );
  t.is(
    refusal([pool('a', { max_tokens_out: 32 })], {}),
    'INVALID_PARAMS max_tokens: must be at most 32 for this model, got 64',
  );
});

test('a pin is kept or refused, never replaced', (t) => {
  const pools = [pool('a', { refusal: unready }), pool('b')];
  t.is(chosen(pools, { placement: { mode: 'pin', pin_pool_id: 'b' } }), 'b');
  t.is(chosen(pools, { placement: { mode: 'pin', pin_pool_id: 'a' } }), 'POOL_UNREADY');
  t.is(
    refusal(pools, { placement: { mode: 'pin', pin_pool_id: 'c' } }),
    'INVALID_PARAMS placement.pin_pool_id: there is no pool "c"; pools are "a", "b"',
  );
});

test('preferred pools win where one is open; otherwise any, unless a fallback is forbidden', (t) => {
  const pools = [pool('a'), pool('b'), pool('c', { refusal: unready })];
  t.is(chosen(pools, { placement: { mode: 'prefer', prefer_pools: ['b'] } }), 'b');
  t.is(chosen(pools, { placement: { mode: 'prefer', prefer_pools: ['c'] } }), 'a');
  t.is(
    chosen(pools, { placement: { mode: 'prefer', prefer_pools: ['c'], allow_fallback: false } }),
    'POOL_UNAVAILABLE',
  );
  t.is(chosen(pools, { placement: { avoid_pools: ['a'] } }), 'b');
});

test('an unready pool says why', (t) => {
  t.is(refusal([pool('a', { refusal: unready })], {}), 'POOL_UNREADY pool a is not ready: no file');
});
