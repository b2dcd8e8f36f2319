import type { Clock } from '../../src/clock.ts';

interface Timer {
  due: number;
  fn: () => void;
}

/** A clock that moves only when told. It fits XState's clock interface as well as ours. */
export class SimulatedClock implements Clock {
  #now = 0;
  readonly #epoch: number;
  readonly #timers = new Map<number, Timer>();
  #nextId = 1;

  /** @param epoch - what `wall()` says at the start, in epoch milliseconds. */
  constructor(epoch = 1_700_000_000_000) {
    this.#epoch = epoch;
  }

  now(): number {
    return this.#now;
  }

  wall(): number {
    return this.#epoch + this.#now;
  }

  setTimeout(fn: () => void, ms: number): number {
    const id = this.#nextId++;
    this.#timers.set(id, { due: this.#now + Math.max(0, ms), fn });
    return id;
  }

  clearTimeout(id: unknown): void {
    this.#timers.delete(id as number);
  }

  /** Timers that have not fired: zero after a test means that nobody forgot one. */
  get pending(): number {
    return this.#timers.size;
  }

  /** Moves time by `ms`, firing what falls due in order of time, timers set on the way included. */
  advance(ms: number): void {
    const end = this.#now + ms;
    for (let next = this.#earliest(end); next !== undefined; next = this.#earliest(end)) {
      const [id, timer] = next;
      this.#timers.delete(id);
      this.#now = Math.max(this.#now, timer.due);
      timer.fn();
    }
    this.#now = end;
  }

  #earliest(limit: number): [number, Timer] | undefined {
    let found: [number, Timer] | undefined;
    for (const entry of this.#timers) {
      if (entry[1].due <= limit && (found === undefined || entry[1].due < found[1].due)) found = entry;
    }
    return found;
  }
}
