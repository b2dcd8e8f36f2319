import test from 'ava';
import fc from 'fast-check';
import { failure } from '../../src/errors.ts';
import {
  place,
  type PlacementJob,
  type PlacementPolicy,
  type PlacementPool,
} from '../../src/scheduling/placement.ts';
import { job, pool } from './pools.ts';

const unready = failure('POOL_UNREADY', 'pool a is not ready: no file');

const chosen = (pools: PlacementPool[], changes: Partial<PlacementJob> = {}): string => {
  const decision = place(pools, job(changes));
  return decision.kind === 'assigned' ? decision.pool_id : decision.failure.code;
};

const refusal = (
  pools: PlacementPool[],
  changes: Partial<PlacementJob>,
  policy: PlacementPolicy = {},
): string => {
  const decision = place(pools, job(changes), policy);
  if (decision.kind === 'assigned') return `assigned ${decision.pool_id}`;
  return `${decision.reason} ${decision.failure.code}: ${decision.failure.message}`;
};

/** Pools whose task ends after so many milliseconds in the queue, with a first token after 10 and 1 per token. */
const RATES = { first_token_ms: 10, token_ms: 1, tokens_out: 30, load_ms: undefined };

test('takes the pool where the task is expected to end first', (t) => {
  t.is(chosen([pool('a', { predicted_start_ms: 10 }), pool('b')]), 'b');
  const slow = pool('a', { rates: { ...RATES, token_ms: 10 } });
  const busy = pool('b', { rates: RATES, predicted_start_ms: 200 });
  t.is(chosen([slow, busy], { expected_tokens: 10 }), 'a');
  t.is(chosen([slow, busy], { expected_tokens: 60 }), 'b');
  t.is(chosen([slow, busy], { max_tokens: 5 }), 'a', 'no task is longer than max_tokens');
  t.is(chosen([slow, busy], { workload: 'completion' }), 'b', 'without a guess, the mean counts');
});

test('a pool that has measured nothing is taken to be as fast as the others', (t) => {
  const known = pool('a', { rates: RATES, predicted_start_ms: 20 });
  t.is(chosen([known, pool('b', { predicted_start_ms: 900 })]), 'a');
  t.is(chosen([known, pool('b')]), 'b');
  t.is(
    chosen([pool('a', { rates: RATES }), pool('b', { predicted_start_ms: 20 })]),
    'a',
    'and not as faster',
  );
});

test('a small difference between estimates is a tie', (t) => {
  const pools = [
    pool('a', { predicted_start_ms: 1000, waiting: 3 }),
    pool('b', { predicted_start_ms: 1050 }),
  ];
  t.is(chosen(pools), 'b');
  t.is(chosen([pools[0] as PlacementPool, pool('b', { predicted_start_ms: 1051 })]), 'a');
});

const measured = { rates: RATES, memory_free_bytes: 5 };
const breakers: [name: string, a: Partial<PlacementPool>, z: Partial<PlacementPool>][] = [
  ['affinity', {}, { waiting: 5 }],
  ['load', { waiting: 1 }, {}],
  ['memory', {}, { memory_free_bytes: 6 }],
  ['speed', {}, { rates: { ...RATES, token_ms: 0.99 } }],
];
for (const [name, a, z] of breakers) {
  test(`a tie is broken by ${name} before the id`, (t) => {
    const pools = [pool('a', { ...measured, ...a }), pool('z', { ...measured, ...z })];
    t.like(place(pools, job(name === 'affinity' ? { affinity_pool_id: 'z' } : {})), {
      kind: 'assigned',
      pool_id: 'z',
      reason: 'tie_break',
      tie_breakers_applied: [name],
    });
  });
}

test('tie-breakers are asked in their order, and only as long as there is a tie', (t) => {
  const pools = [
    pool('a', { ...measured, waiting: 1, memory_free_bytes: 99 }),
    pool('b', measured),
    pool('c', { ...measured, rates: { ...RATES, token_ms: 0.99 } }),
    pool('d', { ...measured, rates: { ...RATES, token_ms: 0.99 } }),
  ];
  t.like(place(pools, job()), { pool_id: 'c', tie_breakers_applied: ['load', 'speed', 'id'] });
});

test('what is not known of every tied pool breaks no tie, and the first id ends it', (t) => {
  const pools = [pool('b', { memory_free_bytes: 9 }), pool('a'), pool('c', { memory_free_bytes: 10 })];
  t.like(place(pools, job()), { pool_id: 'a', tie_breakers_applied: ['id'] });
});

