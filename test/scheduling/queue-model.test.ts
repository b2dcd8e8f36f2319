import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { newRates, predictStart } from '../../src/scheduling/estimate.ts';
import {
  PRIORITIES,
  TaskQueue,
  type FullPolicy,
  type Priority,
  type Queued,
  type QueueRules,
} from '../../src/scheduling/queue.ts';

interface Item extends Queued {
  fate: 'new' | 'waiting' | 'canceled' | 'served' | 'evicted' | 'refused';
}

interface Settings {
  capacity: number;
  policy: FullPolicy;
  capacities: Record<Priority, number>;
  weights: Record<Priority, number> | undefined;
}

/** The same queue as two arrays and a walk through them: slow and plainly right. */
class Model {
  readonly settings: Settings;
  readonly lines: Record<Priority, Item[]> = { interactive: [], batch: [] };
  readonly promised: Record<Priority, number[]> = { interactive: [], batch: [] };
  lead = 0;
  /** Tasks that came back to a queue without asking whether there was room. */
  returned = 0;

  constructor(settings: Settings) {
    this.settings = settings;
  }

  get order(): Item[] {
    const interactive = [...this.lines.interactive];
    const batch = [...this.lines.batch];
    const order: Item[] = [];
    let { lead } = this;
    while (interactive.length > 0 && batch.length > 0) {
      const next = this.#next(lead);
      order.push((next === 'interactive' ? interactive : batch).shift() as Item);
      lead = this.#after(lead, next);
    }
    return [...order, ...interactive, ...batch];
  }

  taken(priority: Priority): number {
    return this.lines[priority].length + this.promised[priority].length;
  }

  /** Who makes room for a newcomer: nobody has to, nobody can, or this one. */
  victim(priority: Priority): Item | 'room' | 'none' {
    const { policy, capacity, capacities } = this.settings;
    const { interactive, batch } = this.lines;
    const isClassFull = this.taken(priority) >= Math.min(capacity, capacities[priority]);
    if (!isClassFull && this.taken('interactive') + this.taken('batch') < capacity) return 'room';
    if (policy === 'reject') return 'none';
    if (policy === 'shed-low-priority')
      return (priority === 'interactive' && !isClassFull && batch.at(-1)) || 'none';
    if (isClassFull) return this.lines[priority][0] ?? 'none';
    return batch[0] ?? (priority === 'interactive' ? interactive[0] : undefined) ?? 'none';
  }

  leave(item: Item): void {
    const line = this.lines[item.priority];
    line.splice(line.indexOf(item), 1);
  }

  serve(item: Item): void {
    this.leave(item);
    if (this.lines[item.priority === 'batch' ? 'interactive' : 'batch'].length > 0)
      this.lead = this.#after(this.lead, item.priority);
  }

  #next(lead: number): Priority {
    const { weights } = this.settings;
    return !weights || lead + weights.batch <= weights.interactive ? 'interactive' : 'batch';
  }

  #after(lead: number, served: Priority): number {
    const { weights } = this.settings;
    if (!weights) return 0;
    const after = served === 'interactive' ? lead + weights.batch : lead - weights.interactive;
    return Math.min(weights.interactive, Math.max(1 - weights.batch, after));
  }
}

interface Real {
  t: ExecutionContext;
  queue: TaskQueue<Item>;
  all: Item[];
}

type Step = (model: Model, real: Real) => void;

/** A step, followed by every invariant. */
function command(name: string, step: Step): fc.Command<Model, Real> {
  return {
    check: () => true,
    run: (model, real) => {
      step(model, real);
      checkInvariants(model, real);
    },
    toString: () => name,
  };
}

/** Items are linked to each other: compared by value, each would be the whole queue. */
function names(items: Iterable<Item>): string {
  return Array.from(items, ({ sequence }) => sequence).join(' ');
}

function pickOf(items: readonly Item[], pick: number): Item | undefined {
  return items[pick % Math.max(1, items.length)];
}

