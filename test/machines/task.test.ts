import test from 'ava';
import fc from 'fast-check';
import { createActor } from 'xstate';
import { failure } from '../../src/errors.ts';
import { createRecordStepper } from '../../src/machines/record-step.ts';
import { isOver, taskMachine, type TaskState } from '../../src/machines/task.ts';
import {
  TASK_EVENTS,
  type TaskContext,
  type TaskEvent,
  type TaskFact,
} from '../../src/machines/task-protocol.ts';
import { SimulatedClock } from '../helpers/simulated-clock.ts';
import { handledEvents, statesOf, undescribed, walk } from '../helpers/machine-walk.ts';

const INPUT = {
  id: 't',
  at: 0,
  queue_position: 3,
  predicted_start_ms: 420,
  deadline_ms: 60_000,
  rules: {
    max_attempts: 2,
    max_continuations: 1,
    metrics_period_ms: 1000,
    first_token_ms: 20_000,
    idle_ms: 5000,
    wall_ms: 40_000,
  },
};
const USAGE = { tokens_in: 4, tokens_cached: 0, tokens_out: 7 };
const NONE = { tokens_in: 4, tokens_cached: 0, tokens_out: 0 };
const RESET = failure('WORKER_RESET', 'the engine died');

const stepper = createRecordStepper<typeof taskMachine, TaskFact>(taskMachine, INPUT);

const EVENTS: TaskEvent[] = [
  { type: 'task.provision', at: 1 },
  { type: 'task.wait' },
  { type: 'task.place', at: 2, lease: 9, replica_id: 'p/r0', continuable: true },
  { type: 'task.cancel', at: 3, reason: 'client' },
  { type: 'task.fail', at: 3, failure: failure('DEADLINE_UNMET', 'too late') },
  { type: 'engine.streamed', at: 4 },
  { type: 'engine.finished', at: 5, reason: 'eos', usage: USAGE },
  { type: 'engine.failed', at: 5, failure: RESET, usage: USAGE },
  { type: 'engine.failed', at: 5, failure: RESET, usage: NONE },
  { type: 'engine.failed', at: 5, failure: failure('INVALID_PARAMS', 'too long'), usage: NONE },
  { type: 'task.expire', at: 6, overdue: 'deadline', usage: USAGE },
  { type: 'engine.quiet', at: 6, quiet_ms: 10_000, usage: USAGE },
  { type: 'engine.quiet', at: 6, quiet_ms: 20_000, usage: USAGE },
  { type: 'engine.declined', at: 5, failure: failure('ADMISSION_REJECT', 'busy'), usage: NONE },
];
type Nine = [
  TaskEvent,
  TaskEvent,
  TaskEvent,
  TaskEvent,
  TaskEvent,
  TaskEvent,
  TaskEvent,
  TaskEvent,
  TaskEvent,
];
const [PROVISION, WAIT, PLACE, CANCEL, FAIL, STREAMED, FINISHED, LOST_LATE, LOST_EARLY] =
  EVENTS as unknown as Nine;
const BROKEN = EVENTS[9] as TaskEvent;
/** On an engine that nothing can go on from. */
const FOREIGN: TaskEvent = { type: 'task.place', at: 2, lease: 9, replica_id: 'p/r0', continuable: false };
const SUSPEND: TaskEvent = { type: 'task.suspend' };
/** A suspended task runs again in another process only, so walks that count its runs leave it out. */
const ALL = [...EVENTS, SUSPEND];

function run(events: readonly TaskEvent[]): {
  state: TaskState;
  context: TaskContext;
  facts: readonly TaskFact[];
} {
  let { state, context, facts } = stepper.begin(INPUT);
  for (const event of events) {
    const next = stepper.step({ state, context }, event);
    ({ state, context } = next);
    facts = [...facts, ...next.facts];
  }
  return { state, context, facts };
}

const types = (facts: readonly TaskFact[]): string[] => facts.map((fact) => fact.type);

test('handles exactly the events it declares', (t) => {
  t.deepEqual(handledEvents(taskMachine), [...TASK_EVENTS].toSorted());
});

test('describes every state, and has the states of the contract', (t) => {
  t.deepEqual(undescribed(taskMachine), []);
  t.deepEqual(
    statesOf(taskMachine).map((id) => id.replace('task.', '')),
    ['admitted', 'provisioning', 'placed', 'streaming', 'ended', 'error'],
  );
});

test('logs its start first, with the place it was admitted to in its context', (t) => {
  const { facts, context } = stepper.begin(INPUT);
  t.deepEqual(facts, [{ type: 'log.started' }]);
  t.like(context, { queue_position: 3, predicted_start_ms: 420 });
});

test('a task that runs to its end logs metrics, then the end', (t) => {
  const { state, facts, context } = run([PLACE, STREAMED, FINISHED]);
  t.is(state, 'ended');
  t.deepEqual(types(facts), ['log.started', 'engine.start', 'log.metrics', 'log.end', 'task.closed']);
  t.deepEqual(context.times, { admitted: 0, placed: 2, first_token: 4, ended: 5 });
  t.deepEqual(context.usage, USAGE);
});