test('load is counted per slot, waiting and running alike', (t) => {
  t.is(chosen([pool('a', { leases: 1 }), pool('b', { leases: 1, waiting: 2, slots_total: 4 })]), 'b');
});

test('a session stays where its cache is only while that pool can take it', (t) => {
  const pools = [pool('a'), pool('b', { refusal: unready })];
  t.is(chosen(pools, { affinity_pool_id: 'b' }), 'a');
  t.is(chosen([pool('a'), pool('b', { predicted_start_ms: 500 })], { affinity_pool_id: 'b' }), 'a');
});

test('a pool with a full queue comes last, and is taken where all are full', (t) => {
  const full = { is_full: true };
  t.is(chosen([pool('a', full), pool('b', { predicted_start_ms: 900 })]), 'b');
  t.is(chosen([pool('a', full), pool('b', { ...full, predicted_start_ms: 900 })]), 'a');
  t.is(chosen([pool('a', full), pool('b')], { placement: { mode: 'pin', pin_pool_id: 'a' } }), 'a');
});

test('a pin is kept or refused, never replaced', (t) => {
  const pools = [pool('a', { refusal: unready }), pool('b', { ctx_max: 128 }), pool('c')];
  const pin = (pin_pool_id?: string): Partial<PlacementJob> => ({ placement: { mode: 'pin', pin_pool_id } });
  t.is(chosen(pools, pin('c')), 'c');
  t.is(refusal(pools, pin('a')), 'pinned_pool_infeasible POOL_UNREADY: pool a is not ready: no file');
  t.is(
    refusal(pools, pin('b')),
    'pinned_pool_infeasible INVALID_PARAMS: ctx: must be at most 128 tokens for this model, got 256',
  );
  t.is(
    refusal(pools, pin('d')),
    'pinned_pool_infeasible INVALID_PARAMS: placement.pin_pool_id: there is no pool "d"; pools are "a", "b", "c"',
  );
  t.is(
    refusal(pools, pin()),
    'pinned_pool_infeasible INVALID_PARAMS: placement.pin_pool_id: must name the pool for mode "pin"; pools are "a", "b", "c"',
  );
});

test('naming a pool to pin is a pin, unless another mode is asked for', (t) => {
  const pools = [pool('a'), pool('b')];
  t.is(chosen(pools, { placement: { pin_pool_id: 'b' } }), 'b');
  t.is(chosen(pools, { placement: { mode: 'auto', pin_pool_id: 'b' } }), 'a');
});

test('a server may switch pinning off', (t) => {
  const pinned = { placement: { pin_pool_id: 'a' } };
  t.is(
    refusal([pool('a')], pinned, { allow_pin: false }),
    'pinned_pool_infeasible INVALID_PARAMS: placement: this server does not allow pinning; use mode "prefer" or "auto"',
  );
  t.is(refusal([pool('a')], {}, { allow_pin: false }), 'assigned a');
});

test('preferred pools win where one is open; otherwise any, unless a fallback is forbidden', (t) => {
  const pools = [pool('a'), pool('b', { predicted_start_ms: 900 }), pool('c', { refusal: unready })];
  const prefer = (prefer_pools: string[], allow_fallback?: boolean): Partial<PlacementJob> => ({
    placement: { mode: 'prefer', prefer_pools, allow_fallback },
  });
  t.is(chosen(pools, prefer(['b', 'c'])), 'b');
  t.like(place(pools, job(prefer(['b']))), { fallback_used: false });
  t.like(place(pools, job(prefer(['c']))), { pool_id: 'a', fallback_used: true });
  t.is(
    refusal(pools, prefer(['c', 'z'], false)),
    'no_preferred_feasible POOL_UNAVAILABLE: placement.prefer_pools: none of "c", "z" can take this task now',
  );
  t.is(chosen(pools, prefer([], false)), 'a');
  t.is(chosen(pools, { placement: { prefer_pools: ['b'] } }), 'b');
  t.is(chosen(pools, { placement: { mode: 'auto', prefer_pools: ['b'] } }), 'a');
});

