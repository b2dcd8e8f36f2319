import type { Priority } from '../contract/generated/types.ts';

export type { Priority };
export const PRIORITIES = ['interactive', 'batch'] as const satisfies readonly Priority[];

/** What a queue needs to know of what waits in it. The links belong to the queue. */
export interface Queued {
  readonly priority: Priority;
  queue_links?: QueueLinks | undefined;
}

interface QueueLinks {
  previous: Queued | undefined;
  next: Queued | undefined;
}

interface Line {
  first: Queued | undefined;
  last: Queued | undefined;
  length: number;
}

/**
 * Two strict FIFO lines, `interactive` before `batch`. Enqueue, removal from any place and return to the front
 * are O(1): the links live in the items themselves.
 */
export class TaskQueue<T extends Queued> {
  readonly capacity: number;
  readonly #lines: Record<Priority, Line> = {
    interactive: { first: undefined, last: undefined, length: 0 },
    batch: { first: undefined, last: undefined, length: 0 },
  };

  readonly #reserved: Record<Priority, number> = { interactive: 0, batch: 0 };

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  get length(): number {
    return this.#lines.interactive.length + this.#lines.batch.length;
  }

  /** Places promised to tasks whose admission is being committed count as taken. */
  get isFull(): boolean {
    return this.length + this.#reserved.interactive + this.#reserved.batch >= this.capacity;
  }

  /** Promises a place to a newcomer; `enqueue` or `release` ends the promise. */
  reserve(priority: Priority): void {
    this.#reserved[priority]++;
  }

  release(priority: Priority): void {
    this.#reserved[priority]--;
  }

  lengthOf(priority: Priority): number {
    return this.#lines[priority].length;
  }

  enqueue(item: T): void {
    if (item.queue_links) throw new Error('an item waits in one place only');
    const line = this.#lines[item.priority];
    item.queue_links = { previous: line.last, next: undefined };
    if (line.last?.queue_links) line.last.queue_links.next = item;
    else line.first = item;
    line.last = item;
    line.length++;
  }

  /** For a task whose run was given up before its first token: it has waited its turn already. */
  returnToFront(item: T): void {
    if (item.queue_links) throw new Error('an item waits in one place only');
    const line = this.#lines[item.priority];
    item.queue_links = { previous: undefined, next: line.first };
    if (line.first?.queue_links) line.first.queue_links.previous = item;
    else line.last = item;
    line.first = item;
    line.length++;
  }

  /** @returns whether it was waiting here */
  remove(item: T): boolean {
    const links = item.queue_links;
    if (!links) return false;
    const line = this.#lines[item.priority];
    if (links.previous?.queue_links) links.previous.queue_links.next = links.next;
    else line.first = links.next;
    if (links.next?.queue_links) links.next.queue_links.previous = links.previous;
    else line.last = links.previous;
    line.length--;
    item.queue_links = undefined;
    return true;
  }

  /** Items ahead of a newcomer of this class: 0 means next. */
  positionOfNewcomer(priority: Priority): number {
    const ahead = this.lengthOf('interactive') + this.#reserved.interactive;
    return priority === 'interactive' ? ahead : ahead + this.lengthOf('batch') + this.#reserved.batch;
  }

  /** Items ahead of this one; O(position). Undefined where it does not wait here. */
  positionOf(item: T): number | undefined {
    if (!item.queue_links) return undefined;
    let ahead = item.priority === 'batch' ? this.lengthOf('interactive') : 0;
    for (let other = item.queue_links.previous; other; other = other.queue_links?.previous) ahead++;
    return ahead;
  }

  /** In the order of dispatch. Do not change the queue while iterating: take what you need first. */
  *[Symbol.iterator](): IterableIterator<T> {
    for (const priority of PRIORITIES) {
      for (let item = this.#lines[priority].first; item; item = item.queue_links?.next) yield item as T;
    }
  }

  take(count: number): T[] {
    const taken: T[] = [];
    if (count > 0)
      for (const item of this) {
        taken.push(item);
        if (taken.length >= count) break;
      }
    return taken;
  }
}
