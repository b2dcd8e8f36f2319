import type { Clock } from '../clock.ts';
import { Expiry } from '../scheduling/expiry.ts';

const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Tells whose deadline passes while it waits: one timer for all of them, set for the next one. */
export class Deadlines<T extends { readonly due_at: number }> {
  readonly #clock: Clock;
  readonly #passed: (item: T, at: number) => void;
  readonly #expiry = new Expiry<T>();
  #next: { at: number; timer: unknown } | undefined;

  constructor(clock: Clock, passed: (item: T, at: number) => void) {
    this.#clock = clock;
    this.#passed = passed;
  }

  add(item: T): void {
    this.#expiry.add(item);
    this.#plan();
  }

  remove(item: T): void {
    if (this.#expiry.remove(item) && this.#expiry.nextDue() === undefined) this.close();
  }

  close(): void {
    this.#clock.clearTimeout(this.#next?.timer);
    this.#next = undefined;
  }

  #plan(): void {
    const due = this.#expiry.nextDue();
    if (due === undefined || (this.#next && this.#next.at <= due)) return;
    this.#clock.clearTimeout(this.#next?.timer);
    const wait_ms = Math.min(LONGEST_TIMER_MS, Math.max(0, due - this.#clock.now()));
    this.#next = { at: due, timer: this.#clock.setTimeout(() => this.#tell(), wait_ms) };
  }

  /** The one it was set for may have left meanwhile: then it only looks for the next. */
  #tell(): void {
    this.#next = undefined;
    const at = this.#clock.now();
    for (const item of this.#expiry.takeDue(at)) this.#passed(item, at);
    this.#plan();
  }
}