test('a decision says what was looked at and what decided', (t) => {
  const pools = [pool('b'), pool('a'), pool('c', { refusal: unready })];
  t.deepEqual(place(pools, job()), {
    kind: 'assigned',
    pool_id: 'a',
    reason: 'tie_break',
    considered: 3,
    feasible: 2,
    filters_applied: ['ready'],
    tie_breakers_applied: ['id'],
    pinned: false,
    fallback_used: false,
  });
  t.like(place([pool('a')], job()), { reason: 'only_feasible', tie_breakers_applied: [] });
  t.like(place([pool('a'), pool('b', { predicted_start_ms: 5 })], job()), { reason: 'predicted_end' });
  t.like(place(pools, job({ placement: { pin_pool_id: 'b' } })), {
    reason: 'pinned',
    pinned: true,
    considered: 1,
    feasible: 1,
  });
  t.like(place(pools, job({ ctx: 9999 })), {
    kind: 'refused',
    reason: 'INSUFFICIENT_CTX',
    considered: 3,
    feasible: 0,
    failure: { engine: 'llamacpp' },
  });
});

const oneOf = <T>(...values: T[]): fc.Arbitrary<T> => fc.constantFrom(...values);
const pools: fc.Arbitrary<PlacementPool[]> = fc
  .array(
    fc.record({
      model: oneOf('storyteller', 'storyteller', 'storyteller', 'other'),
      ctx_max: oneOf(undefined, 128, 512, 1024),
      refusal: oneOf(undefined, undefined, undefined, unready),
      predicted_start_ms: oneOf(0, 100, 102, 300),
      rates: fc.record({
        first_token_ms: oneOf(undefined, 10, 20),
        token_ms: oneOf(undefined, 1, 2),
        tokens_out: oneOf(undefined, 30),
        load_ms: fc.constant(undefined),
      }),
      waiting: fc.nat(3),
      leases: fc.nat(2),
      slots_total: fc.integer({ min: 1, max: 3 }),
      device_mask: oneOf(undefined, '0', '1', '0,1'),
      memory_free_bytes: oneOf(undefined, 10, 20),
      is_full: fc.boolean(),
    }),
    { maxLength: 6 },
  )
  .map((all) => all.map((changes, i) => pool(`p${i}`, changes)));
const name = oneOf('p0', 'p1', 'p2', 'p9');
const jobs: fc.Arbitrary<PlacementJob> = fc
  .record({
    ctx: oneOf(64, 256, 1000),
    expected_tokens: oneOf(undefined, 5, 50),
    memory_bytes: oneOf(undefined, 15),
    affinity_pool_id: fc.option(name, { nil: undefined }),
    placement: fc.record({
      mode: oneOf(undefined, 'pin' as const, 'prefer' as const, 'auto' as const),
      pin_pool_id: fc.option(name, { nil: undefined }),
      prefer_pools: fc.array(name, { maxLength: 2 }),
      avoid_pools: fc.array(name, { maxLength: 2 }),
      require_device_mask: oneOf(undefined, undefined, '0', '0,1'),
      allow_fallback: oneOf(undefined, true, false),
    }),
  })
  .map(job);

test('the same pools give the same decision in any order, and nothing given is changed', (t) => {
  fc.assert(
    fc.property(
      pools.chain((all) => fc.tuple(fc.constant(all), fc.shuffledSubarray(all, { minLength: all.length }))),
      jobs,
      ([all, shuffled], asked) => {
        const before = structuredClone([all, asked]);
        const decision = place(all, asked);
        t.deepEqual(place(shuffled, asked), decision);
        t.deepEqual(place(structuredClone(all), structuredClone(asked)), decision);
        t.deepEqual([all, asked], before);
      },
    ),
    { numRuns: 500 },
  );
});

test('whatever is asked, the chosen pool meets it', (t) => {
  fc.assert(
    fc.property(pools, jobs, (all, asked) => {
      const decision = place(all, asked);
      if (decision.kind === 'refused') return void t.is(decision.failure.engine, 'llamacpp');
      const { placement = {} } = asked;
      const one = all.find(({ id }) => id === decision.pool_id) as PlacementPool;
      t.is(one.refusal, undefined);
      t.is(one.model, asked.model_ref);
      t.true((one.ctx_max ?? Infinity) >= asked.ctx);
      t.true((one.memory_free_bytes ?? Infinity) >= (asked.memory_bytes ?? 0));
      t.false(placement.avoid_pools?.includes(one.id) ?? false);
      if (placement.require_device_mask !== undefined) t.is(one.device_mask, placement.require_device_mask);
      if (placement.mode === 'pin') t.true(one.id === placement.pin_pool_id);
      if (placement.mode === 'prefer' && placement.allow_fallback === false && placement.prefer_pools?.length)
        t.true(placement.prefer_pools.includes(one.id));
    }),
    { numRuns: 500 },
  );
});
