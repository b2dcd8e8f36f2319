/** Work that several callers wait for together; it is given up once none of them is left. */
export class Flights<T, Told> {
  readonly #flying = new Map<string, Flight<T, Told>>();

  /**
   * @param told hears what the work tells, from now on
   * @param start begins the work, where nobody has yet
   * @throws the signal's reason; what the work throws
   */
  async join(
    key: string,
    signal: AbortSignal,
    told: (what: Told) => void,
    start: (signal: AbortSignal, tell: (what: Told) => void) => Promise<T>,
  ): Promise<T> {
    signal.throwIfAborted();
    const flight = this.#flying.get(key) ?? this.#start(key, start);
    const listener = { told };
    flight.listeners.add(listener);
    let leave: (() => void) | undefined;
    const left = new Promise<never>((_, reject) => {
      leave = () => reject(signal.reason as Error);
      signal.addEventListener('abort', leave);
    });
    try {
      return await Promise.race([flight.done, left]);
    } finally {
      if (leave) signal.removeEventListener('abort', leave);
      flight.listeners.delete(listener);
      if (flight.listeners.size === 0) {
        if (this.#flying.get(key) === flight) this.#flying.delete(key);
        flight.stop.abort(signal.reason ?? new Error('nobody waits for it any more'));
      }
    }
  }

  #start(
    key: string,
    start: (signal: AbortSignal, tell: (what: Told) => void) => Promise<T>,
  ): Flight<T, Told> {
    const listeners: Flight<T, Told>['listeners'] = new Set();
    const stop = new AbortController();
    // In a turn of its own: what is told at once is for those who are about to listen.
    const done = Promise.resolve().then(() =>
      start(stop.signal, (what) => {
        for (const listener of listeners) listener.told(what);
      }),
    );
    // Those who left do not hear how it ended.
    done.catch(() => undefined);
    const flight = { listeners, stop, done };
    this.#flying.set(key, flight);
    return flight;
  }
}

interface Flight<T, Told> {
  listeners: Set<{ told: (what: Told) => void }>;
  stop: AbortController;
  done: Promise<T>;
}