const enqueue = (priority: Priority, expected_tokens: number): fc.Command<Model, Real> =>
  command(`enqueue ${priority}`, (model, { t, queue, all }) => {
    const item: Item = { priority, sequence: all.length, expected_tokens, fate: 'new' };
    all.push(item);
    const before = [...queue];
    const victim = model.victim(priority);
    const answer = queue.admit(priority);
    t.is(names(queue), names(before), 'a look changes nothing');
    t.is(answer.kind, victim === 'room' ? 'accept' : victim === 'none' ? 'refuse' : 'evict');
    if (answer.kind === 'refuse') return void (item.fate = 'refused');
    if (answer.kind === 'evict') {
      t.true(answer.victim === victim);
      queue.remove(answer.victim);
      model.leave(answer.victim);
      answer.victim.fate = 'evicted';
    }
    const told = queue.workAheadOfNewcomer(priority);
    queue.enqueue(item);
    model.lines[priority].push(item);
    item.fate = 'waiting';
    const waiting = queue.workAhead(item);
    t.true(waiting.tasks <= told.tasks, 'it never stands further back than it was told');
    if (model.promised.interactive.length + model.promised.batch.length === 0)
      t.is(waiting.tasks, told.tasks);
  });

const cancel = (pick: number): fc.Command<Model, Real> =>
  command(`cancel ${pick}`, (model, { t, queue, all }) => {
    const item = pickOf(all, pick);
    if (!item) return;
    const before = [...queue];
    const positions = new Map(before.map((one) => [one, queue.positionOf(one) as number]));
    const wasWaiting = item.fate === 'waiting';
    t.is(queue.remove(item), wasWaiting);
    t.false(queue.remove(item), 'a second cancel finds nothing');
    t.false(queue.dispatch(item), 'and it is never served');
    if (!wasWaiting) return;
    model.leave(item);
    item.fate = 'canceled';
    const own = positions.get(item) as number;
    for (const one of queue) {
      const was = positions.get(one) as number;
      const is = queue.positionOf(one) as number;
      t.true(is <= was);
      if (!model.settings.weights) t.is(is, was > own ? was - 1 : was);
      if (was < own) t.is(is, was, 'those before it notice nothing');
    }
  });

const serve = (pick: number): fc.Command<Model, Real> =>
  command(`serve ${pick}`, (model, { t, queue, all }) => {
    const order = [...queue];
    // Mostly the next one; now and then another, as a pool whose dispatch was overtaken by a newcomer does.
    const item = pick < 20 ? order[0] : pickOf(order, pick);
    if (!item) return;
    t.true(queue.dispatch(item));
    t.false(queue.dispatch(item), 'no task is served twice');
    model.serve(item);
    item.fate = 'served';
    if (item === order[0]) t.is(names(queue), names(order.slice(1)), 'everybody moves up by one');
    t.true(all.includes(item));
  });

const giveBack = (pick: number): fc.Command<Model, Real> =>
  command(`return ${pick}`, (model, { queue, all }) => {
    const item = pickOf(
      all.filter(({ fate }) => fate === 'served'),
      pick,
    );
    if (!item) return;
    queue.returnToFront(item);
    const line = model.lines[item.priority];
    line.push(item);
    line.sort((a, b) => a.sequence - b.sequence);
    item.fate = 'waiting';
    model.returned++;
  });

const reserve = (priority: Priority, tokens: number): fc.Command<Model, Real> =>
  command(`reserve ${priority}`, (model, { queue }) => {
    if (queue.admit(priority).kind !== 'accept') return;
    queue.reserve(priority, tokens);
    model.promised[priority].push(tokens);
  });

const release = (priority: Priority): fc.Command<Model, Real> =>
  command(`release ${priority}`, (model, { queue }) => {
    const tokens = model.promised[priority].shift();
    if (tokens !== undefined) queue.release(priority, tokens);
  });

const START = {
  rates: newRates(),
  slots_total: 2,
  slots_free: 0,
  until_ready_ms: 0,
  running: () => [40, 90],
};

