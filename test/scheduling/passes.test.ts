import test from 'ava';
import { passedBy, Passes } from '../../src/scheduling/passes.ts';
import { busy, queue, swapPool as pool } from './swap-pools.ts';

const oldest = (sequence: number): { sequence: number; accepted_at: number } => ({
  sequence,
  accepted_at: 0,
});

test('a task is passed since the first lease of a younger one, whatever came after that', (t) => {
  const passes = new Passes();
  t.is(passes.since(oldest(5)), undefined);
  passes.note(100, 3);
  passes.note(200, 8);
  passes.note(300, 6);
  passes.note(400, 9);
  t.is(passes.since(oldest(5)), 200);
  t.is(passes.since(oldest(8)), 400, 'the next in the queue has its own time');
  t.is(passes.since(oldest(9)), undefined);
});

test('where nobody waits, nobody was passed', (t) => {
  const passes = new Passes();
  passes.note(100, 3);
  t.is(passes.since(undefined), undefined);
  t.is(passes.since(oldest(1)), undefined);
});

test('a lease passes older tasks of pools on its devices that are not loaded though they may be', (t) => {
  const granting = pool('granting', busy());
  const passed = (changes: object): boolean =>
    passedBy([granting, pool('a', changes)], granting, 10).length > 0;
  const waiting = (sequence: number): object => ({ ...queue(1, 0), oldest: oldest(sequence) });
  t.true(passed(waiting(9)));
  t.true(passed({ ...waiting(9), state: 'unloading' }));
  t.false(passed(waiting(11)));
  t.false(passed({ ...waiting(9), state: 'loaded' }));
  t.false(passed({ ...waiting(9), can_load: false }));
  t.false(passed({ ...waiting(9), memory_bytes: { gpu1: 100 } }));
  t.false(passed({}));
});
