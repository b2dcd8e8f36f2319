import type { Priority } from '../contract/generated/types.ts';
import { ClassOrder } from './class-order.ts';
import { Line, type Queued, type WorkAhead } from './line.ts';

export type { Priority, Queued, WorkAhead };
export const PRIORITIES = ['interactive', 'batch'] as const satisfies readonly Priority[];

/** What happens to a newcomer when the queue is full; see {@link TaskQueue.admit}. */
export type FullPolicy = 'reject' | 'drop-lru' | 'shed-low-priority';

export interface ClassRules {
  /** Tasks of this class that may wait; the queue's capacity when left out. */
  capacity?: number | undefined;
  /** Share of the slots while both classes wait, a whole number of at least 1. Counts only where both have one. */
  weight?: number | undefined;
}

export interface QueueRules {
  /** Tasks that may wait, both classes together; at least 1. */
  capacity: number;
  policy: FullPolicy;
  classes?: { readonly [P in Priority]?: ClassRules | undefined } | undefined;
}

export type QueueAnswer<T> =
  | { kind: 'accept' }
  /** The newcomer takes the place of `victim`, who ends with this code. */
  | { kind: 'evict'; victim: T; code: RefusalCode; policy: FullPolicy }
  /** `capacity` is how many may wait where there was no room: in the class, or in the whole queue. */
  | { kind: 'refuse'; code: RefusalCode; policy: FullPolicy; capacity: number };

type RefusalCode = 'ADMISSION_REJECT' | 'QUEUE_FULL_DROP_LRU';

/**
 * The waiting tasks of a pool: FIFO within a class; between the classes `interactive` first, or by weight where both
 * have one. Enqueue, removal from any place and return to the front are O(1).
 */
