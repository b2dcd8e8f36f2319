import test from 'ava';
import { TaskQueue, type Priority, type Queued, type QueueRules } from '../../src/scheduling/queue.ts';

interface Item extends Queued {
  name: string;
}

let sequence = 0;
const item = (priority: Priority, name = '', expected_tokens = 0): Item => ({
  name,
  priority,
  sequence: sequence++,
  expected_tokens,
});

const queueOf = (
  rules: Partial<QueueRules>,
  ...waiting: Item[]
): { queue: TaskQueue<Item>; waiting: Item[] } => {
  const queue = new TaskQueue<Item>({ capacity: waiting.length, policy: 'reject', ...rules });
  for (const one of waiting) queue.enqueue(one);
  return { queue, waiting };
};

/** Names of the tasks, `i…` interactive and `b…` batch, as they enter the queue. */
const named = (names: string): Item[] =>
  names
    .split(' ')
    .filter((name) => name !== '')
    .map((name) => item(name.startsWith('i') ? 'interactive' : 'batch', name));

const orderOf = (queue: TaskQueue<Item>): string => [...queue].map(({ name }) => name).join(' ');

const answer = (rules: Partial<QueueRules>, waiting: string, newcomer: Priority): string => {
  const { queue } = queueOf(rules, ...named(waiting));
  const said = queue.admit(newcomer);
  switch (said.kind) {
    case 'accept':
      return 'accept';
    case 'evict':
      return `${said.victim.name} goes: ${said.code} ${said.policy}`;
    case 'refuse':
      return `${said.code} ${said.policy}`;
  }
};

test('reject: a full queue refuses everybody', (t) => {
  t.is(answer({ policy: 'reject' }, 'b1 i1', 'interactive'), 'ADMISSION_REJECT reject');
  t.is(answer({ policy: 'reject' }, 'b1 i1', 'batch'), 'ADMISSION_REJECT reject');
  t.is(answer({ policy: 'reject', capacity: 3 }, 'b1 i1', 'batch'), 'accept');
});

test('drop-lru: the oldest batch task goes, else the oldest interactive one', (t) => {
  const rules = { policy: 'drop-lru' } as const;
  t.is(answer(rules, 'i1 b1 b2', 'interactive'), 'b1 goes: QUEUE_FULL_DROP_LRU drop-lru');
  t.is(answer(rules, 'i1 b1 b2', 'batch'), 'b1 goes: QUEUE_FULL_DROP_LRU drop-lru');
  t.is(answer(rules, 'i1 i2', 'interactive'), 'i1 goes: QUEUE_FULL_DROP_LRU drop-lru');
});

test('drop-lru: a batch newcomer is refused where only interactive tasks wait', (t) => {
  t.is(answer({ policy: 'drop-lru' }, 'i1 i2', 'batch'), 'QUEUE_FULL_DROP_LRU drop-lru');
});

test('shed-low-priority: the newest batch task makes room for an interactive one, and for nobody else', (t) => {
  const rules = { policy: 'shed-low-priority' } as const;
  t.is(answer(rules, 'b1 b2 i1', 'interactive'), 'b2 goes: ADMISSION_REJECT shed-low-priority');
  t.is(answer(rules, 'b1 b2 i1', 'batch'), 'ADMISSION_REJECT shed-low-priority');
  t.is(answer(rules, 'i1 i2', 'interactive'), 'ADMISSION_REJECT shed-low-priority');
});

test('a full class follows the policy within the class', (t) => {
  const classes = { interactive: { capacity: 2 }, batch: { capacity: 1 } };
  const within = (policy: QueueRules['policy'], newcomer: Priority): string =>
    answer({ policy, capacity: 10, classes }, 'b1 i1 i2', newcomer);
  t.is(within('reject', 'batch'), 'ADMISSION_REJECT reject');
  t.is(within('drop-lru', 'batch'), 'b1 goes: QUEUE_FULL_DROP_LRU drop-lru');
  t.is(within('drop-lru', 'interactive'), 'i1 goes: QUEUE_FULL_DROP_LRU drop-lru');
  t.is(within('shed-low-priority', 'interactive'), 'ADMISSION_REJECT shed-low-priority');
  t.is(within('shed-low-priority', 'batch'), 'ADMISSION_REJECT shed-low-priority');
});

test('a refusal says how many may wait where there was no room', (t) => {
  const { queue } = queueOf({ capacity: 3, classes: { batch: { capacity: 1 } } }, ...named('b1 i1'));
  t.like(queue.admit('batch'), { kind: 'refuse', capacity: 1 });
  queue.reserve('interactive');
  t.like(queue.admit('interactive'), { kind: 'refuse', capacity: 3 });
});

test('a promised place counts as taken, and nobody can be evicted from it', (t) => {
  const { queue } = queueOf({ capacity: 1, policy: 'drop-lru' });
  queue.reserve('batch', 30);
  t.is(queue.admit('interactive').kind, 'refuse');
  t.is(queue.admit('batch').kind, 'refuse');
  t.deepEqual(queue.workAheadOfNewcomer('batch'), { tasks: 1, tokens: 30 });
  t.is(queue.positionOfNewcomer('interactive'), 0);
  queue.release('batch', 30);
  t.is(queue.admit('batch').kind, 'accept');
  t.deepEqual(queue.workAheadOfNewcomer('batch'), { tasks: 0, tokens: 0 });
  t.throws(() => queue.release('batch'), { message: /no place was promised/ });
});

