import test from 'ava';
import { DEFAULT_SWAP_RULES, neverFits } from '../../src/scheduling/swap-view.ts';
import { busy, idle, NOW, plan, queue, swapPool as pool, viewOf } from './swap-pools.ts';

const BOUND_MS = DEFAULT_SWAP_RULES.max_overtaken_ms;

test('a pool loads when somebody waits and there is room, and not before', (t) => {
  t.deepEqual(plan([pool('a')]).does, []);
  const { does, waiting, steps } = plan([pool('a', queue(1, 20))]);
  t.deepEqual(does, ['load a room']);
  t.deepEqual(waiting, []);
  t.is(steps[0]?.human, 'Pool a loads: its oldest task has waited 20 ms.');
});

test('a pool without work makes room at once, even if it has just been loaded', (t) => {
  const { does, waits } = plan([pool('a', { ...idle(1), since: NOW - 1 }), pool('b', queue(1, 0))]);
  t.deepEqual(does, ['unload a swap idle']);
  t.deepEqual(waits, ['b memory_freeing']);
});

test('a load begins when the memory is free, not when it is promised', (t) => {
  const { does, waiting } = plan([pool('a', { state: 'unloading', leases: 1 }), pool('b', queue(1, 0))]);
  t.deepEqual(does, []);
  t.like(waiting[0], { pool_id: 'b', reason: 'memory_freeing', blocked_by: ['a'] });
});

test('a pool goes on serving its queue while another waits', (t) => {
  const { does, waiting, look_again_in_ms } = plan([
    pool('a', { ...busy(), ...queue(3, 2000) }),
    pool('b', { ...queue(5, 9000), passed_over_since: NOW - 7000 }),
  ]);
  t.deepEqual(does, []);
  t.like(waiting[0], { pool_id: 'b', reason: 'turn', blocked_by: ['a'], overdue_in_ms: BOUND_MS - 7000 });
  t.deepEqual(waiting[0]?.weighed, { urge_ms: 14_000, needed_ms: 8 * (5000 + 4000 + 4000 + 500) });
  t.is(look_again_in_ms, BOUND_MS - 7000);
});

test('a pool with nobody waiting runs its last task to the end: more may come meanwhile', (t) => {
  t.deepEqual(plan([pool('a', busy()), pool('b', queue(90, 0))]).waits, ['b turn']);
});

test('a small queue makes room where the price is paid back, once it had its minimum residency', (t) => {
  const small = { ...busy(), ...queue(1, 0) };
  const large = pool('b', queue(100, 0));
  t.deepEqual(plan([pool('a', small), large]).does, ['unload a swap outweighed']);
  const { does, waits, look_again_in_ms } = plan([pool('a', { ...small, since: NOW - 2000 }), large]);
  t.deepEqual(does, []);
  t.deepEqual(waits, ['b residency']);
  t.is(look_again_in_ms, 3000);
});

test('the longer a load takes, the more must wait for it', (t) => {
  const small = pool('a', { ...busy(), ...queue(1, 0) });
  const wait = (load_ms: number): string[] => plan([small, pool('b', { ...queue(100, 0), load_ms })]).does;
  t.deepEqual(wait(4000), ['unload a swap outweighed']);
  t.deepEqual(wait(9000), []);
});

test('who was passed for the bound takes the room of a pool whose tasks are all younger', (t) => {
  const waiting = pool('b', { ...queue(1, BOUND_MS + 10), passed_over_since: NOW - BOUND_MS });
  const { does, waits } = plan([pool('a', { ...busy(), ...queue(50, 100), since: NOW - 1 }), waiting]);
  t.deepEqual(does, ['unload a swap overdue']);
  t.deepEqual(waits, ['b memory_freeing']);
});

test('and lets older tasks go first, but only those', (t) => {
  const waiting = pool('b', { ...queue(1, BOUND_MS + 10), passed_over_since: NOW - BOUND_MS });
  const { does, waits, last_calls } = plan([pool('a', { ...busy(), ...queue(50, BOUND_MS + 20) }), waiting]);
  t.deepEqual(does, []);
  t.deepEqual(waits, ['b last_call']);
  t.like(last_calls[0], { pool_id: 'a', for_pool_id: 'b', before_sequence: NOW - BOUND_MS - 10 });
});

test('of the overdue the one with the oldest task comes first, whatever else waits', (t) => {
  const overdue = (id: string, waited_ms: number): ReturnType<typeof pool> =>
    pool(id, { ...queue(1, waited_ms), passed_over_since: NOW - BOUND_MS });
  const { does, waits } = plan([
    pool('a', queue(900, 0)),
    overdue('b', BOUND_MS + 1),
    overdue('c', BOUND_MS + 2),
  ]);
  t.deepEqual(does, ['load c overdue']);
  t.deepEqual(waits, ['b others_first', 'a others_first']);
});

