import test from 'ava';
import { createActor, fromPromise, waitFor } from 'xstate';
import type { EngineHealth, EngineLoss, EngineProperties } from '../../src/engines/engine.ts';
import { failure, TaskchartError } from '../../src/errors.ts';
import { replicaMachine, type ReplicaActor } from '../../src/machines/replica.ts';
import {
  REPLICA_EVENTS,
  type ReplicaContext,
  type ReplicaFact,
} from '../../src/machines/replica-protocol.ts';
import { SimulatedClock } from '../helpers/simulated-clock.ts';
import { handledEvents, statesOf, undescribed, walk } from '../helpers/machine-walk.ts';

const PROPERTIES: EngineProperties = {
  engine_version: 'fake-1',
  ctx_max: 512,
  slots_total: 2,
  model_id: 'm',
  workloads: ['completion'],
  features: {
    chat: 'none',
    grammar: false,
    json_schema: false,
    resume: true,
    tokenizer: true,
    deterministic: true,
    kv_reuse: false,
  },
};
const RULE = {
  initial_ms: 1000,
  factor: 2,
  max_ms: 60_000,
  min_ms: 500,
  jitter: 0,
  device_factor: 2,
  stable_ms: 60_000,
  breaker_threshold: 3,
  breaker_open_ms: 300_000,
  trial_stable_ms: 30_000,
  max_restarts: 10,
  window_ms: 60_000,
};
const CRASH: EngineLoss = { cause: 'crash', message: 'exit code 139' };
const HEALTHY: EngineHealth = { live: true, ready: true };
const SICK: EngineHealth = { live: false, ready: false, message: 'refused' };

function start(
  script: {
    load?: () => Promise<EngineProperties>;
    health?: () => EngineHealth;
    decodes?: () => boolean;
  } = {},
): {
  actor: ReplicaActor;
  clock: SimulatedClock;
  facts: ReplicaFact[];
  unloads: () => number;
  reach: (state: string) => Promise<unknown>;
} {
  const clock = new SimulatedClock();
  let unloads = 0;
  const actor = createActor(
    replicaMachine.provide({
      actors: {
        loadEngine: fromPromise(script.load ?? (async () => PROPERTIES)),
        probeEngine: fromPromise(async () => script.health?.() ?? HEALTHY),
        proveEngine: fromPromise(async () => script.decodes?.() ?? true),
        unloadEngine: fromPromise<void>(async () => {
          unloads++;
        }),
      },
    }),
    {
      clock,
      input: {
        id: 'p/r0',
        restart: RULE,
        load_timeout_ms: 10_000,
        probe_interval_ms: 5000,
        probe_fail: 3,
        now: () => clock.now(),
        random: () => 0.5,
      },
    },
  );
  const facts: ReplicaFact[] = [];
  actor.on('*', (fact) => facts.push(fact));
  actor.start();
  actor.send({ type: 'replica.start' });
  return {
    actor,
    clock,
    facts,
    unloads: () => unloads,
    reach: (state) => waitFor(actor, (snapshot) => snapshot.matches(state as never)),
  };
}

test('handles exactly the events it declares, and describes every state', (t) => {
  t.deepEqual(handledEvents(replicaMachine), [...REPLICA_EVENTS].toSorted());
  t.deepEqual(undescribed(replicaMachine), []);
});

test('is ready only after it was loaded and one probe passed', async (t) => {
  const { reach, facts } = start();
  await reach('ready');
  t.deepEqual(facts, [{ type: 'replica.readied', properties: PROPERTIES }]);
});

test('a load that fails is tried again with a growing wait, until the budget is spent', async (t) => {
  let loads = 0;
  const { clock, reach, facts } = start({
    load: async () => {
      loads++;
      throw new TaskchartError(failure('POOL_UNAVAILABLE', 'no such model'));
    },
  });
  await reach('backing off');
  clock.advance(999);
  t.is(loads, 1);
  clock.advance(1);
  await reach('backing off');
  clock.advance(2000);
  await reach('broken');
  t.is(loads, 3);
  t.deepEqual(facts, [{ type: 'replica.broken', failure: failure('POOL_UNAVAILABLE', 'no such model') }]);
});

test('a load that takes too long counts as failed', async (t) => {
  const { clock, reach, actor } = start({ load: () => new Promise(() => {}) });
  clock.advance(10_000);
  await reach('backing off');
  t.is(actor.getSnapshot().context.last_error?.message, 'not loaded after 10000 ms');
});

test('a crash is told at once, cleared away, and the engine comes back', async (t) => {
  const { actor, clock, reach, facts, unloads } = start();
  await reach('ready');
  actor.send({ type: 'engine.lost', loss: CRASH });
  t.deepEqual(facts.at(-1), { type: 'replica.lost', loss: CRASH });
  await reach('backing off');
  t.is(unloads(), 1);
  clock.advance(1000);
  await reach('ready');
  t.is(facts.filter((fact) => fact.type === 'replica.readied').length, 2);
});

test('one failed probe is forgiven, three in a row are a loss', async (t) => {
  let health: EngineHealth = HEALTHY;
  const { actor, clock, reach, facts } = start({ health: () => health });
  await reach('ready');
  health = SICK;
  for (const failed of [1, 2]) {
    clock.advance(5000);
    await waitFor(
      actor,
      (s) => s.context.failed_probes === failed && s.matches({ ready: { health: 'serving' } }),
    );
  }
  t.is(facts.length, 1);
  clock.advance(5000);
  await reach('backing off');
  const last = facts.at(-1);
  t.is(last?.type === 'replica.lost' && last.loss.cause, 'unreachable');
});

