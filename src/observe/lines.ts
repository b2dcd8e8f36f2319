import { pino } from 'pino';

/** Lines are written together: a system call each would cost an admission more than its checks. */
const MOST_CHARACTERS = 32_768;
const LONGEST_WAIT_MS = 50;

/**
 * Standard output for log lines, written in the background. They are gathered here and not by pino's destination: that
 * one measures all it has gathered again with each line, and syncs the disk, for which others wait, with each write.
 */
export class Lines {
  readonly #stdout = pino.destination({ dest: 1, sync: false });
  #text = '';
  #timer: NodeJS.Timeout | undefined;

  constructor() {
    process.once('exit', () => this.flush());
  }

  write(line: string): void {
    this.#text += line;
    if (this.#text.length >= MOST_CHARACTERS) this.#leave();
    else this.#timer ??= setTimeout(() => this.#leave(), LONGEST_WAIT_MS).unref();
  }

  /** All of it is written when this returns. */
  flush(): void {
    this.#leave();
    this.#stdout.flushSync();
  }

  #leave(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#text === '') return;
    this.#stdout.write(this.#text);
    this.#text = '';
  }
}
