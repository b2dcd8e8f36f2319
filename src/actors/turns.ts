/** Work under one name goes one after the other; whoever comes later finds what the first has done. */
export class Turns {
  readonly #busy = new Map<string, Promise<void>>();

  /** Nobody else works under any of these names meanwhile. */
  async take<T>(names: readonly string[], work: () => Promise<T>): Promise<T> {
    for (let busy = this.#firstBusy(names); busy; busy = this.#firstBusy(names)) await busy;
    const result = work();
    const over = result.then(
      () => this.#free(names),
      () => this.#free(names),
    );
    for (const name of names) this.#busy.set(name, over);
    return result;
  }

  #firstBusy(names: readonly string[]): Promise<void> | undefined {
    for (const name of names) {
      const busy = this.#busy.get(name);
      if (busy) return busy;
    }
    return undefined;
  }

  #free(names: readonly string[]): void {
    for (const name of names) this.#busy.delete(name);
  }
}
