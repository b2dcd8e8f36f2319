/**
 * Runs a flush for everything that was asked for in one turn of the event loop, and never two at a time: what is asked
 * for while one runs goes together into the next. That is how writes group themselves, the more the busier the disk.
 */
export class OneAtATime {
  readonly #flush: () => Promise<void>;
  #running: Promise<void> | undefined;
  #isWanted = false;

  /** @param flush never rejects */
  constructor(flush: () => Promise<void>) {
    this.#flush = flush;
  }

  want(): void {
    this.#isWanted = true;
    this.#running ??= this.#run();
  }

  /** Resolves when nothing runs and nothing is wanted. */
  async idle(): Promise<void> {
    await this.#running;
  }

  async #run(): Promise<void> {
    while (this.#isWanted) {
      await new Promise<void>((resolve) => setImmediate(resolve));
      this.#isWanted = false;
      await this.#flush();
    }
    this.#running = undefined;
  }
}
