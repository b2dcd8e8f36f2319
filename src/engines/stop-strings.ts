/** Finds stop strings in text that arrives in pieces; the stop string itself is never let through. */
export class StopStrings {
  readonly #stops: readonly string[];
  #held = '';

  constructor(stops: readonly string[]) {
    this.#stops = stops.filter((stop) => stop !== '');
  }

  /** @returns the text that may go out now, and whether a stop string came after it. */
  push(text: string): { text: string; stopped: boolean } {
    const buffer = this.#held + text;
    let first = -1;
    for (const stop of this.#stops) {
      const at = buffer.indexOf(stop);
      if (at !== -1 && (first === -1 || at < first)) first = at;
    }
    if (first !== -1) {
      this.#held = '';
      return { text: buffer.slice(0, first), stopped: true };
    }
    const hold = this.#possibleStart(buffer);
    this.#held = buffer.slice(buffer.length - hold);
    return { text: buffer.slice(0, buffer.length - hold), stopped: false };
  }

  /** The text held back, when no more will come. */
  flush(): string {
    const rest = this.#held;
    this.#held = '';
    return rest;
  }

  /** Length of the longest end of `buffer` that a stop string could begin with. */
  #possibleStart(buffer: string): number {
    let longest = 0;
    for (const stop of this.#stops) {
      for (let length = Math.min(stop.length - 1, buffer.length); length > longest; length--) {
        if (buffer.endsWith(stop.slice(0, length))) longest = length;
      }
    }
    return longest;
  }
}
