import test from 'ava';
import { createActor } from 'xstate';
import { taskMachine, type TaskActor } from '../../src/machines/task.ts';
import type { TaskEvent, TaskFact, TaskRules } from '../../src/machines/task-protocol.ts';
import { SimulatedClock } from '../helpers/simulated-clock.ts';

const RULES: TaskRules = {
  max_attempts: 2,
  max_continuations: 1,
  metrics_period_ms: 1_000_000,
  first_token_ms: 20_000,
  idle_ms: 5000,
  wall_ms: undefined,
};
const USAGE = { tokens_in: 4, tokens_cached: 0, tokens_out: 7 };

interface Flight {
  actor: TaskActor;
  clock: SimulatedClock;
  facts: TaskFact[];
  state: () => string;
  outcome: () => unknown;
  /** When the machine asked for a sign of life. */
  checks: number[];
  /** The engine gives one. */
  hear: () => void;
  send: (event: Partial<TaskEvent> & { type: TaskEvent['type'] }) => void;
}

/** An actor whose owner answers as the real one does; the task was admitted at 0. */
function fly(rules: Partial<TaskRules> = {}, deadline_ms = 10_000_000, placed_at = 0): Flight {
  const clock = new SimulatedClock();
  const facts: TaskFact[] = [];
  const checks: number[] = [];
  let heard_at = placed_at;
  const actor = createActor(taskMachine, {
    clock,
    input: {
      id: 't',
      at: 0,
      queue_position: 0,
      predicted_start_ms: 0,
      deadline_ms,
      rules: { ...RULES, ...rules },
    },
  });
  const send: Flight['send'] = (event) =>
    actor.send({ at: clock.now(), usage: USAGE, ...event } as unknown as TaskEvent);
  actor.on('*', (fact) => {
    facts.push(fact);
    if (fact.type === 'run.check') {
      checks.push(clock.now());
      send({ type: 'engine.quiet', quiet_ms: clock.now() - heard_at });
    }
    if (fact.type === 'run.overdue') send({ type: 'task.expire', overdue: fact.overdue });
  });
  actor.start();
  clock.advance(placed_at);
  send({ type: 'task.place', lease: 1, replica_id: 'p/r0', continuable: true });
  return {
    actor,
    clock,
    facts,
    checks,
    send,
    state: () => actor.getSnapshot().value,
    outcome: () => actor.getSnapshot().context.outcome,
    hear: () => (heard_at = clock.now()),
  };
}

const types = ({ facts }: Flight): string[] => facts.map(({ type }) => type);

test('a task that waits expires when it is told to, with its deadline as the reason', (t) => {
  for (const before of [[], ['task.provision']] as TaskEvent['type'][][]) {
    const clock = new SimulatedClock();
    const actor = createActor(taskMachine, {
      clock,
      input: { id: 't', at: 0, queue_position: 0, predicted_start_ms: 0, deadline_ms: 100, rules: RULES },
    });
    const facts: string[] = [];
    actor.on('*', ({ type }) => facts.push(type));
    actor.start();
    for (const type of before) actor.send({ type, at: 1 } as TaskEvent);
    t.is(clock.pending, 0, 'one that waits has no timer of its own');
    actor.send({ type: 'task.expire', at: 100, overdue: 'deadline' });
    t.is(actor.getSnapshot().value, 'error');
    t.deepEqual(facts.slice(-2), ['log.error', 'task.closed']);
    t.false(facts.includes('engine.abort'));
    t.like(actor.getSnapshot().context, {
      outcome: { kind: 'failed', overdue: 'deadline', failure: { code: 'DEADLINE_UNMET' } },
      times: { ended: 100 },
    });
  }
});

for (const phase of ['placed', 'streaming'] as const)
  test(`a deadline that passes while the task is ${phase} ends its run, at that moment`, (t) => {
    const flight = fly({}, 4000, 1000);
    if (phase === 'streaming') flight.send({ type: 'engine.streamed' });
    flight.clock.advance(2999);
    t.is(flight.state(), phase);
    flight.clock.advance(1);
    t.is(flight.state(), 'error');
    t.like(flight.outcome(), {
      overdue: 'deadline',
      failure: { code: 'DEADLINE_UNMET', message: 'the deadline of 4000 ms has passed' },
    });
    t.deepEqual(types(flight).slice(-3), ['engine.abort', 'log.error', 'task.closed']);
    t.is(flight.clock.pending, 0);
  });

test('a task whose deadline has passed before it is placed ends in the next turn of the clock', (t) => {
  const flight = fly({}, 4000, 5000);
  flight.clock.advance(0);
  t.is(flight.state(), 'error');
});