test('of idle pools the least useful goes: what nobody wanted for long, loads fast, or frees much', (t) => {
  const half = { memory_bytes: { gpu0: 50 } };
  const wanting = pool('z', { ...queue(1, 0), ...half });
  const goes = (a: object, b: object): string[] =>
    plan([
      pool('a', { ...half, ...idle(60_000), ...a }),
      pool('b', { ...half, ...idle(60_000), ...b }),
      wanting,
    ]).does;
  t.deepEqual(goes({}, { idle_since: NOW - 90_000 }), ['unload b swap idle']);
  t.deepEqual(goes({}, { load_ms: 2000 }), ['unload b swap idle']);
  t.deepEqual(goes({}, {}), ['unload a swap idle']);
  t.deepEqual(goes({}, { pinned: true, load_ms: 1 }), ['unload a swap idle']);
  t.deepEqual(
    goes({ memory_bytes: { gpu0: 20 }, load_ms: 2000 }, { memory_bytes: { gpu0: 60 }, load_ms: 3000 }),
    ['unload b swap idle'],
    'and nobody else, where that is enough',
  );
});

test('a pool that spans devices waits until all of it fits, and nobody slips in before it', (t) => {
  const both = { gpu0: 60, gpu1: 60 };
  const view = {
    now: NOW,
    devices: ['gpu0', 'gpu1'].map((id) => ({ id, budget_bytes: 100 })),
    pools: [
      pool('wide', { ...queue(9, 900), memory_bytes: both }),
      pool('left', { state: 'unloading', memory_bytes: { gpu0: 60 } }),
      pool('late', { ...queue(1, 0), memory_bytes: { gpu1: 60 } }),
    ],
  };
  const { does, waits } = plan([], {}, view);
  t.deepEqual(does, []);
  t.deepEqual(waits, ['wide memory_freeing', 'late others_first']);
});

test('what an overdue pool will need is kept for it while others are still loading', (t) => {
  const view = {
    now: NOW,
    devices: ['gpu0', 'gpu1'].map((id) => ({ id, budget_bytes: 100 })),
    pools: [
      pool('wide', {
        ...queue(1, BOUND_MS + 1),
        passed_over_since: NOW - BOUND_MS,
        memory_bytes: { gpu0: 60, gpu1: 60 },
      }),
      pool('left', { ...queue(1, 0), state: 'loading', memory_bytes: { gpu0: 60 } }),
      pool('late', { ...queue(9, 0), memory_bytes: { gpu1: 60 } }),
    ],
  };
  const { does, waits } = plan([], {}, view);
  t.deepEqual(does, []);
  t.deepEqual(waits.toSorted(), ['late others_first', 'left loading', 'wide others_first']);
});

test('loads of one device follow each other', (t) => {
  const small = { memory_bytes: { gpu0: 30 } };
  const pools = [pool('a', { ...queue(2, 0), ...small }), pool('b', { ...queue(1, 0), ...small })];
  t.deepEqual(plan(pools).does, ['load a room']);
  t.deepEqual(plan(pools).waits, ['b load_slot']);
  t.deepEqual(plan(pools, { max_parallel_loads: 2 }).does, ['load a room', 'load b room']);
});

test('what can never be loaded is told so, and holds nobody up', (t) => {
  const huge = pool('huge', { ...queue(9, 9000), memory_bytes: { gpu0: 101 } });
  const { does, waits } = plan([huge, pool('a', queue(1, 0))]);
  t.deepEqual(does, ['load a room']);
  t.deepEqual(waits, ['huge never_fits']);
  const pinned = pool('pinned', { pinned: true, memory_bytes: { gpu0: 1 } });
  t.is(neverFits(viewOf(pinned), pool('a')), 'gpu0', 'beside a pinned pool');
  t.is(neverFits(viewOf(pinned), pinned), undefined);
  t.is(
    neverFits(viewOf(), pool('a', { memory_bytes: { gpu7: 1 } })),
    'gpu7',
    'on a device that is not there',
  );
});

test('who must not be loaded throws nobody out', (t) => {
  const { does, waits } = plan([pool('a', idle(9)), pool('b', { ...queue(1, 0), can_load: false })]);
  t.deepEqual(does, []);
  t.deepEqual(waits, ['b held']);
});

test('a pool without work for its idle time is unloaded, a pinned one never', (t) => {
  t.deepEqual(plan([pool('a', idle(500_000))]).does, []);
  t.is(plan([pool('a', idle(400))], { idle_ttl_ms: 1000 }).look_again_in_ms, 600);
  t.deepEqual(plan([pool('a', idle(1000))], { idle_ttl_ms: 1000 }).does, ['unload a idle idle']);
  t.deepEqual(plan([pool('a', { ...idle(1000), idle_ttl_ms: 0 })], { idle_ttl_ms: 1000 }).does, []);
  t.deepEqual(plan([pool('a', { ...idle(1000), idle_ttl_ms: 900 })]).does, ['unload a idle idle']);
  t.deepEqual(plan([pool('a', { ...idle(1000), pinned: true, idle_ttl_ms: 900 })]).does, []);
});

test('who is on the way out with tasks waiting comes back afterwards', (t) => {
  t.deepEqual(plan([pool('a', { ...queue(1, 0), state: 'unloading' })]).waits, ['a unloading']);
});
