import test from 'ava';
import { createActor, fromPromise, waitFor } from 'xstate';
import { failure, TaskchartError } from '../../src/errors.ts';
import {
  PROVISIONER_EVENTS,
  provisionerMachine,
  type PreparedModel,
  type ProvisionerContext,
  type ProvisionerFact,
  type ResolvedModel,
} from '../../src/machines/provisioner.ts';
import { handledEvents, statesOf, undescribed, walk } from '../helpers/machine-walk.ts';

const HERE: ResolvedModel = { id: 'm', path: '/m.gguf', present: true };
const PREPARED: PreparedModel = { id: 'm', path: '/m.gguf', size_bytes: 7, verification: 'warn' };

async function provision(script: {
  present: boolean;
  needs_engine?: boolean;
  failing?: 'ensure' | 'resolve' | 'fetch' | 'verify';
}): Promise<{ facts: ProvisionerFact[]; calls: string[] }> {
  const calls: string[] = [];
  const step = <T>(name: string, result: T) =>
    fromPromise(async () => {
      calls.push(name);
      if (script.failing === name) throw new TaskchartError(failure('POOL_UNAVAILABLE', `${name} failed`));
      return result;
    });
  const actor = createActor(
    provisionerMachine.provide({
      actors: {
        ensureEngine: step('ensure', undefined) as never,
        resolveModel: step('resolve', { ...HERE, present: script.present }) as never,
        fetchModel: step('fetch', HERE) as never,
        verifyModel: step('verify', PREPARED) as never,
      },
    }),
    { input: { model_ref: 'm', needs_engine: script.needs_engine ?? false } },
  );
  const facts: ProvisionerFact[] = [];
  actor.on('*', (fact) => facts.push(fact));
  actor.start();
  await waitFor(actor, (snapshot) => snapshot.status === 'done');
  return { facts, calls };
}

test('handles exactly the events it declares, and describes every state', (t) => {
  t.deepEqual(handledEvents(provisionerMachine), [...PROVISIONER_EVENTS].toSorted());
  t.deepEqual(undescribed(provisionerMachine), []);
});

test('does not fetch a model that is here', async (t) => {
  const { facts, calls } = await provision({ present: true });
  t.deepEqual(calls, ['resolve', 'verify']);
  t.deepEqual(facts, [{ type: 'model.prepared', model: PREPARED }]);
});

test('fetches one that is not, and verifies what came', async (t) => {
  t.deepEqual((await provision({ present: false })).calls, ['resolve', 'fetch', 'verify']);
});

test('an engine that has to be brought here comes before the model', async (t) => {
  const { calls } = await provision({ present: true, needs_engine: true });
  t.deepEqual(calls, ['ensure', 'resolve', 'verify']);
});

for (const failing of ['ensure', 'resolve', 'fetch', 'verify'] as const)
  test(`tells the cause when it fails to ${failing}`, async (t) => {
    const { facts } = await provision({ present: false, needs_engine: failing === 'ensure', failing });
    t.deepEqual(facts, [{ type: 'model.failed', failure: failure('POOL_UNAVAILABLE', `${failing} failed`) }]);
  });

test('every state is reached, and each end has its result', (t) => {
  const { reached, steps } = walk(provisionerMachine, {
    input: { model_ref: 'm', needs_engine: true },
    events: () => [
      { type: 'provisioner.cancel' },
      { type: 'xstate.done.actor.ensure' } as { type: string },
      ...['ensure', 'resolve', 'fetch', 'verify'].map((id) => ({
        type: `xstate.error.actor.${id}`,
        error: new Error('no'),
      })),
      { type: 'xstate.done.actor.resolve', output: HERE } as { type: string },
      { type: 'xstate.done.actor.resolve', output: { ...HERE, present: false } } as { type: string },
      { type: 'xstate.done.actor.fetch', output: HERE } as { type: string },
      { type: 'xstate.done.actor.verify', output: PREPARED } as { type: string },
    ],
    key: (context: ProvisionerContext) => [context.resolved?.present, context.failure !== undefined],
  });
  // These only decide: the walk sees where they lead.
  t.deepEqual(
    statesOf(provisionerMachine).filter((id) => !reached.has(id)),
    ['provisioner.beginning', 'provisioner.locating'],
  );
  for (const { to } of steps) {
    const context = to.context as ProvisionerContext;
    if (to.value === 'prepared') t.deepEqual(context.prepared, PREPARED);
    if (to.value === 'failed') t.not(context.failure, undefined);
  }
});