test('a cancel while queued never touches an engine', (t) => {
  t.deepEqual(types(run([CANCEL]).facts), ['log.started', 'log.end', 'task.closed']);
});

test('a cancel in flight aborts the engine and logs no more metrics', (t) => {
  t.deepEqual(types(run([PLACE, STREAMED, CANCEL]).facts), [
    'log.started',
    'engine.start',
    'engine.abort',
    'log.end',
    'task.closed',
  ]);
});

test('a run that died before its first token waits again, until its attempts are spent', (t) => {
  const first = run([PLACE, LOST_EARLY]);
  t.is(first.state, 'admitted');
  t.is(first.context.lease, undefined);
  t.deepEqual(types(first.facts), ['log.started', 'engine.start', 'task.requeued']);
  const second = run([PLACE, LOST_EARLY, PLACE, LOST_EARLY]);
  t.is(second.state, 'error');
});

test('an engine that takes no runs costs no attempt, unless it goes on for longer than a first token may take', (t) => {
  const declined = (at: number): TaskEvent => ({
    type: 'engine.declined',
    at,
    failure: failure('POOL_UNAVAILABLE', 'loading'),
    usage: NONE,
  });
  const once = run([PLACE, declined(10)]);
  t.is(once.state, 'admitted');
  t.like(once.context, { attempts: 0, lease: undefined });
  t.deepEqual(types(once.facts), ['log.started', 'engine.start', 'task.requeued']);
  const often = Array.from({ length: 10 }, (_, i) => [PLACE, declined(10 + i)]).flat();
  t.is(run(often).state, 'admitted');
  t.is(run([...often, PLACE, declined(20_010)]).state, 'admitted');
  const tooLong = run([...often, PLACE, declined(20_010), PLACE, declined(20_020)]);
  t.is(tooLong.state, 'error');
  t.like(tooLong.context.outcome, { failure: { code: 'POOL_UNAVAILABLE' } });
  const { context } = run([...often, PLACE, STREAMED, LOST_LATE, PLACE, declined(30_000)]);
  t.is(context.attempts, 1);
});

test('a failure that would repeat is not tried again', (t) => {
  t.is(run([PLACE, BROKEN]).state, 'error');
});

test('a run that was lost after its first token goes on with another one, which says so before anything else', (t) => {
  const lost = run([PLACE, STREAMED, LOST_LATE]);
  t.is(lost.state, 'admitted');
  t.like(lost.context, { continuations: 1, lease: undefined, replica_id: undefined, usage: USAGE });
  t.deepEqual(types(lost.facts).slice(-1), ['task.requeued']);
  const { state, facts, context } = run([PLACE, STREAMED, LOST_LATE, PLACE, STREAMED, FINISHED]);
  t.is(state, 'ended');
  t.deepEqual(types(facts), [
    'log.started',
    'engine.start',
    'task.requeued',
    'log.resumed',
    'engine.start',
    'log.metrics',
    'log.end',
    'task.closed',
  ]);
  t.is(context.attempts, 2);
  t.deepEqual(context.times, { admitted: 0, placed: 2, first_token: 4, ended: 5 });
});

test('only a run that goes on after tokens says that it was resumed', (t) => {
  for (const events of [[PLACE], [PROVISION, PLACE], [PLACE, LOST_EARLY, PLACE], [PLACE, SUSPEND, PLACE]])
    t.false(types(run(events).facts).includes('log.resumed'));
  for (const events of [
    [PLACE, STREAMED, LOST_LATE, PLACE],
    [PLACE, STREAMED, SUSPEND, PLACE],
    [PLACE, STREAMED, LOST_LATE, PROVISION, PLACE],
  ])
    t.is(types(run(events).facts).filter((type) => type === 'log.resumed').length, 1);
});

test('a run is not gone on with where it may not be, where its failure would repeat, or too often', (t) => {
  for (const events of [
    [FOREIGN, STREAMED, LOST_LATE],
    [PLACE, STREAMED, BROKEN],
    [PLACE, STREAMED, LOST_LATE, PLACE, STREAMED, LOST_LATE],
    [PLACE, STREAMED, LOST_LATE, FOREIGN, STREAMED, LOST_LATE],
  ]) {
    const { state, facts, context } = run(events);
    t.is(state, 'error');
    t.is(types(facts).at(-2), 'log.error');
    t.is(context.outcome?.kind, 'failed');
  }
});

test('a continuation that dies before it says anything is an attempt like any other', (t) => {
  t.is(run([PLACE, STREAMED, LOST_LATE, PLACE, LOST_EARLY]).state, 'error', 'both attempts are used');
  t.is(
    run([PLACE, LOST_EARLY, PLACE, STREAMED, LOST_LATE]).state,
    'admitted',
    'tokens are worth another one',
  );
});

