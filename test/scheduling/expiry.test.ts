import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import test from 'ava';
import fc from 'fast-check';
import { Expiry } from '../../src/scheduling/expiry.ts';

interface Item {
  name: number;
  due_at: number;
}

const item = (name: number, due_at: number): Item => ({ name, due_at });
const named = (items: readonly Item[]): number[] => items.map(({ name }) => name);

test('gives those whose time has passed, the earliest first, once', (t) => {
  const expiry = new Expiry<Item>();
  for (const one of [item(1, 350), item(2, 120), item(3, 380), item(4, 120), item(5, 900)]) expiry.add(one);
  t.is(expiry.nextDue(), 200);
  t.deepEqual(named(expiry.takeDue(199)), []);
  t.deepEqual(named(expiry.takeDue(400)), [2, 4, 1, 3]);
  t.deepEqual(named(expiry.takeDue(400)), []);
  t.is(expiry.nextDue(), 900);
});

test('a time at the edge of a bucket is not a bucket late', (t) => {
  const expiry = new Expiry<Item>();
  expiry.add(item(1, 100));
  t.is(expiry.nextDue(), 100);
  t.deepEqual(named(expiry.takeDue(100)), [1]);
});

test('who was removed is never given, and nobody waits where all were removed', (t) => {
  const expiry = new Expiry<Item>();
  const one = item(1, 100);
  t.false(expiry.remove(one));
  expiry.add(one);
  t.true(expiry.remove(one));
  t.false(expiry.remove(one));
  t.is(expiry.nextDue(), undefined);
  t.deepEqual(expiry.takeDue(1e9), []);
});

test('times that no clock reaches are never due', (t) => {
  const expiry = new Expiry<Item>();
  expiry.add(item(1, Infinity));
  expiry.add(item(2, 2 ** 62));
  t.deepEqual(expiry.takeDue(1e15), []);
});

test('who was removed is held by nothing', async (t) => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const expiry = new Expiry<Item>();
  const stays = item(0, 150);
  expiry.add(stays);
  const gone = [120, 150, 9000].map((due_at, i) => {
    const one = item(i + 1, due_at);
    expiry.add(one);
    expiry.remove(one);
    return new WeakRef(one);
  });
  // What a turn has looked at through a WeakRef lives until its end.
  await new Promise(setImmediate);
  collect();
  t.deepEqual(
    gone.map((one) => one.deref()),
    [undefined, undefined, undefined],
  );
  t.deepEqual(expiry.takeDue(200), [stays]);
});

test('many that came and left do not slow down those that stay', (t) => {
  const expiry = new Expiry<Item>();
  for (let i = 0; i < 100_000; i++) {
    const one = item(i, 1000 + (i % 977) * 100);
    expiry.add(one);
    if (i % 1000 !== 0) expiry.remove(one);
  }
  const due = expiry.takeDue(1e9);
  t.is(due.length, 100);
  t.deepEqual(
    due,
    due.toSorted((a, b) => a.due_at - b.due_at),
  );
  t.is(expiry.nextDue(), undefined);
});

type Step = { kind: 'add'; in_ms: number } | { kind: 'remove'; pick: number } | { kind: 'pass'; ms: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant('add' as const), in_ms: fc.double({ min: -50, max: 1500, noNaN: true }) }),
  fc.record({ kind: fc.constant('add' as const), in_ms: fc.integer({ min: 0, max: 10 }).map((n) => n * 50) }),
  fc.record({ kind: fc.constant('remove' as const), pick: fc.nat(50) }),
  fc.record({ kind: fc.constant('pass' as const), ms: fc.nat(400) }),
);

test('is as good as a sorted list: never early, at most 100 ms late, in order, nobody lost', (t) => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      const expiry = new Expiry<Item>();
      let waiting: Item[] = [];
      const all: Item[] = [];
      let now = 0;
      for (const what of steps) {
        if (what.kind === 'add') {
          const one = item(all.length, now + what.in_ms);
          all.push(one);
          waiting.push(one);
          expiry.add(one);
        } else if (what.kind === 'remove') {
          const one = all[what.pick % Math.max(1, all.length)];
          if (one) t.is(expiry.remove(one), waiting.includes(one));
          waiting = waiting.filter((other) => other !== one);
        } else now += what.ms;

        const next = expiry.nextDue();
        const earliest = Math.min(...waiting.map(({ due_at }) => due_at));
        t.is(next === undefined, waiting.length === 0);
        if (next !== undefined) t.true(next >= earliest && next <= earliest + 100);
        const due = expiry.takeDue(now);
        t.true(
          due.every(({ due_at }) => due_at <= now),
          'early',
        );
        t.deepEqual(
          due,
          waiting.filter((one) => due.includes(one)).toSorted((a, b) => a.due_at - b.due_at),
        );
        waiting = waiting.filter((one) => !due.includes(one));
        t.true(
          waiting.every(({ due_at }) => due_at > now - 100),
          'late',
        );
      }
    }),
    { numRuns: 300 },
  );
});
