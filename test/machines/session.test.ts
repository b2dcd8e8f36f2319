import test from 'ava';
import fc from 'fast-check';
import { createActor } from 'xstate';
import { createRecordStepper } from '../../src/machines/record-step.ts';
import {
  SESSION_EVENTS,
  sessionMachine,
  type SessionContext,
  type SessionEvent,
  type SessionFact,
  type SessionState,
} from '../../src/machines/session.ts';
import { NOTHING_SPENT } from '../../src/scheduling/budget.ts';
import { SimulatedClock } from '../helpers/simulated-clock.ts';
import { handledEvents, statesOf, undescribed, walk } from '../helpers/machine-walk.ts';

const INPUT = { at: 0 };
const SPENT = { tokens: 7, time_ms: 40, cost: 0.000014 };
const WARMTH = { pool_id: 'p', replica_id: 'p/r0', kv_bytes: 4096 };

const stepper = createRecordStepper<typeof sessionMachine, SessionFact>(sessionMachine, INPUT);

const ACCEPT: SessionEvent = { type: 'session.accept', at: 1, reserve: 64 };
const READOPT: SessionEvent = { type: 'session.readopt', at: 1, reserve: 64 };
const RELEASE: SessionEvent = { type: 'session.release', at: 2, reserve: 64 };
const SETTLE: SessionEvent = { type: 'session.settle', at: 3, reserve: 64, spent: SPENT };
const WARM: SessionEvent = { type: 'session.warm', ...WARMTH };
const UNLOAD: SessionEvent = { type: 'session.cool', failover: false };
const FAILOVER: SessionEvent = { type: 'session.cool', failover: true };
const TOUCH: SessionEvent = { type: 'session.touch', at: 4 };
const EXPIRE: SessionEvent = { type: 'session.expire' };
const EXHAUST: SessionEvent = { type: 'session.exhaust' };
const DELETE: SessionEvent = { type: 'session.delete' };

const EVENTS = [ACCEPT, READOPT, RELEASE, SETTLE, WARM, UNLOAD, FAILOVER, TOUCH, EXPIRE, EXHAUST, DELETE];

function run(...events: SessionEvent[]): {
  state: SessionState;
  context: SessionContext;
  facts: SessionFact[];
} {
  let { state, context } = stepper.begin(INPUT);
  const facts: SessionFact[] = [];
  for (const event of events) {
    const next = stepper.step({ state, context }, event);
    ({ state, context } = next);
    facts.push(...next.facts);
  }
  return { state, context, facts };
}

test('handles exactly the events it declares', (t) => {
  t.deepEqual(handledEvents(sessionMachine), [...SESSION_EVENTS].toSorted());
});

test('describes every state', (t) => {
  t.deepEqual(undescribed(sessionMachine), []);
});

test('begins with nothing, or with what it had before a restart', (t) => {
  t.deepEqual(stepper.begin({ at: 5 }).context, {
    turns: 0,
    running: 0,
    reserved_tokens: 0,
    spent: NOTHING_SPENT,
    last_seen_at: 5,
    warmth: undefined,
  });
  t.like(stepper.begin({ at: 5, turns: 3, spent: SPENT }).context, { turns: 3, spent: SPENT });
});

test('an accepted task counts a turn and reserves; its end gives back and charges', (t) => {
  t.like(run(ACCEPT, ACCEPT).context, { turns: 2, running: 2, reserved_tokens: 128, last_seen_at: 1 });
  t.like(run(ACCEPT, ACCEPT, SETTLE).context, {
    turns: 2,
    running: 1,
    reserved_tokens: 64,
    spent: SPENT,
    last_seen_at: 3,
  });
});

test('a task that was not admitted after all leaves neither turn nor reservation nor charge', (t) => {
  t.like(run(ACCEPT, RELEASE).context, { turns: 0, running: 0, reserved_tokens: 0, spent: NOTHING_SPENT });
});