test('an item waits in one place only, and another queue does not know it', (t) => {
  const { queue, waiting } = queueOf({ capacity: 4 }, ...named('b1'));
  const [b1] = waiting as [Item];
  const { queue: other } = queueOf({ capacity: 4 });
  t.throws(() => queue.enqueue(b1), { message: /one place/ });
  t.throws(() => other.returnToFront(b1), { message: /one place/ });
  t.false(other.remove(b1));
  t.is(other.positionOf(b1), undefined);
  t.is(queue.positionOf(b1), 0);
});

test('who comes back goes before all that were admitted later, whoever comes back first', (t) => {
  const { queue, waiting } = queueOf({ capacity: 4 }, ...named('b1 b2 b3 b4'));
  const [b1, b2] = waiting as [Item, Item];
  queue.dispatch(b1);
  queue.dispatch(b2);
  queue.returnToFront(b1);
  queue.returnToFront(b2);
  t.is(orderOf(queue), 'b1 b2 b3 b4');
});

test('a queue that is over its capacity because tasks came back does not grow', (t) => {
  const { queue, waiting } = queueOf({ capacity: 2, policy: 'drop-lru' }, ...named('b1 b2'));
  const [b1] = waiting as [Item];
  queue.dispatch(b1);
  queue.enqueue(item('batch', 'b3'));
  queue.returnToFront(b1);
  t.is(queue.length, 3);
  const said = queue.admit('interactive');
  t.is(said.kind === 'evict' ? said.victim : undefined, b1);
});

const weights = (interactive: number, batch: number): QueueRules['classes'] => ({
  interactive: { weight: interactive },
  batch: { weight: batch },
});

test('interactive goes first, unless both classes have a weight', (t) => {
  const names = 'b1 b2 b3 i1 i2 i3';
  const order = (classes: QueueRules['classes']): string =>
    orderOf(queueOf({ classes }, ...named(names)).queue);
  t.is(order({}), 'i1 i2 i3 b1 b2 b3');
  t.is(order({ batch: { weight: 8 } }), 'i1 i2 i3 b1 b2 b3');
  t.is(order(weights(1, 1)), 'i1 b1 i2 b2 i3 b3');
  t.is(order(weights(2, 1)), 'i1 i2 b1 i3 b2 b3');
  t.is(order(weights(1, 2)), 'b1 i1 b2 b3 i2 i3');
});

test('while both classes wait, each gets its share of the slots', (t) => {
  const { queue } = queueOf({ capacity: 1000, classes: weights(8, 1) });
  for (let i = 0; i < 200; i++) {
    queue.enqueue(item('interactive'));
    queue.enqueue(item('batch'));
  }
  const served = { interactive: 0, batch: 0 };
  for (let i = 0; i < 90; i++) {
    const [next] = queue.take(1) as [Item];
    queue.dispatch(next);
    served[next.priority]++;
  }
  t.deepEqual(served, { interactive: 80, batch: 10 });
});

test('a class that was away has saved nothing up', (t) => {
  const { queue } = queueOf({ capacity: 1000, classes: weights(1, 1) });
  for (let i = 0; i < 50; i++) queue.enqueue(item('interactive', `i${i}`));
  for (const one of queue.take(40)) queue.dispatch(one);
  for (const one of named('b1 b2')) queue.enqueue(one);
  t.is(orderOf(queue).slice(0, 17), 'i40 b1 i41 b2 i42');
});

test('the work ahead is that of the tasks ahead', (t) => {
  const { queue, waiting } = queueOf(
    { capacity: 9 },
    item('batch', 'b1', 100),
    item('interactive', 'i1', 10),
    item('batch', 'b2', 50),
  );
  const [b1, i1, b2] = waiting as [Item, Item, Item];
  t.deepEqual(queue.workAhead(i1), { tasks: 0, tokens: 0 });
  t.deepEqual(queue.workAhead(b1), { tasks: 1, tokens: 10 });
  t.deepEqual(queue.workAhead(b2), { tasks: 2, tokens: 110 });
  t.deepEqual(queue.workAheadOfNewcomer('batch'), { tasks: 3, tokens: 160 });
  t.deepEqual(queue.workAheadOfNewcomer('interactive'), { tasks: 1, tokens: 10 });
  queue.remove(b1);
  t.deepEqual(queue.workAhead(b1), { tasks: 0, tokens: 0 });
  t.deepEqual(queue.workAheadOfNewcomer('batch'), { tasks: 2, tokens: 60 });
});

test('with weights, as many of the other class go before a newcomer as really would, promised ones too', (t) => {
  const { queue } = queueOf(
    { capacity: 20, classes: weights(1, 1) },
    item('batch', 'b1', 30),
    item('batch', 'b2', 10),
    item('interactive', 'i1', 5),
  );
  for (let i = 0; i < 3; i++) queue.reserve('interactive', 7);
  t.deepEqual(queue.workAheadOfNewcomer('batch'), { tasks: 2 + 3, tokens: 40 + 5 + 2 * 7 });
  t.deepEqual(queue.workAheadOfNewcomer('interactive'), { tasks: 4 + 2, tokens: 5 + 3 * 7 + 40 });
});
