import type { Priority } from '../contract/generated/types.ts';

/** What a queue needs to know of what waits in it. The links belong to the queue. */
export interface Queued {
  readonly priority: Priority;
  /** Place in the order of all admissions. */
  readonly sequence: number;
  /** Tokens that it is expected to write; 0 where it writes none. */
  readonly expected_tokens: number;
  queue_links?: QueueLinks | undefined;
}

interface QueueLinks {
  readonly line: object;
  previous: Queued | undefined;
  next: Queued | undefined;
}

/** Work in front of a task. */
export interface WorkAhead {
  /** Tasks that go first. */
  tasks: number;
  /** Tokens that they are expected to write, all together. */
  tokens: number;
}

/**
 * The tasks of one class in the order of their arrival. The links live in the items, so every change is O(1), and an
 * item that has left is referenced by nothing here.
 */
export class Line<T extends Queued> {
  #first: Queued | undefined;
  #last: Queued | undefined;
  #length = 0;
  #tokens = 0;

  get length(): number {
    return this.#length;
  }

  /** Tokens that all of them are expected to write. */
  get tokens(): number {
    return this.#tokens;
  }

  get first(): T | undefined {
    return this.#first as T | undefined;
  }

  get last(): T | undefined {
    return this.#last as T | undefined;
  }

  has(item: T): boolean {
    return item.queue_links?.line === this;
  }

  append(item: T): void {
    this.#insert(item, undefined);
  }

  /**
   * Goes before all that were admitted after it. Those that are passed on the way have come back too, so there are
   * no more of them than slots.
   */
  return(item: T): void {
    let next = this.#first;
    while (next && next.sequence < item.sequence) next = next.queue_links?.next;
    this.#insert(item, next);
  }

  /** @returns whether it was in this line */
  remove(item: T): boolean {
    const links = item.queue_links;
    if (links?.line !== this) return false;
    if (links.previous?.queue_links) links.previous.queue_links.next = links.next;
    else this.#first = links.next;
    if (links.next?.queue_links) links.next.queue_links.previous = links.previous;
    else this.#last = links.previous;
    this.#length--;
    // Sums of fractions drift; an empty line is a chance to forget that.
    this.#tokens = this.#length === 0 ? 0 : this.#tokens - item.expected_tokens;
    item.queue_links = undefined;
    return true;
  }

  /** What is in front of an item of this line; walks from it to the nearer end. */
  ahead(item: T): WorkAhead {
    let steps = 0;
    let before = 0;
    let after = item.expected_tokens;
    let previous = item.queue_links?.previous;
    let next = item.queue_links?.next;
    for (; previous && next; steps++) {
      before += previous.expected_tokens;
      after += next.expected_tokens;
      previous = previous.queue_links?.previous;
      next = next.queue_links?.next;
    }
    return previous
      ? { tasks: this.#length - 1 - steps, tokens: Math.max(0, this.#tokens - after) }
      : { tasks: steps, tokens: before };
  }

  *[Symbol.iterator](): IterableIterator<T> {
    for (let item = this.#first; item; item = item.queue_links?.next) yield item as T;
  }

  /** @param next undefined puts it at the end */
  #insert(item: T, next: Queued | undefined): void {
    if (item.queue_links) throw new Error('an item waits in one place only');
    const previous = next ? next.queue_links?.previous : this.#last;
    item.queue_links = { line: this, previous, next };
    if (previous?.queue_links) previous.queue_links.next = item;
    else this.#first = item;
    if (next?.queue_links) next.queue_links.previous = item;
    else this.#last = item;
    this.#length++;
    this.#tokens += item.expected_tokens;
  }
}
