import { execFile } from 'node:child_process';

/** What an accelerator is doing now. */
export interface Gpu {
  /** Ordinal, as in `pools[].devices`. */
  device: number;
  /** 0 to 100. */
  utilization_percent: number;
  /** Of all programs on it. */
  vram_used_bytes: number;
}

export interface GpusOptions {
  /** @default `nvidia-smi` */
  program?: string;
  /** How old an answer may be, in milliseconds. @default 5000 */
  max_age_ms?: number;
  /** Milliseconds from an arbitrary origin. @default performance.now */
  now?: () => number;
}

const ARGUMENTS = ['--query-gpu=index,utilization.gpu,memory.used', '--format=csv,noheader,nounits'];
const TIMEOUT_MS = 3000;
const MIB = 1024 * 1024;

/** The accelerators of this machine, asked only when somebody wants to know, and never waited for. */
export class Gpus {
  readonly #program: string;
  readonly #max_age_ms: number;
  readonly #now: () => number;
  #known: readonly Gpu[] = [];
  #asked_at = -Infinity;

  constructor({
    program = 'nvidia-smi',
    max_age_ms = 5000,
    now = (): number => performance.now(),
  }: GpusOptions = {}) {
    this.#program = program;
    this.#max_age_ms = max_age_ms;
    this.#now = now;
  }

  /** What was told last: empty before the first answer, and where nobody can tell. Asks anew where that is too old. */
  read(): readonly Gpu[] {
    const now = this.#now();
    if (now - this.#asked_at >= this.#max_age_ms) {
      this.#asked_at = now;
      execFile(this.#program, ARGUMENTS, { timeout: TIMEOUT_MS }, (error, text) => {
        this.#known = error ? [] : readings(text);
      });
    }
    return this.#known;
  }
}

/** A line for each; what an accelerator does not tell is a word in brackets, and then it is left out. */
function readings(text: string): Gpu[] {
  return text.split('\n').flatMap((line) => {
    const [device, percent, mebibytes] = line.split(',').map((cell) => Number.parseInt(cell, 10));
    return [device, percent, mebibytes].every(Number.isFinite)
      ? [
          {
            device: device as number,
            utilization_percent: percent as number,
            vram_used_bytes: (mebibytes as number) * MIB,
          },
        ]
      : [];
  });
}
