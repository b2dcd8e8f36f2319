/** What can be idle. The links belong to the list. */
export interface Idle {
  readonly context: { readonly last_seen_at: number };
  previous: Idle | undefined;
  next: Idle | undefined;
}

/**
 * In the order of their last use. Links are in the items: to find its first key, a map walks over the places of all that left before it.
 */
export class IdleList<T extends Idle> {
  #first: T | undefined;
  #last: T | undefined;
  /** Restored ones come in the order of the store. */
  #isSorted = true;
  length = 0;

  /** The least recently used. */
  get oldest(): T | undefined {
    if (!this.#isSorted) this.#sort();
    return this.#first;
  }

  append(item: T): void {
    const last = this.#last;
    if (last && last.context.last_seen_at > item.context.last_seen_at) this.#isSorted = false;
    item.previous = last;
    item.next = undefined;
    if (last) last.next = item;
    else this.#first = item;
    this.#last = item;
    this.length++;
  }

  remove(item: T): void {
    const { previous, next } = item;
    if (!previous && this.#first !== item) return;
    if (previous) previous.next = next;
    else this.#first = next as T | undefined;
    if (next) next.previous = previous;
    else this.#last = previous as T | undefined;
    item.previous = undefined;
    item.next = undefined;
    this.length--;
  }

  clear(): void {
    this.#first = undefined;
    this.#last = undefined;
    this.#isSorted = true;
    this.length = 0;
  }

  #sort(): void {
    const all: T[] = [];
    for (let item: Idle | undefined = this.#first; item; item = item.next) all.push(item as T);
    this.clear();
    for (const item of all.toSorted((a, b) => a.context.last_seen_at - b.context.last_seen_at))
      this.append(item);
  }
}
