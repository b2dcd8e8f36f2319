/**
 * Runs a flush for everything that was asked for in one turn of the event loop, and never two at a time: what is asked
 * for while one runs goes together into the next. That is how writes group themselves, the more the busier the disk.
 */
export class OneAtATime {
  readonly #flush: () => Promise<void>;
  readonly #gap_ms: number;
  #running: Promise<void> | undefined;
  #isWanted = false;
  #isHasty = false;
  #began_at = -Infinity;
  #wake: (() => void) | undefined;

  /**
   * @param flush never rejects
   * @param gap_ms least time from the beginning of a flush to that of the next, in milliseconds: what comes after a
   * quiet time does not wait, and what comes in a stream goes in groups
   */
  constructor(flush: () => Promise<void>, gap_ms = 0) {
    this.#flush = flush;
    this.#gap_ms = gap_ms;
  }

  want(): void {
    this.#isWanted = true;
    this.#running ??= this.#run();
  }

  /** Resolves when nothing runs and nothing is wanted; what is wanted does not wait any more. */
  async idle(): Promise<void> {
    this.#isHasty = true;
    this.#wake?.();
    await this.#running;
  }

  async #run(): Promise<void> {
    while (this.#isWanted) {
      await this.#pause();
      this.#isWanted = false;
      this.#began_at = performance.now();
      await this.#flush();
    }
    this.#running = undefined;
  }

  async #pause(): Promise<void> {
    const left_ms = this.#isHasty ? 0 : this.#began_at + this.#gap_ms - performance.now();
    if (left_ms <= 0) return new Promise((resolve) => setImmediate(resolve));
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, left_ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = undefined;
  }
}
