import test from 'ava';
import { createActor } from 'xstate';
import { failure } from '../../src/errors.ts';
import {
  POOL_EVENTS,
  poolMachine,
  type PoolContext,
  type PoolEvent,
  type PoolFact,
} from '../../src/machines/pool.ts';
import { SimulatedClock } from '../helpers/simulated-clock.ts';
import { handledEvents, statesOf, undescribed, walk } from '../helpers/machine-walk.ts';

const INPUT = { id: 'p', retry: { initial_ms: 1000, factor: 2, max_ms: 4000 } };
const TRANSIENT = failure('POOL_UNAVAILABLE', 'model file m.gguf does not exist');
const PERMANENT = failure('POOL_UNAVAILABLE', 'it never fits', { retriable: false });

const EVENTS: PoolEvent[] = [
  { type: 'pool.ensure' },
  { type: 'pool.drain', deadline_ms: 500, unfinished: 'refuse' },
  { type: 'pool.drain', deadline_ms: 500, unfinished: 'keep' },
  { type: 'model.prepared' },
  { type: 'model.failed', failure: TRANSIENT },
  { type: 'model.failed', failure: PERMANENT },
  { type: 'replica.readied' },
  { type: 'replica.lost' },
  { type: 'replica.broken', failure: TRANSIENT },
  { type: 'replicas.stopped' },
  { type: 'lease.granted' },
  { type: 'lease.closed' },
];

function start(): {
  send: (...events: PoolEvent[]) => void;
  state: () => string;
  facts: string[];
  clock: SimulatedClock;
  context: () => PoolContext;
} {
  const clock = new SimulatedClock();
  const actor = createActor(poolMachine, { input: INPUT, clock });
  const facts: string[] = [];
  actor.on('*', (fact: PoolFact) => facts.push(fact.type));
  actor.start();
  return {
    send: (...events) => events.forEach((event) => actor.send(event)),
    state: () => actor.getSnapshot().value,
    context: () => actor.getSnapshot().context,
    facts,
    clock,
  };
}

test('handles exactly the events it declares, and describes every state', (t) => {
  t.deepEqual(handledEvents(poolMachine), [...POOL_EVENTS].toSorted());
  t.deepEqual(undescribed(poolMachine), []);
});

test('is brought up in order: model, replicas, ready', (t) => {
  const pool = start();
  pool.send({ type: 'pool.ensure' }, { type: 'model.prepared' }, { type: 'replica.readied' });
  t.is(pool.state(), 'ready');
  t.deepEqual(
    pool.facts.filter((fact) => fact !== 'queue.dispatch'),
    ['model.prepare', 'replicas.start'],
  );
});

test('tells what waits why it cannot come up, and tries again with a growing backoff', (t) => {
  const pool = start();
  pool.send({ type: 'pool.ensure' }, { type: 'model.failed', failure: TRANSIENT });
  t.is(pool.state(), 'unready');
  t.is(pool.facts.at(-1), 'queue.refuse');
  t.is(pool.context().last_error?.message, TRANSIENT.message);
  pool.clock.advance(999);
  t.is(pool.state(), 'unready');
  pool.clock.advance(1);
  t.is(pool.state(), 'preparing');
  pool.send({ type: 'model.failed', failure: TRANSIENT });
  pool.clock.advance(1999);
  t.is(pool.state(), 'unready');
  pool.clock.advance(1);
  t.is(pool.state(), 'preparing');
});

test('does not retry by itself what can never work', (t) => {
  const pool = start();
  pool.send({ type: 'pool.ensure' }, { type: 'model.failed', failure: PERMANENT });
  pool.clock.advance(3_600_000);
  t.is(pool.state(), 'unready');
});

test('waits for its replica to come back after a loss, and keeps its queue meanwhile', (t) => {
  const pool = start();
  pool.send(
    { type: 'pool.ensure' },
    { type: 'model.prepared' },
    { type: 'replica.readied' },
    { type: 'replica.lost' },
  );
  t.is(pool.state(), 'starting');
  t.false(pool.facts.includes('queue.refuse'));
  pool.send({ type: 'replica.readied' });
  t.is(pool.state(), 'ready');
});

test('drains: running tasks finish first', (t) => {
  const pool = start();
  pool.send(
    { type: 'pool.ensure' },
    { type: 'model.prepared' },
    { type: 'replica.readied' },
    { type: 'lease.granted' },
  );
  pool.send({ type: 'pool.drain', deadline_ms: 500, unfinished: 'refuse' });
  t.is(pool.state(), 'draining');
  pool.send({ type: 'lease.closed' });
  t.is(pool.state(), 'stopping');
  t.false(pool.facts.includes('leases.revoke'));
  pool.send({ type: 'replicas.stopped' });
  t.is(pool.state(), 'stopped');
});

