import test from 'ava';
import { createActor } from 'xstate';
import { failure } from '../../src/errors.ts';
import { poolMachine } from '../../src/machines/pool.ts';
import { stateName } from '../../src/machines/state-name.ts';
import {
  POOL_EVENTS,
  type PoolContext,
  type PoolEvent,
  type PoolFact,
} from '../../src/machines/pool-protocol.ts';
import type { EngineLoss } from '../../src/engines/engine.ts';
import { SimulatedClock } from '../helpers/simulated-clock.ts';
import { handledEvents, statesOf, undescribed, walk } from '../helpers/machine-walk.ts';

const INPUT = { id: 'p', retry: { initial_ms: 1000, factor: 2, max_ms: 4000 }, replicas: 1 };
const CRASH: EngineLoss = { cause: 'crash', message: 'exit code 139' };
const TRANSIENT = failure('POOL_UNAVAILABLE', 'model file m.gguf does not exist');
const PERMANENT = failure('POOL_UNAVAILABLE', 'it never fits', { retriable: false });

const EVENTS: PoolEvent[] = [
  { type: 'pool.ensure' },
  { type: 'pool.unload', cause: 'swap' },
  { type: 'pool.drain', deadline_ms: 500 },
  { type: 'pool.restore' },
  { type: 'pool.reload', deadline_ms: 500, finishes_queue: true },
  { type: 'pool.reload', deadline_ms: 500, finishes_queue: false },
  { type: 'pool.close', deadline_ms: 500, unfinished: 'refuse' },
  { type: 'pool.close', deadline_ms: 500, unfinished: 'keep' },
  { type: 'model.prepared' },
  { type: 'model.failed', failure: TRANSIENT },
  { type: 'model.failed', failure: PERMANENT },
  { type: 'memory.granted' },
  { type: 'memory.refused', failure: PERMANENT },
  { type: 'replica.readied' },
  { type: 'replica.lost', loss: CRASH },
  { type: 'replica.lost', loss: { cause: 'exit', message: 'exit code 0' } },
  { type: 'replica.broken', failure: TRANSIENT },
  { type: 'replica.recoverable' },
  { type: 'replicas.unloaded' },
  { type: 'replicas.stopped' },
  { type: 'queue.emptied' },
  { type: 'lease.granted' },
  { type: 'lease.closed' },
];

const READY: PoolEvent[] = [
  { type: 'pool.ensure' },
  { type: 'model.prepared' },
  { type: 'memory.granted' },
  { type: 'replica.readied' },
];

