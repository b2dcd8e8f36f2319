import test from 'ava';
import { createActor } from 'xstate';
import { ORCHESTRATOR_EVENTS, orchestratorMachine } from '../../src/machines/orchestrator.ts';
import { handledEvents, undescribed } from '../helpers/machine-walk.ts';

test('handles exactly the events it declares, and describes every state', (t) => {
  t.deepEqual(handledEvents(orchestratorMachine), [...ORCHESTRATOR_EVENTS].toSorted());
  t.deepEqual(undescribed(orchestratorMachine), []);
});

test('is closed when the last pool has stopped, and releases its resources once', (t) => {
  const actor = createActor(orchestratorMachine, { input: { pools: 2 } });
  const facts: string[] = [];
  actor.on('*', (fact) => facts.push(fact.type));
  actor.start();
  actor.send({ type: 'orchestrator.close', shutdown_ms: 100 });
  actor.send({ type: 'pool.stopped' });
  t.is(actor.getSnapshot().value, 'draining');
  actor.send({ type: 'pool.stopped' });
  t.is(actor.getSnapshot().value, 'closed');
  t.deepEqual(facts, ['pools.drain', 'resources.release']);
});
