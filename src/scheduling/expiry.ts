const BUCKET_MS = 100;

/** Dead keys that are kept before the heap is made anew. */
const SPARE_KEYS = 64;

/**
 * Whose time has passed, of those that wait. They are kept in buckets of 100 ms: nobody is told early, everybody at
 * most one bucket late. Adding and removing are O(1), but for the first of a bucket; who was removed is referenced by
 * nothing here.
 */
export class Expiry<T extends { readonly due_at: number }> {
  readonly #buckets = new Map<number, Set<T>>();
  /** Binary heap of bucket numbers, smallest first; those without a bucket are dead. */
  #keys: number[] = [];

  add(item: T): void {
    const key = keyOf(item.due_at);
    const bucket = this.#buckets.get(key);
    if (bucket) return void bucket.add(item);
    this.#buckets.set(key, new Set([item]));
    push(this.#keys, key);
  }

  /** @returns whether it was here */
  remove(item: T): boolean {
    const key = keyOf(item.due_at);
    const bucket = this.#buckets.get(key);
    if (!bucket?.delete(item)) return false;
    if (bucket.size === 0) {
      this.#buckets.delete(key);
      if (this.#keys.length > 2 * this.#buckets.size + SPARE_KEYS)
        // A sorted array is a heap.
        this.#keys = [...this.#buckets.keys()].sort((a, b) => a - b);
    }
    return true;
  }

  /** @returns when `takeDue` has something to give, on the clock of `due_at`; undefined where nobody waits */
  nextDue(): number | undefined {
    const key = this.#nextKey();
    return key === undefined ? undefined : timeOf(key);
  }

  /** Removes and returns those whose time has passed: by `due_at`, and in the order they were added where it is equal. */
  takeDue(now: number): T[] {
    const due: T[] = [];
    for (let key = this.#nextKey(); key !== undefined && timeOf(key) <= now; key = this.#nextKey()) {
      const bucket = [...(this.#buckets.get(key) ?? [])].sort((a, b) => a.due_at - b.due_at);
      for (const item of bucket) due.push(item);
      this.#buckets.delete(key);
    }
    return due;
  }

  #nextKey(): number | undefined {
    let key = this.#keys[0];
    while (key !== undefined && !this.#buckets.has(key)) {
      pop(this.#keys);
      key = this.#keys[0];
    }
    return key;
  }
}

/** A bucket is due when the last that can be in it is. */
function keyOf(due_at: number): number {
  const key = Math.ceil(due_at / BUCKET_MS);
  // A quotient may be rounded down to a whole number.
  return timeOf(key) < due_at ? key + 1 : key;
}

function timeOf(key: number): number {
  return key * BUCKET_MS;
}

function push(heap: number[], key: number): void {
  let at = heap.push(key) - 1;
  while (at > 0) {
    const parent = (at - 1) >> 1;
    const above = heap[parent] as number;
    if (above <= key) break;
    heap[at] = above;
    at = parent;
  }
  heap[at] = key;
}

function pop(heap: number[]): void {
  const last = heap.pop();
  if (last === undefined || heap.length === 0) return;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && (heap[child + 1] as number) < (heap[child] as number)) child++;
    const below = heap[child] as number;
    if (below >= last) break;
    heap[at] = below;
    at = child;
  }
  heap[at] = last;
}