function start(replicas = 1): {
  send: (...events: PoolEvent[]) => void;
  state: () => string;
  facts: string[];
  clock: SimulatedClock;
  context: () => PoolContext;
} {
  const clock = new SimulatedClock();
  const actor = createActor(poolMachine, { input: { ...INPUT, replicas }, clock });
  const facts: string[] = [];
  actor.on('*', (fact: PoolFact) => facts.push(fact.type));
  actor.start();
  return {
    send: (...events) => events.forEach((event) => actor.send(event)),
    state: () => stateName(actor.getSnapshot()),
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
  pool.send(...READY);
  t.is(pool.state(), 'ready');
  t.deepEqual(
    pool.facts.filter((fact) => fact !== 'queue.dispatch'),
    ['model.prepare', 'memory.request', 'replicas.start'],
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
  pool.send(...READY, { type: 'replica.lost', loss: CRASH });
  t.is(pool.state(), 'starting');
  t.false(pool.facts.includes('queue.refuse'));
  pool.send({ type: 'replica.readied' });
  t.is(pool.state(), 'ready');
});

test('closes: running tasks finish first', (t) => {
  const pool = start();
  pool.send(...READY, { type: 'lease.granted' });
  pool.send({ type: 'pool.close', deadline_ms: 500, unfinished: 'refuse' });
  t.is(pool.state(), 'closing.emptying');
  pool.send({ type: 'lease.closed' });
  t.is(pool.state(), 'closing.stopping');
  t.false(pool.facts.includes('leases.revoke'));
  pool.send({ type: 'replicas.stopped' });
  t.is(pool.state(), 'stopped');
});

test('closes: at the deadline the leases that are left are revoked', (t) => {
  const pool = start();
  pool.send(...READY, { type: 'lease.granted' });
  pool.send({ type: 'pool.close', deadline_ms: 500, unfinished: 'refuse' });
  pool.clock.advance(500);
  t.is(pool.state(), 'closing.stopping');
  t.deepEqual(pool.facts.slice(-2), ['leases.revoke', 'replicas.stop']);
});

const KEEP: PoolEvent = { type: 'pool.close', deadline_ms: 500, unfinished: 'keep' };

test('a close that keeps what is unfinished tells the queue nothing, and suspends what still runs', (t) => {
  const pool = start();
  pool.send(...READY, { type: 'lease.granted' }, KEEP);
  t.is(pool.state(), 'closing.emptying');
  pool.clock.advance(499);
  t.is(pool.state(), 'closing.emptying');
  pool.clock.advance(1);
  t.is(pool.state(), 'closing.stopping');
  t.deepEqual(pool.facts.slice(-2), ['leases.suspend', 'replicas.stop']);
  for (const never of ['queue.refuse', 'leases.revoke']) t.false(pool.facts.includes(never));
});

test('what comes free while a pool closes is given to nobody', (t) => {
  for (const unfinished of ['keep', 'refuse'] as const) {
    const pool = start();
    pool.send(...READY, { type: 'lease.granted' }, { type: 'lease.granted' });
    pool.send({ type: 'pool.close', deadline_ms: 500, unfinished });
    const before = pool.facts.length;
    pool.send({ type: 'lease.closed' });
    t.deepEqual(pool.facts.slice(before), []);
    pool.send({ type: 'lease.closed' });
    t.deepEqual(pool.facts.slice(before), ['replicas.stop']);
  }
});

test('a close refuses what waits, at once', (t) => {
  const pool = start();
  pool.send(...READY, { type: 'lease.granted' });
  pool.send({ type: 'pool.close', deadline_ms: 500, unfinished: 'refuse' });
  t.is(pool.facts.at(-1), 'queue.refuse');
});

test('a later close rules: its deadline, and what becomes of what is unfinished', (t) => {
  const hasty = start();
  hasty.send(...READY, { type: 'lease.granted' }, KEEP);
  hasty.clock.advance(100);
  hasty.send({ type: 'pool.close', deadline_ms: 0, unfinished: 'refuse' });
  hasty.clock.advance(0);
  t.deepEqual(hasty.facts.slice(-3), ['queue.refuse', 'leases.revoke', 'replicas.stop']);
  const patient = start();
  patient.send(...READY, { type: 'lease.granted' }, KEEP);
  patient.clock.advance(400);
  patient.send(KEEP);
  patient.clock.advance(499);
  t.is(patient.state(), 'closing.emptying');
  t.is(patient.clock.pending, 1);
});

test('a pool with nothing on its slots stops at once, whatever it was doing', (t) => {
  for (const before of [
    [],
    READY.slice(0, 1),
    READY.slice(0, 2),
    READY.slice(0, 3),
    READY,
    [...READY, { type: 'replica.lost', loss: CRASH } as const],
  ]) {
    const pool = start();
    pool.send(...before, KEEP);
    t.is(pool.state(), 'closing.stopping');
    pool.send({ type: 'replicas.stopped' });
    t.is(pool.state(), 'stopped');
    t.is(pool.clock.pending, 0);
  }
});

test('a drain runs empty, unloads, and stays so until somebody wants the pool back', (t) => {
  const pool = start();
  pool.send(...READY, { type: 'lease.granted' }, { type: 'pool.drain', deadline_ms: 500 });
  t.is(pool.state(), 'draining.emptying');
  t.is(pool.facts.at(-1), 'queue.refuse');
  pool.send({ type: 'pool.ensure' }, { type: 'lease.closed' });
  t.is(pool.state(), 'draining.freeing');
  t.is(pool.facts.at(-1), 'replicas.unload');
  pool.send({ type: 'replicas.unloaded' });
  t.is(pool.state(), 'drained');
  pool.send({ type: 'pool.ensure' });
  t.is(pool.state(), 'drained');
  pool.send({ type: 'pool.restore' });
  t.is(pool.state(), 'cold');
});

test('a drain ends the leases that are left at its deadline', (t) => {
  const pool = start();
  pool.send(...READY, { type: 'lease.granted' }, { type: 'pool.drain', deadline_ms: 500 });
  pool.clock.advance(500);
  t.is(pool.state(), 'draining.freeing');
  t.deepEqual(pool.facts.slice(-2), ['leases.revoke', 'replicas.unload']);
});

test('a pool that gives its memory back lets what runs finish, and comes back for what waits', (t) => {
  const pool = start();
  pool.send(...READY, { type: 'lease.granted' }, { type: 'pool.unload', cause: 'swap' });
  t.is(pool.state(), 'unloading.emptying');
  pool.clock.advance(3_600_000);
  t.is(pool.state(), 'unloading.emptying');
  pool.send({ type: 'lease.closed' });
  t.is(pool.state(), 'unloading.freeing');
  pool.send({ type: 'replicas.unloaded' });
  t.is(pool.state(), 'cold');
  t.is(pool.facts.at(-1), 'queue.dispatch');
  pool.send(...READY);
  t.is(pool.state(), 'ready');
});

test('it waits for memory after its model is there, and is told where it never fits', (t) => {
  const pool = start();
  pool.send(...READY.slice(0, 2));
  t.is(pool.state(), 'waiting');
  t.true(pool.facts.includes('memory.request'));
  t.false(pool.facts.includes('replicas.start'));
  pool.send({ type: 'memory.refused', failure: PERMANENT });
  t.is(pool.state(), 'unready');
  pool.clock.advance(3_600_000);
  t.is(pool.state(), 'unready');
});

const RELOAD: PoolEvent = { type: 'pool.reload', deadline_ms: 500, finishes_queue: false };

test('a reload stages the new model while the old one serves, and changes over when nothing runs', (t) => {
  const pool = start();
  pool.send(...READY, { type: 'lease.granted' }, RELOAD);
  t.is(pool.state(), 'reloading.staging');
  t.true(pool.facts.includes('model.prepare'));
  pool.send({ type: 'lease.granted' }, { type: 'model.prepared' });
  t.is(pool.state(), 'reloading.emptying.slots');
  pool.send({ type: 'lease.closed' }, { type: 'lease.closed' });
  t.is(pool.state(), 'reloading.unloading');
  pool.send({ type: 'replicas.unloaded' }, { type: 'memory.granted' });
  t.is(pool.state(), 'reloading.starting');
  pool.send({ type: 'replica.readied' });
  t.is(pool.state(), 'ready');
  t.true(pool.facts.includes('model.adopt'));
  t.true(pool.facts.includes('reload.settled'));
});

test('where what waits was promised the old model, a reload serves that first', (t) => {
  const pool = start();
  pool.send(...READY, { ...RELOAD, finishes_queue: true }, { type: 'model.prepared' });
  t.is(pool.state(), 'reloading.emptying.queue');
  pool.send({ type: 'queue.emptied' });
  t.is(pool.state(), 'reloading.unloading');
});

test('a reload whose model cannot be had, or whose pool does not run empty in time, changes nothing', (t) => {
  for (const events of [
    [{ type: 'model.failed', failure: TRANSIENT }],
    [{ type: 'model.prepared' }],
  ] as PoolEvent[][]) {
    const pool = start();
    pool.send(...READY, { type: 'lease.granted' }, RELOAD, ...events);
    pool.clock.advance(500);
    t.is(pool.state(), 'ready');
    t.true(pool.facts.includes('reload.settled'));
    t.false(pool.facts.includes('replicas.unload'));
    t.is(pool.context().last_error, undefined);
  }
});

test('a new model that does not work is cleared away, and the old one is back', (t) => {
  const pool = start();
  pool.send(...READY, RELOAD, { type: 'model.prepared' }, { type: 'replicas.unloaded' });
  pool.send({ type: 'memory.granted' }, { type: 'replica.broken', failure: TRANSIENT });
  t.is(pool.state(), 'reloading.clearing');
  pool.send({ type: 'replicas.unloaded' });
  t.is(pool.state(), 'reloading.restoring');
  t.true(pool.facts.includes('model.restore'));
  pool.send({ type: 'memory.granted' }, { type: 'replica.readied' });
  t.is(pool.state(), 'ready');
  t.is(pool.context().replicas_broken, 0);
});

test('of several replicas one that works is enough, and only the last that breaks makes the pool unready', (t) => {
  const pool = start(2);
  pool.send(...READY, { type: 'replica.readied' }, { type: 'replica.lost', loss: CRASH });
  t.is(pool.state(), 'ready');
  pool.send({ type: 'replica.broken', failure: TRANSIENT }, { type: 'replica.lost', loss: CRASH });
  t.is(pool.state(), 'starting');
  pool.send({ type: 'replica.broken', failure: TRANSIENT });
  t.is(pool.state(), 'unready');
  pool.send({ type: 'replica.recoverable' });
  t.is(pool.state(), 'preparing');
});

test('an engine that ends by itself is no failure: its pool is cold, and loads again for the next task', (t) => {
  const pool = start();
  pool.send(...READY, { type: 'replica.lost', loss: { cause: 'exit', message: 'exit code 0' } });
  t.is(pool.state(), 'cold');
});

test('an unready pool whose engine is to blame waits for the breaker, and one whose model is tries again', (t) => {
  const pool = start();
  pool.send(...READY.slice(0, 3), { type: 'replica.broken', failure: TRANSIENT });
  pool.clock.advance(3_600_000);
  t.is(pool.state(), 'unready');
  pool.send({ type: 'replica.recoverable' });
  t.is(pool.state(), 'preparing');
});

test('every state is reached; no count is negative; a stopped pool has told its replicas to stop', (t) => {
  const after = (name: string, state: string): { type: string } => ({
    type: `xstate.after.${name}.pool.${state}`,
  });
  const { steps, reached } = walk(poolMachine, {
    input: { ...INPUT, replicas: 2 },
    events: (snapshot) => {
      const isFull = (snapshot.context as PoolContext).leases >= 2 || !snapshot.hasTag('ready');
      return [
        ...EVENTS.filter((event) => event.type !== 'lease.granted' || !isFull),
        after('retryBackoff', 'unready'),
        after('emptyDeadline', 'draining.emptying'),
        after('emptyDeadline', 'closing.emptying'),
        after('emptyDeadline', 'reloading.emptying'),
      ];
    },
    key: (context: PoolContext) => [
      Math.min(1, context.leases),
      context.last_error?.retriable,
      Math.min(1, context.replicas_ready),
      Math.min(1, context.replicas_broken),
    ],
  });
  t.deepEqual([...reached].filter((id) => id !== 'pool').toSorted(), statesOf(poolMachine).toSorted());
  for (const { to } of steps) {
    const context = to.context as PoolContext;
    t.true(context.leases >= 0 && context.replicas_ready >= 0 && context.replicas_broken >= 0);
    if (to.value === 'ready') t.true(context.replicas_ready > 0, 'ready without a replica');
    if (to.value === 'unready') t.not(context.last_error, undefined);
  }
});