function checkInvariants(model: Model, { t, queue, all }: Real): void {
  const { order } = model;
  const { capacity, capacities, weights } = model.settings;
  t.is(names(queue), names(order), 'the order of dispatch');
  t.is(queue.length, order.length);
  t.is(names(queue.take(3)), names(order.slice(0, 3)));
  t.is(
    names(order.toSorted((a, b) => a.sequence - b.sequence)),
    names(all.filter(({ fate }) => fate === 'waiting')),
    'nobody is lost',
  );

  t.true(model.taken('interactive') + model.taken('batch') <= capacity + model.returned, 'bounded');
  for (const priority of PRIORITIES) {
    const line = order.filter((item) => item.priority === priority);
    t.is(queue.lengthOf(priority), line.length);
    t.true(model.taken(priority) <= capacities[priority] + model.returned);
    t.is(names(line), names(line.toSorted((a, b) => a.sequence - b.sequence)), 'first in, first out');
    const ahead = line.map((item) => queue.workAhead(item));
    ahead.push(queue.workAheadOfNewcomer(priority));
    for (const [i, { tasks, tokens }] of ahead.entries()) {
      const before = ahead[i - 1];
      if (!before) continue;
      t.true(tasks > before.tasks || (i === line.length && tasks >= before.tasks), 'positions grow');
      t.true(tokens >= before.tokens - 1e-9, 'work ahead grows');
      t.true(
        predictStart({ ...START, ahead: { tasks, tokens } }) >= predictStart({ ...START, ahead: before }),
      );
    }
  }
  let tokens = 0;
  for (const [position, item] of order.entries()) {
    t.is(queue.positionOf(item), position);
    t.is(queue.positionOf(item), position, 'a second look says the same');
    if (!weights) t.is(queue.workAhead(item).tokens, tokens);
    tokens += item.expected_tokens;
  }
  for (const item of all) if (item.fate !== 'waiting') t.is(queue.positionOf(item), undefined);
}

const priority = fc.constantFrom(...PRIORITIES);
const commands = fc.commands(
  [
    fc.tuple(priority, fc.nat(500)).map(([of, tokens]) => enqueue(of, tokens)),
    fc.tuple(priority, fc.nat(500)).map(([of, tokens]) => enqueue(of, tokens)),
    fc.nat(40).map(cancel),
    fc.nat(24).map(serve),
    fc.nat(40).map(giveBack),
    fc.tuple(priority, fc.nat(500)).map(([of, tokens]) => reserve(of, tokens)),
    priority.map(release),
  ],
  { maxCommands: 60, size: '+1' },
);

const weight = fc.integer({ min: 1, max: 9 });
const settings: fc.Arbitrary<Settings> = fc.record({
  capacity: fc.integer({ min: 1, max: 8 }),
  policy: fc.constantFrom<FullPolicy>('reject', 'drop-lru', 'shed-low-priority'),
  capacities: fc.record({
    interactive: fc.integer({ min: 1, max: 8 }),
    batch: fc.integer({ min: 1, max: 8 }),
  }),
  weights: fc.option(fc.record({ interactive: weight, batch: weight }), { nil: undefined }),
});

const rulesOf = ({ capacity, policy, capacities, weights }: Settings): QueueRules => ({
  capacity,
  policy,
  classes: {
    interactive: { capacity: capacities.interactive, weight: weights?.interactive },
    batch: { capacity: capacities.batch, weight: weights?.batch },
  },
});

test('behaves as two plain lists, whatever the policy, the capacities and the weights', (t) => {
  fc.assert(
    fc.property(settings, commands, (chosen, sequence) => {
      const real: Real = { t, queue: new TaskQueue<Item>(rulesOf(chosen)), all: [] };
      fc.modelRun(() => ({ model: new Model(chosen), real }), sequence);
    }),
    { numRuns: 300 },
  );
  t.pass();
});

test('with weights neither class starves, however many of the other keep coming', (t) => {
  fc.assert(
    fc.property(weight, weight, fc.array(priority, { maxLength: 40 }), priority, (wi, wb, past, waiting) => {
      const queue = new TaskQueue<Item>({
        capacity: 1000,
        policy: 'reject',
        classes: { interactive: { weight: wi }, batch: { weight: wb } },
      });
      let sequence = 0;
      const add = (of: Priority): Item => {
        const item: Item = { priority: of, sequence: sequence++, expected_tokens: 1, fate: 'waiting' };
        queue.enqueue(item);
        return item;
      };
      for (const of of past) {
        add(of);
        add(of === 'batch' ? 'interactive' : 'batch');
        queue.dispatch(queue.take(1)[0] as Item);
      }
      for (const item of queue.take(queue.length)) queue.remove(item);
      const patient = add(waiting);
      const other: Priority = waiting === 'batch' ? 'interactive' : 'batch';
      const bound = waiting === 'batch' ? Math.ceil(wi / wb) : Math.ceil(wb / wi);
      let passed = 0;
      for (;;) {
        add(other);
        const [next] = queue.take(1) as [Item];
        if (next === patient) break;
        queue.dispatch(next);
        passed++;
        t.true(passed <= bound, `${passed} passed with weights ${wi}:${wb}`);
      }
    }),
    { numRuns: 300 },
  );
  t.pass();
});