export class TaskQueue<T extends Queued> {
  /** Tasks that may wait, both classes together. */
  readonly capacity: number;
  readonly policy: FullPolicy;
  readonly #capacities: Record<Priority, number>;
  readonly #lines: Record<Priority, Line<T>> = { interactive: new Line(), batch: new Line() };
  readonly #promised: Record<Priority, WorkAhead> = {
    interactive: { tasks: 0, tokens: 0 },
    batch: { tasks: 0, tokens: 0 },
  };
  readonly #order: ClassOrder;

  constructor({ capacity, policy, classes = {} }: QueueRules) {
    this.capacity = capacity;
    this.policy = policy;
    const { interactive, batch } = classes;
    this.#capacities = {
      interactive: Math.min(capacity, interactive?.capacity ?? capacity),
      batch: Math.min(capacity, batch?.capacity ?? capacity),
    };
    this.#order = new ClassOrder(
      interactive?.weight !== undefined && batch?.weight !== undefined
        ? { interactive: interactive.weight, batch: batch.weight }
        : undefined,
    );
  }

  /** Tasks that wait; places that are only promised are not counted. */
  get length(): number {
    return this.#lines.interactive.length + this.#lines.batch.length;
  }

  /** Whether nobody waits, and nobody has been promised a place. */
  get isEmpty(): boolean {
    return PRIORITIES.every((priority) => this.#taken(priority) === 0);
  }

  /** What waits, all together; places that are only promised are not counted. */
  get work(): WorkAhead {
    const { interactive, batch } = this.#lines;
    return { tasks: this.length, tokens: interactive.tokens + batch.tokens };
  }

  /** The task that was accepted first of all that wait. */
  get oldest(): T | undefined {
    const { interactive, batch } = this.#lines;
    const [one, other] = [interactive.first, batch.first];
    return one && other ? (one.sequence < other.sequence ? one : other) : (one ?? other);
  }

  lengthOf(priority: Priority): number {
    return this.#lines[priority].length;
  }

  /**
   * What a newcomer of this class would meet; changes nothing. Where the queue, or the class's part of it, is full:
   * - `reject`: the newcomer is refused.
   * - `drop-lru`: the task that has waited longest goes, of `batch` while one waits, else of `interactive`. A batch
   *   newcomer is refused where only interactive tasks wait: it would be worth the least.
   * - `shed-low-priority`: an interactive newcomer takes the place of the newest batch task, which has waited least.
   *   Everybody else is refused; no interactive task goes.
   *
   * Where the class is full, only a task of that class makes room. A promised place makes none. A queue may hold more
   * than its capacity, since who comes back is not refused: then it does not grow, but whoever goes is replaced.
   */
  admit(priority: Priority): QueueAnswer<T> {
    const isClassFull = this.#taken(priority) >= this.#capacities[priority];
    const isFull = this.#taken('interactive') + this.#taken('batch') >= this.capacity;
    if (!isClassFull && !isFull) return { kind: 'accept' };
    const { policy } = this;
    const code = policy === 'drop-lru' ? 'QUEUE_FULL_DROP_LRU' : 'ADMISSION_REJECT';
    const victim = isClassFull ? this.#victimWithin(priority) : this.#victimFor(priority);
    if (victim) return { kind: 'evict', victim, code, policy };
    const capacity = isClassFull ? this.#capacities[priority] : this.capacity;
    return { kind: 'refuse', code, policy, capacity };
  }

  /**
   * Promises a place to a task whose admission is being written down; `release` ends the promise. The place counts
   * as taken, and nobody can be evicted from it.
   * @param expected_tokens of that task, so that who comes after it is told a fair start
   */
  reserve(priority: Priority, expected_tokens = 0): void {
    this.#promised[priority].tasks++;
    this.#promised[priority].tokens += expected_tokens;
  }

  /** @param expected_tokens as it was reserved with */
  release(priority: Priority, expected_tokens = 0): void {
    const promised = this.#promised[priority];
    if (promised.tasks === 0) throw new Error('no place was promised');
    promised.tasks--;
    promised.tokens = promised.tasks === 0 ? 0 : promised.tokens - expected_tokens;
  }

  /** Never refuses: ask `admit` first, unless the task was accepted long ago. */
  enqueue(item: T): void {
    this.#lines[item.priority].append(item);
  }

  /** For a task whose run was given up: it goes before all of its class that were admitted after it. */
  returnToFront(item: T): void {
    this.#lines[item.priority].return(item);
  }

  /**
   * For a task that is over, or goes elsewhere.
   * @returns whether it was waiting here
   */
  remove(item: T): boolean {
    return this.#lines[item.priority].remove(item);
  }

  /**
   * For a task that gets a slot: its class has had a turn.
   * @returns whether it was waiting here
   */
  dispatch(item: T): boolean {
    if (!this.remove(item)) return false;
    if (this.#lines[otherThan(item.priority)].length > 0) this.#order.served(item.priority);
    return true;
  }

  /** Tasks that go before a newcomer of this class: 0 means next. O(1). */
  positionOfNewcomer(priority: Priority): number {
    return this.workAheadOfNewcomer(priority).tasks;
  }

  /** Tasks that go before this one: 0 means next. Undefined where it does not wait here. */
  positionOf(item: T): number | undefined {
    return this.#lines[item.priority].has(item) ? this.workAhead(item).tasks : undefined;
  }

  /**
   * What goes before a newcomer of this class, promised places included. O(1). Never less than what goes before a
   * waiting task of its class. Where classes have weights, the tokens of the other class are its mean.
   */
  workAheadOfNewcomer(priority: Priority): WorkAhead {
    const line = this.#lines[priority];
    const promised = this.#promised[priority];
    const other = otherThan(priority);
    const tasks = line.length + promised.tasks;
    const passing = this.#passing(priority, tasks);
    const waiting = part(this.#lines[other].length, this.#lines[other].tokens, passing);
    const coming = part(this.#promised[other].tasks, this.#promised[other].tokens, passing - waiting.tasks);
    return {
      tasks: tasks + waiting.tasks + coming.tasks,
      tokens: line.tokens + promised.tokens + waiting.tokens + coming.tokens,
    };
  }

  /** What goes before this one; nothing where it does not wait here. Walks to the nearer end of its class. */
  workAhead(item: T): WorkAhead {
    const line = this.#lines[item.priority];
    if (!line.has(item)) return { tasks: 0, tokens: 0 };
    const own = line.ahead(item);
    const other = this.#lines[otherThan(item.priority)];
    const passing = part(other.length, other.tokens, this.#passing(item.priority, own.tasks));
    return { tasks: own.tasks + passing.tasks, tokens: own.tokens + passing.tokens };
  }

  /** As they would be dispatched now. Do not change the queue while iterating: take what you need first. */
  *[Symbol.iterator](): IterableIterator<T> {
    const interactive = this.#lines.interactive[Symbol.iterator]();
    const batch = this.#lines.batch[Symbol.iterator]();
    let nextInteractive = interactive.next();
    let nextBatch = batch.next();
    const taken = { interactive: 0, batch: 0 };
    while (!nextInteractive.done || !nextBatch.done) {
      const isInteractive =
        !nextInteractive.done &&
        (nextBatch.done === true || taken.interactive < this.#order.interactiveBefore(taken.batch));
      if (isInteractive) {
        yield nextInteractive.value;
        taken.interactive++;
        nextInteractive = interactive.next();
      } else {
        yield nextBatch.value;
        taken.batch++;
        nextBatch = batch.next();
      }
    }
  }

  /**
   * The first so many in the order of dispatch.
   * @param before only those that were accepted before this place in the order of all admissions
   */
  take(count: number, before = Infinity): T[] {
    const taken: T[] = [];
    if (count > 0)
      for (const item of this) {
        if (item.sequence >= before) continue;
        taken.push(item);
        if (taken.length >= count) break;
      }
    return taken;
  }

  #taken(priority: Priority): number {
    return this.#lines[priority].length + this.#promised[priority].tasks;
  }

  /** How many of the other class pass a task with so many of its own class before it. */
  #passing(priority: Priority, rank: number): number {
    return priority === 'interactive' ? this.#order.batchBefore(rank) : this.#order.interactiveBefore(rank);
  }

  #victimFor(priority: Priority): T | undefined {
    const { interactive, batch } = this.#lines;
    switch (this.policy) {
      case 'reject':
        return undefined;
      case 'drop-lru':
        return batch.first ?? (priority === 'interactive' ? interactive.first : undefined);
      case 'shed-low-priority':
        return priority === 'interactive' ? batch.last : undefined;
    }
  }

  #victimWithin(priority: Priority): T | undefined {
    return this.policy === 'drop-lru' ? this.#lines[priority].first : undefined;
  }
}

function otherThan(priority: Priority): Priority {
  return priority === 'interactive' ? 'batch' : 'interactive';
}

/** The share that the first so many have in the work of all. */
function part(tasks: number, tokens: number, count: number): WorkAhead {
  if (count >= tasks) return { tasks, tokens };
  return { tasks: count, tokens: (tokens * count) / tasks };
}