test('is stopped from any state, and unloads what it has', async (t) => {
  const { actor, reach, facts, unloads } = start();
  await reach('ready');
  actor.send({ type: 'replica.stop' });
  await waitFor(actor, (snapshot) => snapshot.status === 'done');
  t.is(unloads(), 1);
  t.is(facts.at(-1)?.type, 'replica.stopped');
});

test('one that answers its probes and decodes nothing is found by one token, and replaced', async (t) => {
  let hears = true;
  const { actor, reach, facts } = start({ decodes: () => hears });
  await reach('ready');
  actor.send({ type: 'replica.suspect' });
  await waitFor(actor, (snapshot) => snapshot.matches({ ready: { health: 'serving' } }));
  t.is(facts.length, 1);
  hears = false;
  actor.send({ type: 'replica.suspect' });
  await reach('backing off');
  const last = facts.at(-1);
  t.is(last?.type === 'replica.lost' && last.loss.cause, 'deaf');
});

test('one whose engine takes no runs rests for as long as it asks, else longer each time, and is probed meanwhile', async (t) => {
  const { actor, clock, reach, facts } = start();
  await reach('ready');
  const isOpen = (): boolean => actor.getSnapshot().hasTag('open');
  actor.send({ type: 'run.declined', retry_after_ms: 2000 });
  t.true(actor.getSnapshot().hasTag('ready'));
  clock.advance(1999);
  t.false(isOpen());
  t.is(facts.length, 1);
  clock.advance(1);
  t.true(isOpen());
  t.deepEqual(facts.at(-1), { type: 'replica.rested' });
  for (const wait of [100, 200, 400, 800, 1000, 1000]) {
    actor.send({ type: 'run.declined' });
    clock.advance(wait - 1);
    t.false(isOpen());
    clock.advance(1);
    t.true(isOpen());
  }
  await waitFor(actor, (snapshot) => snapshot.matches({ ready: { health: 'serving' } }));
  t.true((actor.getSnapshot().context.healthy_at ?? 0) >= 5000);
  actor.send({ type: 'run.taken' });
  actor.send({ type: 'run.declined' });
  clock.advance(50);
  t.true(isOpen());
});

test('an engine that rests can still be lost', async (t) => {
  const { actor, reach, facts } = start();
  await reach('ready');
  actor.send({ type: 'run.declined', retry_after_ms: 2000 });
  actor.send({ type: 'engine.lost', loss: CRASH });
  t.deepEqual(facts.at(-1), { type: 'replica.lost', loss: CRASH });
});

test('an unload gives the engine back, keeps its cause apart, and the replica can be started again', async (t) => {
  const { actor, reach, facts, unloads } = start();
  await reach('ready');
  actor.send({ type: 'replica.unload', cause: 'swap' });
  await reach('idle');
  t.is(unloads(), 1);
  t.is(facts.at(-1)?.type, 'replica.unloaded');
  t.is(actor.getSnapshot().context.exit?.cause, 'swap');
  actor.send({ type: 'replica.start' });
  await reach('ready');
});

test('an engine that ends by itself with code 0 is not started again unasked', async (t) => {
  const { actor, clock, reach, facts } = start();
  await reach('ready');
  actor.send({ type: 'engine.lost', loss: { cause: 'exit', message: 'exit code 0', exit_code: 0 } });
  await reach('idle');
  t.deepEqual(
    facts.map(({ type }) => type),
    ['replica.readied', 'replica.lost', 'replica.unloaded'],
  );
  t.is(clock.pending, 0);
  t.is(actor.getSnapshot().context.history.failures, 0);
});

test('every state is reached, and readiness is told before any loss', (t) => {
  const done = (id: string, output?: unknown): { type: string; output: unknown } => ({
    type: `xstate.done.actor.${id}`,
    output,
  });
  const failed = (id: string): { type: string; error: unknown } => ({
    type: `xstate.error.actor.${id}`,
    error: new Error('no'),
  });
  let now = 0;
  const { reached, steps } = walk(replicaMachine, {
    input: {
      id: 'p/r0',
      restart: { ...RULE, breaker_threshold: 2 },
      load_timeout_ms: 1,
      probe_interval_ms: 1,
      probe_fail: 2,
      now: () => now++,
      random: () => 0.5,
    },
    events: () => [
      { type: 'replica.start' },
      { type: 'replica.stop' },
      { type: 'engine.lost', loss: CRASH } as { type: string },
      done('load', PROPERTIES),
      failed('load'),
      done('probe', HEALTHY),
      done('probe', SICK),
      failed('probe'),
      done('check', HEALTHY),
      done('check', SICK),
      done('clear'),
      { type: 'replica.suspect' },
      { type: 'run.declined' },
      { type: 'run.taken' },
      { type: 'xstate.after.rest.replica.ready.intake.resting' },
      { type: 'replica.unload', cause: 'swap' } as { type: string },
      { type: 'engine.lost', loss: { cause: 'exit', message: 'exit code 0' } } as { type: string },
      done('prove', true),
      done('prove', false),
      done('unload'),
      failed('unload'),
      done('stop'),
      { type: 'xstate.after.breakerOpen.replica.broken' },
      { type: 'xstate.after.loadTimeout.replica.loading' },
      { type: 'xstate.after.probeInterval.replica.ready.health.serving' },
      { type: 'xstate.after.backoff.replica.backing off' },
    ],
    key: (context: ReplicaContext) => [
      Math.min(2, context.failed_probes),
      Math.min(3, context.history.failures),
      context.trials > 0,
      context.properties !== undefined,
    ],
  });
  // These two only pass on: the walk sees where they lead.
  t.deepEqual(
    statesOf(replicaMachine).filter((id) => !reached.has(id)),
    ['replica.failed', 'replica.unloaded'],
  );
  for (const { to } of steps)
    if (to.hasTag('ready')) t.not((to.context as ReplicaContext).properties, undefined);
});
