import test from 'ava';
import { failure } from '../../src/errors.ts';
import { feasibleOf, limitsOf } from '../../src/scheduling/feasibility.ts';
import type { PlacementJob, PlacementPool } from '../../src/scheduling/placement.ts';
import { job, pool } from './pools.ts';

const FEATURES = { chat: 'native', grammar: true, json_schema: true, tokenizer: true } as const;

/** Which pools are left, or why none is. */
const left = (pools: PlacementPool[], changes: Partial<PlacementJob> = {}): string => {
  const { feasible, refusal } = feasibleOf(pools, job(changes));
  if (!refusal) return feasible.map(({ id }) => id).join(' ');
  const { code, message, retriable } = refusal.failure;
  return `${refusal.reason} ${code}${retriable ? '' : ', not retriable'}: ${message}`;
};

test('the engine and the model must be the ones asked for', (t) => {
  const pools = [pool('b', { model: 'storyteller' }), pool('a', { model: 'other' })];
  t.is(left([...pools, pool('c', { engine: 'synthetic' })]), 'b');
  t.is(
    left(pools, { engine: 'vllm' }),
    'NO_CAPACITY POOL_UNAVAILABLE, not retriable: engine: no pool runs "vllm"; this server has "llamacpp"',
  );
  t.is(
    left(pools, { model_ref: 'gpt' }),
    'NO_CAPACITY POOL_UNAVAILABLE, not retriable: model_ref: no llamacpp pool serves "gpt"; this server has "other", "storyteller"',
  );
  t.regex(left([]), /this server has none$/);
});

test('the workload must be one that the engine has, where that is known', (t) => {
  const pools = [pool('a'), pool('b', { workloads: ['embedding'] }), pool('c', { workloads: undefined })];
  t.is(left(pools, { workload: 'embedding' }), 'b c');
  t.is(
    left(pools.slice(0, 1), { workload: 'rerank' }),
    'EXTENSIONS_UNSATISFIED INVALID_PARAMS, not retriable: workload: "rerank" is not supported here; "completion" is',
  );
});

test('the context must fit into a slot', (t) => {
  const pools = [pool('a'), pool('b', { ctx_max: 1024 }), pool('c', { ctx_max: undefined })];
  t.is(left(pools, { ctx: 512 }), 'a b c');
  t.is(left(pools, { ctx: 513 }), 'b c');
  t.is(
    left(pools.slice(0, 2), { ctx: 1025 }),
    'INSUFFICIENT_CTX INVALID_PARAMS, not retriable: ctx: must be at most 1024 tokens for this model, got 1025',
  );
});

test('the output must not be longer than a pool writes', (t) => {
  const pools = [pool('a', { max_tokens_out: 32 }), pool('b', { max_tokens_out: 64 })];
  t.is(left(pools, { max_tokens: 64 }), 'b');
  t.is(
    left(pools, { max_tokens: 65 }),
    'NO_CAPACITY INVALID_PARAMS, not retriable: max_tokens: must be at most 64 for this model, got 65',
  );
});

test('the sampler profile must be the one that is named, where one is', (t) => {
  const pools = [pool('a'), pool('b', { sampler_profile_version: 'v2' })];
  t.is(left(pools), 'a b');
  t.is(left(pools, { sampler_profile_version: 'v2' }), 'b');
  t.is(
    left(pools, { sampler_profile_version: 'v3' }),
    'EXTENSIONS_UNSATISFIED INVALID_PARAMS, not retriable: sampler_profile_version: no pool of this model has "v3"; there is "v1", "v2"',
  );
});

test('what an engine is known not to do is not asked of it; one that was never loaded may', (t) => {
  const plain = pool('a', { features: { ...FEATURES, chat: 'none', grammar: false, json_schema: false } });
  const demands: [Partial<PlacementJob>, RegExp][] = [
    [{ messages: [{ role: 'user', content: 'hello' }] }, /INVALID_PARAMS.*: messages: .*use prompt$/],
    [{ sampling: { grammar: 'root ::= "a"' } }, /INVALID_PARAMS.*: sampling\.grammar: /],
    [{ sampling: { json_schema: {} } }, /INVALID_PARAMS.*: sampling\.json_schema: /],
  ];
  for (const [demand, refusal] of demands) {
    t.is(left([plain, pool('b', { features: FEATURES }), pool('c')], demand), 'b c');
    t.regex(left([plain], demand), refusal);
    t.regex(left([plain], demand), /^EXTENSIONS_UNSATISFIED/);
  }
  t.is(left([plain], { sampling: {} }), 'a');
});

