import test from 'ava';
import fc from 'fast-check';
import { TaskQueue, type Priority, type Queued } from '../../src/scheduling/queue.ts';

interface Item extends Queued {
  name: number;
  priority: Priority;
}

/** The same queue as two arrays: slow and plainly right. */
class Model {
  lines: Record<Priority, Item[]> = { interactive: [], batch: [] };
  get order(): Item[] {
    return [...this.lines.interactive, ...this.lines.batch];
  }
}

const CAPACITY = 6;

type Real = { queue: TaskQueue<Item>; all: Item[] };

class Enqueue implements fc.Command<Model, Real> {
  readonly priority: Priority;
  constructor(priority: Priority) {
    this.priority = priority;
  }
  check(): boolean {
    return true;
  }
  run(model: Model, { queue, all }: Real): void {
    const item: Item = { name: all.length, priority: this.priority };
    all.push(item);
    const isFull = model.order.length >= CAPACITY;
    if (queue.isFull !== isFull) throw new Error('isFull differs');
    if (isFull) return;
    const expected = this.priority === 'interactive' ? model.lines.interactive.length : model.order.length;
    if (queue.positionOfNewcomer(this.priority) !== expected) throw new Error('position differs');
    queue.enqueue(item);
    model.lines[this.priority].push(item);
  }
  toString(): string {
    return `enqueue ${this.priority}`;
  }
}

class Remove implements fc.Command<Model, Real> {
  readonly pick: number;
  constructor(pick: number) {
    this.pick = pick;
  }
  check(): boolean {
    return true;
  }
  run(model: Model, { queue, all }: Real): void {
    const item = all[this.pick % Math.max(1, all.length)];
    if (!item) return;
    const line = model.lines[item.priority];
    const was = line.includes(item);
    model.lines[item.priority] = line.filter((other) => other !== item);
    if (queue.remove(item) !== was) throw new Error('remove differs');
    if (queue.remove(item)) throw new Error('removed twice');
  }
  toString(): string {
    return `remove ${this.pick}`;
  }
}

class Return implements fc.Command<Model, Real> {
  check(model: Model): boolean {
    return model.order.length > 0;
  }
  run(model: Model, { queue }: Real): void {
    const first = model.order[0] as Item;
    queue.remove(first);
    queue.returnToFront(first);
  }
  toString(): string {
    return 'take the first and return it';
  }
}

test('behaves as two plain lists: FIFO per class, interactive first, bounded, nothing lost', (t) => {
  const commands = [
    fc.constantFrom<Priority>('interactive', 'batch').map((priority) => new Enqueue(priority)),
    fc.nat(30).map((pick) => new Remove(pick)),
    fc.constant(new Return()),
  ];
  fc.assert(
    fc.property(fc.commands(commands, { maxCommands: 60 }), (sequence) => {
      const model = new Model();
      const real: Real = { queue: new TaskQueue<Item>(CAPACITY), all: [] };
      fc.modelRun(() => ({ model, real }), sequence);
      t.deepEqual(
        [...real.queue].map((item) => item.name),
        model.order.map((item) => item.name),
      );
      t.is(real.queue.length, model.order.length);
      for (const [position, item] of model.order.entries()) t.is(real.queue.positionOf(item), position);
      t.deepEqual(real.queue.take(2), model.order.slice(0, 2));
    }),
  );
});

test('a promised place counts as taken until it is released', (t) => {
  const queue = new TaskQueue<Item>(1);
  queue.reserve('batch');
  t.true(queue.isFull);
  t.is(queue.positionOfNewcomer('batch'), 1);
  t.is(queue.positionOfNewcomer('interactive'), 0);
  queue.release('batch');
  t.false(queue.isFull);
});

test('an item cannot wait in two places', (t) => {
  const queue = new TaskQueue<Item>(4);
  const item: Item = { name: 1, priority: 'batch' };
  queue.enqueue(item);
  t.throws(() => queue.enqueue(item), { message: /one place/ });
});
