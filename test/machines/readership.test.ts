import test from 'ava';
import { createActor } from 'xstate';
import { READERSHIP_EVENTS, readershipMachine, type ReadershipFact } from '../../src/machines/readership.ts';
import { handledEvents, undescribed } from '../helpers/machine-walk.ts';
import { SimulatedClock } from '../helpers/simulated-clock.ts';

function start(grace_ms = 10_000): {
  actor: ReturnType<typeof createActor<typeof readershipMachine>>;
  clock: SimulatedClock;
  facts: ReadershipFact[];
} {
  const clock = new SimulatedClock();
  const facts: ReadershipFact[] = [];
  const actor = createActor(readershipMachine, { input: { grace_ms }, clock });
  actor.on('*', (fact) => facts.push(fact));
  actor.start();
  return { actor, clock, facts };
}

test('handles exactly the events it declares, and describes every state', (t) => {
  t.deepEqual(handledEvents(readershipMachine), [...READERSHIP_EVENTS].toSorted());
  t.deepEqual(undescribed(readershipMachine), []);
});

test('a task is deserted once its last reader was gone for the whole grace, and not a moment earlier', (t) => {
  const { actor, clock, facts } = start();
  clock.advance(9999);
  t.deepEqual(facts, []);
  clock.advance(1);
  t.deepEqual(facts, [{ type: 'task.deserted' }]);
  t.is(actor.getSnapshot().value, 'deserted');
});

test('without a grace, the last reader takes the task with it', (t) => {
  const { clock, facts } = start(0);
  clock.advance(0);
  t.deepEqual(facts, [{ type: 'task.deserted' }]);
});

for (const { event, state } of [
  { event: 'reader.attached', state: 'resumed' },
  { event: 'task.closed', state: 'pointless' },
] as const)
  test(`${event} ends the wait at its last moment, and leaves no timer`, (t) => {
    const { actor, clock, facts } = start();
    clock.advance(9999);
    actor.send({ type: event });
    t.is(actor.getSnapshot().value, state);
    t.is(clock.pending, 0);
    clock.advance(20_000);
    t.deepEqual(facts, []);
  });

test('nothing moves it once it is over', (t) => {
  const { actor, clock, facts } = start();
  clock.advance(10_000);
  for (const type of READERSHIP_EVENTS) t.false(actor.getSnapshot().can({ type }));
  t.is(actor.getSnapshot().value, 'deserted');
  t.is(facts.length, 1);
});