test('a task of before a restart reserves again and counts no turn', (t) => {
  t.like(run(READOPT).context, { turns: 0, running: 1, reserved_tokens: 64 });
});

test('cannot expire while a task is unfinished, but can be deleted', (t) => {
  t.is(run(ACCEPT, EXPIRE).state, 'open');
  t.is(run(ACCEPT, SETTLE, EXPIRE).state, 'closed');
  t.is(run(ACCEPT, DELETE).state, 'closed');
});

test('tells once that it is closed, why, and where its cache is', (t) => {
  t.deepEqual(run(WARM, EXPIRE, DELETE).facts, [
    { type: 'session.closed', reason: 'expired', warmth: WARMTH },
  ]);
  t.deepEqual(run(DELETE).facts, [{ type: 'session.closed', reason: 'deleted', warmth: undefined }]);
  t.deepEqual(run(EXHAUST).facts, [{ type: 'session.closed', reason: 'turns', warmth: undefined }]);
});

test('a failover makes it cold and its budgets anew, an unload makes it cold only', (t) => {
  t.like(run(ACCEPT, WARM, SETTLE, FAILOVER).context, { warmth: undefined, spent: NOTHING_SPENT });
  t.like(run(ACCEPT, WARM, SETTLE, UNLOAD).context, { warmth: undefined, spent: SPENT });
  t.like(run(ACCEPT, WARM, FAILOVER).context, { running: 1, reserved_tokens: 64 });
});

test('every state is reached, and each step keeps the invariants', (t) => {
  const { steps, reached } = walk(sessionMachine, {
    input: INPUT,
    events: ({ context }) =>
      EVENTS.filter(
        ({ type }) =>
          (context as SessionContext).turns + (context as SessionContext).running < 4 ||
          (type !== 'session.accept' && type !== 'session.readopt'),
      ),
    key: ({ turns, running, warmth }: SessionContext) => [turns, running, warmth?.replica_id],
  });
  t.deepEqual([...reached].filter((id) => id !== 'session').toSorted(), statesOf(sessionMachine).toSorted());
  for (const { from, to, event } of steps) {
    const before = from.context as SessionContext;
    const after = to.context as SessionContext;
    const name = `${String(from.value)} + ${event.type} → ${String(to.value)}`;
    t.is(after.reserved_tokens, after.running * 64, `${name}: reserved by tasks that run, and by no others`);
    t.true(after.running >= 0 && after.turns >= 0, `${name}: counts`);
    t.true(after.spent.tokens >= 0, `${name}: spent`);
    if (to.value === 'closed') t.is(after.warmth, undefined, `${name}: a cache is left`);
    if (event.type === 'session.expire' && before.running > 0) t.is(to.value, 'open', name);
    const mayCount = event.type === 'session.accept' || event.type === 'session.release';
    if (!mayCount) t.is(after.turns, before.turns, `${name}: turns`);
  }
});

test('whatever happens in whatever order, it closes once, and nothing moves it afterwards', (t) => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...EVENTS), { maxLength: 20 }), (events) => {
      const end = run(...events);
      t.is(end.facts.length, end.state === 'closed' ? 1 : 0);
      if (end.state === 'closed') for (const event of EVENTS) t.deepEqual(run(...events, event), end);
    }),
  );
});

test('a record steps as the actor of the same machine does', (t) => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...EVENTS), { maxLength: 12 }), (events) => {
      const emitted: SessionFact[] = [];
      const actor = createActor(sessionMachine, { input: INPUT, clock: new SimulatedClock() });
      actor.on('*', (fact) => emitted.push(fact));
      actor.start();
      for (const event of events) if (actor.getSnapshot().status === 'active') actor.send(event);
      const record = run(...events);
      t.deepEqual(actor.getSnapshot().value, record.state);
      t.deepEqual(actor.getSnapshot().context, record.context);
      t.deepEqual(emitted, record.facts);
      actor.stop();
    }),
    { numRuns: 60 },
  );
});