test('a device mask is met exactly or not at all', (t) => {
  const pools = [
    pool('a', { device_mask: '0' }),
    pool('b', { device_mask: '0,1' }),
    pool('c'),
    pool('d', { device_mask: '01' }),
  ];
  t.is(left(pools, { placement: { require_device_mask: '0' } }), 'a');
  t.is(left(pools, { placement: { require_device_mask: '0,1' } }), 'b');
  t.is(
    left(pools, { placement: { require_device_mask: '1' } }),
    'NO_CAPACITY POOL_UNAVAILABLE, not retriable: placement.require_device_mask: no pool of this model has exactly "1"; there is "0", "0,1", "01"',
  );
});

test('an avoided pool is avoided, also where it is the only one', (t) => {
  const pools = [pool('a'), pool('b')];
  t.is(left(pools, { placement: { avoid_pools: ['a', 'z'] } }), 'b');
  t.is(
    left(pools, { placement: { avoid_pools: ['b', 'a'] } }),
    'NO_CAPACITY POOL_UNAVAILABLE, not retriable: placement.avoid_pools: leaves no pool for this task; only "a", "b" could run it',
  );
});

test('a task that needs memory goes where it is free; what no pool has in all is never free', (t) => {
  const pools = [
    pool('a', { memory_free_bytes: 10, memory_total_bytes: 100 }),
    pool('b', { memory_free_bytes: 20, memory_total_bytes: 50 }),
  ];
  t.is(left(pools), 'a b');
  t.is(left(pools, { memory_bytes: 20 }), 'b');
  t.is(left([...pools, pool('c')], { memory_bytes: 30 }), 'c');
  t.is(
    left(pools, { memory_bytes: 100 }),
    'NO_CAPACITY POOL_UNAVAILABLE: ctx: needs 100 bytes of memory, and at most 20 are free',
  );
  t.regex(left(pools, { memory_bytes: 101 }), /POOL_UNAVAILABLE, not retriable/);
});

test('an unready or draining pool says why', (t) => {
  const refusal = failure('POOL_UNREADY', 'pool a is not ready: no file', { pool_id: 'a' });
  const pools = [
    pool('b', { refusal: failure('POOL_UNREADY', 'pool b takes no new work') }),
    pool('a', { refusal }),
  ];
  t.is(left([...pools, pool('c')]), 'c');
  t.is(left(pools), 'POOL_UNREADY POOL_UNREADY: pool a is not ready: no file');
});

test('the log names the filters that removed a pool', (t) => {
  const pools = [pool('a'), pool('b', { model: 'other' }), pool('c', { ctx_max: 128 })];
  t.deepEqual(feasibleOf(pools, job()).filters_applied, ['model', 'ctx']);
  t.deepEqual(feasibleOf([pool('a')], job()).filters_applied, []);
});

test('a task may be as long as the widest pool of the model allows, whatever else it wants', (t) => {
  const pools = [
    pool('a', { max_tokens_out: 32 }),
    pool('b', { ctx_max: 1024, max_tokens_out: 16 }),
    pool('c', { ctx_max: 4096, model: 'other' }),
  ];
  t.like(limitsOf(pools, job({ max_tokens: 32, placement: { avoid_pools: ['a', 'b'] } })), {
    pool_id: 'a',
    failure: undefined,
  });
  t.regex(limitsOf(pools, job({ ctx: 1025 })).failure?.message ?? '', /^ctx: must be at most 1024/);
  t.is(limitsOf(pools, job({ model_ref: 'none' })).failure?.code, 'POOL_UNAVAILABLE');
  t.is(limitsOf(pools, job({ model_ref: 'none' })).pool_id, undefined);
});

test('a pool that knows no limit yet has none, and no load or readiness matters', (t) => {
  const refusal = failure('POOL_UNREADY', 'pool a is not ready');
  const limits = limitsOf([pool('a', { refusal }), pool('b', { ctx_max: undefined })], job());
  t.like(limits, { pool_id: 'b', failure: undefined });
  t.is(limitsOf([pool('a', { refusal })], job()).failure, undefined);
});

test('tokens are counted where a tokenizer is loaded, else where the pool is open', (t) => {
  const refusal = failure('POOL_UNREADY', 'pool a is not ready');
  const pools = [pool('c', { features: FEATURES }), pool('b'), pool('a', { refusal })];
  t.is(limitsOf(pools, job()).pool_id, 'c');
  t.is(limitsOf(pools.slice(1), job()).pool_id, 'b');
  t.is(limitsOf(pools.slice(2), job()).pool_id, 'a');
});
