/**
 * Which two symbols may become one. `rank` orders the merges of a text (lowest first, of equals the leftmost)
 * and is a whole number below 2^20; -1 forbids the merge.
 */
export interface Pairs {
  /** The rank of the pair; leaves the merged symbol in {@link Pairs.merged}. */
  rank(left: number, right: number): number;
  merged: number;
}

/** Positions stay below 2^32 and ranks below 2^20: both fit the 53 bits of one number, which then orders the heap. */
const POSITIONS = 2 ** 32;

/**
 * Merges neighbouring symbols until no pair is left that may merge: O(n log n), whatever the length. Its buffers
 * are kept between texts, so one instance serves one text at a time.
 */
export class Merger {
  readonly #pairs: Pairs;
  #next = new Int32Array(0);
  #previous = new Int32Array(0);
  #heap = new Float64Array(0);
  #heaped = 0;

  constructor(pairs: Pairs) {
    this.#pairs = pairs;
  }

  /**
   * Merges `symbols[0, count)` in place.
   * @returns how many symbols are left at the front of the array.
   */
  merge(symbols: Int32Array, count: number): number {
    if (count < 2) return count;
    this.#reserve(count);
    const next = this.#next;
    const previous = this.#previous;
    this.#heaped = 0;
    for (let at = 0; at < count; at += 1) {
      next[at] = at + 1 < count ? at + 1 : -1;
      previous[at] = at - 1;
    }
    for (let at = 0; at + 1 < count; at += 1) this.#offer(symbols, at);
    while (this.#heaped > 0) {
      const key = this.#pop();
      const rank = Math.floor(key / POSITIONS);
      const left = key % POSITIONS;
      const right = next[left] ?? -1;
      // An entry outlives the pair it was made for; it counts only while the same merge is still open.
      if (right < 0 || this.#pairs.rank(symbols[left] ?? -1, symbols[right] ?? -1) !== rank) continue;
      symbols[left] = this.#pairs.merged;
      const after = next[right] ?? -1;
      next[left] = after;
      next[right] = -1;
      symbols[right] = -1;
      if (after >= 0) {
        previous[after] = left;
        this.#offer(symbols, left);
      }
      const before = previous[left] ?? -1;
      if (before >= 0) this.#offer(symbols, before);
    }
    let kept = 0;
    for (let at = 0; at >= 0; at = next[at] ?? -1) symbols[kept++] = symbols[at] ?? -1;
    return kept;
  }

  #reserve(count: number): void {
    if (this.#next.length >= count) return;
    const room = Math.max(256, count);
    this.#next = new Int32Array(room);
    this.#previous = new Int32Array(room);
    // One entry per neighbourhood, and every merge takes one for the two it may add.
    this.#heap = new Float64Array(room * 2);
  }

  #offer(symbols: Int32Array, left: number): void {
    const right = this.#next[left] ?? -1;
    const rank = this.#pairs.rank(symbols[left] ?? -1, symbols[right] ?? -1);
    if (rank < 0) return;
    const heap = this.#heap;
    const key = rank * POSITIONS + left;
    let at = this.#heaped;
    this.#heaped += 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent] ?? 0;
      if (above <= key) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = key;
  }

  #pop(): number {
    const heap = this.#heap;
    const top = heap[0] ?? 0;
    this.#heaped -= 1;
    const size = this.#heaped;
    const key = heap[size] ?? 0;
    let at = 0;
    for (;;) {
      let child = at * 2 + 1;
      if (child >= size) break;
      let below = heap[child] ?? 0;
      const other = heap[child + 1] ?? 0;
      if (child + 1 < size && other < below) {
        below = other;
        child += 1;
      }
      if (key <= below) break;
      heap[at] = below;
      at = child;
    }
    heap[at] = key;
    return top;
  }
}
