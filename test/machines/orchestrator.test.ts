import test from 'ava';
import { createActor } from 'xstate';
import { failure } from '../../src/errors.ts';
import {
  ORCHESTRATOR_EVENTS,
  orchestratorMachine,
  type OrchestratorEvent,
} from '../../src/machines/orchestrator.ts';
import { handledEvents, statesOf, undescribed } from '../helpers/machine-walk.ts';

const RECOVERED: OrchestratorEvent = { type: 'store.recovered' };
const FAILED: OrchestratorEvent = { type: 'store.failed', failure: failure('INTERNAL', 'no store') };
const CLOSE: OrchestratorEvent = { type: 'orchestrator.close', shutdown_ms: 100 };
const STOPPED: OrchestratorEvent = { type: 'pool.stopped' };

function run(pools: number, ...events: OrchestratorEvent[]) {
  const actor = createActor(orchestratorMachine, { input: { pools } });
  const facts: unknown[] = [];
  actor.on('*', (fact) => facts.push(fact));
  actor.start();
  for (const event of events) actor.send(event);
  const snapshot = actor.getSnapshot();
  return { snapshot, facts, isAccepting: snapshot.hasTag('accepting') };
}

test('handles exactly the events it declares, and describes every state', (t) => {
  t.deepEqual(handledEvents(orchestratorMachine), [...ORCHESTRATOR_EVENTS].toSorted());
  t.deepEqual(undescribed(orchestratorMachine), []);
  t.deepEqual(
    statesOf(orchestratorMachine).map((id) => id.replace('orchestrator.', '')),
    ['recovering', 'serving', 'draining', 'closed'],
  );
});

test('takes tasks once it knows what earlier processes have accepted, and not before', (t) => {
  t.true(run(1).snapshot.hasTag('recovering'));
  t.false(run(1).isAccepting);
  const { snapshot, isAccepting } = run(1, RECOVERED);
  t.true(isAccepting);
  t.false(snapshot.hasTag('recovering'));
});

test('is closed when the last pool has stopped, and releases its resources once', (t) => {
  for (const before of [[], [RECOVERED]]) {
    t.is(run(2, ...before, CLOSE, STOPPED).snapshot.value, 'draining');
    const { snapshot, facts } = run(2, ...before, CLOSE, STOPPED, STOPPED);
    t.is(snapshot.value, 'closed');
    t.deepEqual(facts, [{ type: 'pools.drain', deadline_ms: 100 }, { type: 'resources.release' }]);
  }
});

test('a close while it recovers is not undone by what is found later', (t) => {
  t.is(run(1, CLOSE, RECOVERED).snapshot.value, 'draining');
  t.is(run(1, CLOSE, FAILED).snapshot.value, 'draining');
  t.is(run(1, CLOSE, FAILED).snapshot.context.failure, undefined);
});

test('a store that cannot be read closes it at once, and it says why it takes nothing', (t) => {
  const { snapshot, facts, isAccepting } = run(1, FAILED);
  t.is(snapshot.value, 'draining');
  t.false(isAccepting);
  t.like(snapshot.context.failure, { message: 'no store' });
  t.deepEqual(facts, [{ type: 'pools.drain', deadline_ms: 0 }]);
  t.is(run(1, FAILED, STOPPED).snapshot.value, 'closed');
});

test('a second close that is less patient drains again with its own deadline', (t) => {
  const { facts } = run(1, RECOVERED, CLOSE, { type: 'orchestrator.close', shutdown_ms: 0 });
  t.deepEqual(facts, [
    { type: 'pools.drain', deadline_ms: 100 },
    { type: 'pools.drain', deadline_ms: 0 },
  ]);
});

test('a pool that stops by itself is not waited for when it closes', (t) => {
  t.is(run(1, RECOVERED, STOPPED).snapshot.value, 'serving');
  t.is(run(1, RECOVERED, STOPPED, CLOSE).snapshot.value, 'closed');
});
