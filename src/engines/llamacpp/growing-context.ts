/** How long a context that nobody uses is kept, in milliseconds. */
const IDLE_MS = 60_000;

/** Contexts smaller than this gain nothing. In tokens. */
const SMALLEST = 512;

interface Context {
  dispose(): Promise<void>;
}

/**
 * A context beside the one that completes, made when it is first needed, as large as the longest input so far asks
 * for (its memory grows with the square of that in some models), and let go of after a while without use. Uses take
 * turns: they all compute on the same threads, so side by side they would only cost more memory.
 */
export class GrowingContext<C extends Context> {
  readonly #create: (tokens: number) => Promise<C>;
  #open: { context: C; tokens: number } | undefined;
  #last: Promise<unknown> = Promise.resolve();
  #idle: NodeJS.Timeout | undefined;

  constructor(create: (tokens: number) => Promise<C>) {
    this.#create = create;
  }

  /** Waits for its turn, and works on a context that holds at least `tokens`. */
  use<T>(tokens: number, work: (context: C) => T | Promise<T>): Promise<T> {
    return this.#turn(async () => {
      clearTimeout(this.#idle);
      try {
        return await work(await this.#atLeast(tokens));
      } finally {
        this.#idle = setTimeout(() => void this.dispose(), IDLE_MS).unref();
      }
    });
  }

  /** Frees the memory; the next use makes a new one. */
  dispose(): Promise<void> {
    return this.#turn(async () => {
      clearTimeout(this.#idle);
      await this.#close();
    });
  }

  #turn<T>(job: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(job);
    this.#last = turn.catch(() => undefined);
    return turn;
  }

  async #atLeast(tokens: number): Promise<C> {
    if (this.#open !== undefined && this.#open.tokens >= tokens) return this.#open.context;
    await this.#close();
    const size = Math.max(SMALLEST, 2 ** Math.ceil(Math.log2(tokens)));
    const context = await this.#create(size);
    this.#open = { context, tokens: size };
    return context;
  }

  async #close(): Promise<void> {
    const open = this.#open;
    this.#open = undefined;
    await open?.context.dispose();
  }
}