test('the longest run ends it before its deadline does, as a timeout of the engine', (t) => {
  const flight = fly({ wall_ms: 3000 }, 10_000, 1000);
  flight.send({ type: 'engine.streamed' });
  flight.clock.advance(2999);
  t.is(flight.state(), 'streaming');
  flight.clock.advance(1);
  t.like(flight.outcome(), {
    overdue: 'wall',
    failure: { code: 'DECODE_TIMEOUT', message: 'the run took longer than 3000 ms' },
  });
});

test('where deadline and longest run end together, the deadline is the reason', (t) => {
  const flight = fly({ wall_ms: 3000 }, 4000, 1000);
  flight.clock.advance(3000);
  t.like(flight.outcome(), { overdue: 'deadline' });
});

test('the time of a run is that of all its parts: what was lost counts', (t) => {
  const flight = fly({ wall_ms: 3000 });
  flight.send({ type: 'engine.streamed' });
  flight.clock.advance(2000);
  const { context } = flight.actor.getSnapshot();
  const clock = new SimulatedClock();
  clock.advance(2500);
  const again = createActor(taskMachine, {
    clock,
    input: undefined as never,
    snapshot: taskMachine.resolveState({ value: 'admitted', context }),
  });
  const told: TaskFact[] = [];
  again.on('run.overdue', (fact) => told.push(fact));
  again.start();
  again.send({ type: 'task.place', at: 2500, lease: 2, replica_id: 'p/r0', continuable: true });
  clock.advance(499);
  t.deepEqual(told, []);
  clock.advance(1);
  t.deepEqual(told, [{ type: 'run.overdue', overdue: 'wall' }]);
});

test('an engine that never says anything is given up after the first-token allowance, not the idle one', (t) => {
  const flight = fly();
  flight.clock.advance(19_999);
  t.deepEqual(flight.checks, []);
  flight.clock.advance(1);
  t.is(flight.state(), 'error');
  t.like(flight.outcome(), {
    overdue: 'first token',
    failure: {
      code: 'DECODE_TIMEOUT',
      message: 'the engine gave no sign of life for 20000 ms',
      retriable: true,
    },
  });
  t.deepEqual(types(flight).slice(-3), ['engine.abort', 'log.error', 'task.closed']);
  t.is(flight.actor.getSnapshot().context.times.ended, 20_000);
});

test('progress of the prefill is a sign of life: the check is due again that long after the last of them', (t) => {
  const flight = fly();
  flight.clock.advance(15_000);
  flight.hear();
  flight.clock.advance(5000);
  t.deepEqual(flight.checks, [20_000]);
  t.is(flight.state(), 'placed');
  flight.clock.advance(14_999);
  t.deepEqual(flight.checks, [20_000]);
  flight.clock.advance(1);
  t.deepEqual(flight.checks, [20_000, 35_000]);
  t.is(flight.state(), 'error');
});

test('between tokens the idle allowance holds, from the last token on', (t) => {
  const flight = fly();
  flight.clock.advance(1000);
  flight.hear();
  flight.send({ type: 'engine.streamed' });
  for (let token = 0; token < 20; token++) {
    flight.clock.advance(1500);
    flight.hear();
  }
  t.is(flight.state(), 'streaming');
  t.is(flight.checks.length, 6, 'a token costs no timer');
  flight.clock.advance(4999);
  t.is(flight.state(), 'streaming');
  flight.clock.advance(1);
  t.is(flight.state(), 'error');
  t.like(flight.outcome(), {
    overdue: 'idle',
    failure: { code: 'DECODE_TIMEOUT', message: 'the engine gave no token for 5000 ms' },
  });
  t.deepEqual(flight.actor.getSnapshot().context.usage, USAGE);
});

test('the first token replaces the check of before it', (t) => {
  const flight = fly({ idle_ms: 60_000 });
  flight.clock.advance(19_999);
  flight.hear();
  flight.send({ type: 'engine.streamed' });
  flight.clock.advance(59_999);
  t.deepEqual(flight.checks, []);
  flight.clock.advance(1);
  t.deepEqual(flight.checks, [79_999]);
});

test('no timer is left once the task waits again, ends or fails', (t) => {
  for (const [type, more] of [
    ['engine.finished', { reason: 'eos' }],
    ['task.cancel', { reason: 'client' }],
    ['task.fail', { failure: { code: 'INTERNAL', message: '', retriable: false } }],
  ] as const)
    for (const isStreaming of [false, true]) {
      const flight = fly({ wall_ms: 50_000, metrics_period_ms: 1000 });
      if (isStreaming) flight.send({ type: 'engine.streamed' });
      t.true(flight.clock.pending > 0);
      flight.send({ type, ...more } as never);
      t.is(flight.clock.pending, 0);
    }
});

test('a deadline beyond what a timer holds is not due at once', (t) => {
  const flight = fly({}, 365 * 24 * 3_600_000);
  flight.send({ type: 'engine.streamed' });
  flight.clock.advance(4000);
  t.is(flight.state(), 'streaming');
});