test('a task that is suspended lets its engine go, waits again, and its log says nothing of it', (t) => {
  for (const before of [[PLACE], [PLACE, STREAMED]]) {
    const { state, context, facts } = run([...before, SUSPEND]);
    t.is(state, 'admitted');
    t.is(context.lease, undefined);
    t.is(context.outcome, undefined);
    t.deepEqual(types(facts).slice(-2), ['engine.abort', 'task.suspended']);
    t.deepEqual(
      types(run([...before, SUSPEND, LOST_LATE, FINISHED, STREAMED]).facts),
      types(facts),
      'what its run still says concerns nobody',
    );
  }
  for (const before of [[], [PROVISION]])
    t.deepEqual(types(run([...before, SUSPEND]).facts), types(run(before).facts), 'a task that waits, waits');
});

test('a task that was next in line and is not any more waits as before, and keeps when it first was', (t) => {
  const { state, context, facts } = run([
    PROVISION,
    WAIT,
    { type: 'task.provision', at: 9 },
    { type: 'task.wait' },
  ]);
  t.is(state, 'admitted');
  t.is(context.times.provisioning, 1);
  t.deepEqual(types(facts), ['log.started']);
});

test('nothing moves a task that is over, and nothing is asked of anybody', (t) => {
  for (const end of [
    [CANCEL],
    [FAIL],
    [PLACE, FINISHED],
    [PLACE, STREAMED, FINISHED],
    [PLACE, STREAMED, CANCEL],
  ]) {
    const over = run(end);
    t.true(isOver(over.state));
    for (const event of [...ALL, { type: 'metrics.due' }, { type: 'check.due' }, { type: 'overdue.due' }])
      t.like(stepper.step(over, event), { state: over.state, context: over.context, facts: [] });
  }
});

test('every state is reached, and each step keeps the invariants', (t) => {
  const { steps, reached } = walk(taskMachine, {
    input: INPUT,
    events: () => EVENTS,
    key: (context: TaskContext) => [
      context.attempts,
      context.continuations,
      context.lease,
      context.times.first_token,
      context.outcome?.kind,
    ],
  });
  t.deepEqual([...reached].filter((id) => id !== 'task').toSorted(), statesOf(taskMachine).toSorted());
  for (const { from, to, event } of steps) {
    const context = to.context as TaskContext;
    const name = `${String(from.value)} + ${event.type} → ${String(to.value)}`;
    const isInFlight = to.value === 'placed' || to.value === 'streaming';
    if (isInFlight) t.not(context.lease, undefined, `${name}: no lease`);
    if (!isInFlight && !isOver(to.value as TaskState))
      t.is(context.lease, undefined, `${name}: a lease is left`);
    t.is(isOver(to.value as TaskState), context.outcome !== undefined, `${name}: outcome`);
    t.true(
      context.attempts <= INPUT.rules.max_attempts + INPUT.rules.max_continuations,
      `${name}: too many attempts`,
    );
  }
});

test('whatever happens in whatever order, one terminal event is logged, and it is the last', (t) => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...ALL), { maxLength: 20 }), (events) => {
      const { state, facts } = run(events);
      const terminal = facts.filter((fact) => fact.type === 'log.end' || fact.type === 'log.error');
      t.is(terminal.length, isOver(state) ? 1 : 0);
      const lastLog = facts.findLast((fact) => fact.type.startsWith('log.'));
      if (isOver(state)) t.is(lastLog, terminal[0]);
      t.is(facts.filter((fact) => fact.type === 'task.closed').length, terminal.length);
    }),
  );
});

test('a record steps as the actor of the same machine does', (t) => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...ALL), { maxLength: 12 }), (events) => {
      const emitted: TaskFact[] = [];
      const actor = createActor(taskMachine, { input: INPUT, clock: new SimulatedClock() });
      actor.on('*', (fact) => emitted.push(fact));
      actor.start();
      for (const event of events) if (actor.getSnapshot().status === 'active') actor.send(event);
      const record = run(events);
      t.deepEqual(actor.getSnapshot().value, record.state);
      t.deepEqual(actor.getSnapshot().context, record.context);
      t.deepEqual(types(emitted), types(record.facts));
      actor.stop();
    }),
    { numRuns: 60 },
  );
});

test('metrics are due once a period while tokens flow, and not after', (t) => {
  const clock = new SimulatedClock();
  const actor = createActor(taskMachine, { input: INPUT, clock });
  let due = 0;
  actor.on('log.metrics', () => due++);
  actor.start();
  actor.send(PLACE);
  clock.advance(5000);
  t.is(due, 0);
  actor.send(STREAMED);
  t.is(due, 0);
  clock.advance(3000);
  t.is(due, 3);
  actor.send(CANCEL);
  clock.advance(10_000);
  t.is(due, 3);
});
