import test from 'ava';
import { MODEL_EVENTS, modelMachine, type ModelFact } from '../../src/machines/model.ts';
import { createRecordStepper } from '../../src/machines/record-step.ts';
import { handledEvents, undescribed } from '../helpers/machine-walk.ts';

const stepper = createRecordStepper<typeof modelMachine, ModelFact>(modelMachine, undefined as never);
const step = (state: 'Active' | 'Retired', event: object) =>
  stepper.step({ state, context: {} }, event as never);

test('handles exactly the events it declares, and describes every state', (t) => {
  t.deepEqual(handledEvents(modelMachine), [...MODEL_EVENTS].toSorted());
  t.deepEqual(undescribed(modelMachine), []);
});

test('a model that is retired drains its pools, and again with another deadline', (t) => {
  t.like(step('Active', { type: 'model.retire', deadline_ms: 500 }), {
    state: 'Retired',
    facts: [{ type: 'pools.drain', deadline_ms: 500 }],
  });
  t.like(step('Retired', { type: 'model.retire', deadline_ms: 0 }), {
    state: 'Retired',
    facts: [{ type: 'pools.drain', deadline_ms: 0 }],
  });
});

test('one that is taken back opens them again, once', (t) => {
  t.like(step('Retired', { type: 'model.activate' }), { state: 'Active', facts: [{ type: 'pools.reopen' }] });
  t.like(step('Active', { type: 'model.activate' }), { state: 'Active', facts: [] });
});
