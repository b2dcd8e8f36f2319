/** Follows a run that says again what is known already. */
export class Replay {
  readonly #text: string;
  #at = 0;
  #state: 'repeating' | 'complete' | 'diverged' = 'repeating';

  /** @param text what is known; not empty */
  constructor(text: string) {
    this.#text = text;
  }

  get state(): 'repeating' | 'complete' | 'diverged' {
    return this.#state;
  }

  /** Takes the next piece of the run: what of it goes beyond the known text, or undefined where it does not match. */
  take(piece: string): string | undefined {
    if (this.#state === 'diverged') return undefined;
    const left = this.#text.length - this.#at;
    const known = piece.length <= left ? piece : piece.slice(0, left);
    if (!this.#text.startsWith(known, this.#at)) return undefined;
    this.#at += known.length;
    if (this.#at === this.#text.length) this.#state = 'complete';
    return piece.slice(known.length);
  }

  /** The run does not go on with the known text. Whether that is news. */
  end(): boolean {
    const isNews = this.#state === 'repeating';
    if (isNews) this.#state = 'diverged';
    return isNews;
  }
}
