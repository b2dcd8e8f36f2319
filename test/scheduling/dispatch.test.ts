import test from 'ava';
import fc from 'fast-check';
import { dispatch, type DispatchView } from '../../src/scheduling/dispatch.ts';

const view = (changes: Partial<DispatchView<string>>): DispatchView<string> => ({
  places: 'now',
  cold: false,
  replicas: [],
  slots_total: 2,
  next: [],
  provisioning: new Set(),
  ...changes,
});

test('grants free slots in queue order, to the replica with the fewest leases, then by id', (t) => {
  const { grants } = dispatch(
    view({
      replicas: [
        { id: 'b', slots_free: 2, leases: 0 },
        { id: 'a', slots_free: 2, leases: 1 },
      ],
      next: ['t1', 't2', 't3', 't4', 't5'],
    }),
  );
  t.deepEqual(grants, [
    { task: 't1', replica_id: 'b' },
    { task: 't2', replica_id: 'a' },
    { task: 't3', replica_id: 'b' },
    { task: 't4', replica_id: 'a' },
  ]);
});

test('asks for a cold pool only when somebody waits, and lets as many provision as it will have slots', (t) => {
  t.false(dispatch(view({ places: 'soon', cold: true })).ensure);
  const result = dispatch(view({ places: 'soon', cold: true, next: ['t1', 't2', 't3'] }));
  t.true(result.ensure);
  t.deepEqual(result.provision, ['t1', 't2']);
});

test('sends back to waiting who is not next any more', (t) => {
  const result = dispatch(
    view({ places: 'soon', next: ['vip', 't1', 't2'], provisioning: new Set(['t1', 't2']) }),
  );
  t.deepEqual(result.provision, ['vip']);
  t.deepEqual(result.wait, ['t2']);
});

test('leaves the queue alone when nothing may be placed', (t) => {
  const result = dispatch(view({ places: 'never', next: ['t1'], provisioning: new Set(['t1']) }));
  t.deepEqual(result, { ensure: false, grants: [], provision: [], wait: ['t1'] });
});

test('never grants more than the slots, nor a task twice, and always the same for the same view', (t) => {
  const replicas = fc.uniqueArray(
    fc.record({ id: fc.constantFrom('a', 'b', 'c', 'd'), slots_free: fc.nat(4), leases: fc.nat(4) }),
    { selector: (replica) => replica.id },
  );
  fc.assert(
    fc.property(replicas, fc.uniqueArray(fc.string()), (all, next) => {
      const one = dispatch(view({ replicas: all, next }));
      const free = all.reduce((sum, replica) => sum + replica.slots_free, 0);
      t.is(one.grants.length, Math.min(free, next.length));
      t.deepEqual(
        one.grants.map((grant) => grant.task),
        next.slice(0, one.grants.length),
      );
      for (const replica of all)
        t.true(one.grants.filter((grant) => grant.replica_id === replica.id).length <= replica.slots_free);
      t.deepEqual(dispatch(view({ replicas: all.toReversed(), next })), one);
    }),
  );
});