test('drains: at the deadline the leases that are left are revoked', (t) => {
  const pool = start();
  pool.send(
    { type: 'pool.ensure' },
    { type: 'model.prepared' },
    { type: 'replica.readied' },
    { type: 'lease.granted' },
  );
  pool.send({ type: 'pool.drain', deadline_ms: 500, unfinished: 'refuse' });
  pool.clock.advance(500);
  t.is(pool.state(), 'stopping');
  t.deepEqual(pool.facts.slice(-2), ['leases.revoke', 'replicas.stop']);
});

const READY: PoolEvent[] = [{ type: 'pool.ensure' }, { type: 'model.prepared' }, { type: 'replica.readied' }];
const KEEP: PoolEvent = { type: 'pool.drain', deadline_ms: 500, unfinished: 'keep' };

test('a drain that keeps what is unfinished tells the queue nothing, and suspends what still runs', (t) => {
  const pool = start();
  pool.send(...READY, { type: 'lease.granted' }, KEEP);
  t.is(pool.state(), 'draining');
  pool.clock.advance(499);
  t.is(pool.state(), 'draining');
  pool.clock.advance(1);
  t.is(pool.state(), 'stopping');
  t.deepEqual(pool.facts.slice(-2), ['leases.suspend', 'replicas.stop']);
  for (const never of ['queue.refuse', 'leases.revoke']) t.false(pool.facts.includes(never));
});

test('what comes free while a pool drains is given to nobody', (t) => {
  for (const unfinished of ['keep', 'refuse'] as const) {
    const pool = start();
    pool.send(...READY, { type: 'lease.granted' }, { type: 'lease.granted' });
    pool.send({ type: 'pool.drain', deadline_ms: 500, unfinished });
    const before = pool.facts.length;
    pool.send({ type: 'lease.closed' });
    t.deepEqual(pool.facts.slice(before), []);
    pool.send({ type: 'lease.closed' });
    t.deepEqual(pool.facts.slice(before), ['replicas.stop']);
  }
});

test('a drain refuses what waits, at once', (t) => {
  const pool = start();
  pool.send(...READY, { type: 'lease.granted' });
  pool.send({ type: 'pool.drain', deadline_ms: 500, unfinished: 'refuse' });
  t.is(pool.facts.at(-1), 'queue.refuse');
});

test('a later drain rules: its deadline, and what becomes of what is unfinished', (t) => {
  const hasty = start();
  hasty.send(...READY, { type: 'lease.granted' }, KEEP);
  hasty.clock.advance(100);
  hasty.send({ type: 'pool.drain', deadline_ms: 0, unfinished: 'refuse' });
  hasty.clock.advance(0);
  t.deepEqual(hasty.facts.slice(-3), ['queue.refuse', 'leases.revoke', 'replicas.stop']);
  const patient = start();
  patient.send(...READY, { type: 'lease.granted' }, KEEP);
  patient.clock.advance(400);
  patient.send(KEEP);
  patient.clock.advance(499);
  t.is(patient.state(), 'draining');
  t.is(patient.clock.pending, 1);
});

test('a pool with nothing on its slots stops at once, whatever it was doing', (t) => {
  for (const before of [
    [],
    READY.slice(0, 1),
    READY.slice(0, 2),
    READY,
    [...READY, { type: 'replica.lost' } as const],
  ]) {
    const pool = start();
    pool.send(...before, KEEP);
    t.is(pool.state(), 'stopping');
    pool.send({ type: 'replicas.stopped' });
    t.is(pool.state(), 'stopped');
    t.is(pool.clock.pending, 0);
  }
});

test('every state is reached; no count is negative; a stopped pool has told its replicas to stop', (t) => {
  const { steps, reached } = walk(poolMachine, {
    input: INPUT,
    events: (snapshot) =>
      [
        ...EVENTS.filter((event) => event.type !== 'lease.granted' || snapshot.hasTag('ready')),
        ...(snapshot.value === 'unready' ? [{ type: 'xstate.after.retryBackoff.pool.unready' }] : []),
        ...(snapshot.value === 'draining' ? [{ type: 'xstate.after.drainDeadline.pool.draining' }] : []),
      ].filter((event) => event.type !== 'lease.granted' || (snapshot.context as PoolContext).leases < 2),
    key: (context: PoolContext) => [
      context.replicas_ready > 0,
      context.leases,
      context.last_error?.retriable,
      Math.min(2, context.replicas_ready),
    ],
  });
  t.deepEqual([...reached].filter((id) => id !== 'pool').toSorted(), statesOf(poolMachine).toSorted());
  for (const { to } of steps) {
    const context = to.context as PoolContext;
    t.true(context.leases >= 0 && context.replicas_ready >= 0);
    if (to.value === 'ready') t.true(context.replicas_ready > 0, 'ready without a replica');
    if (to.value === 'unready') t.not(context.last_error, undefined);
  }
});
