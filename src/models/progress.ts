import type { Clock } from '../clock.ts';
import type { ModelProgress } from './source.ts';

const PERIOD_MS = 250;

/** Tells how far it is, four times a second at most; a new phase at once. */
export class ProgressMeter {
  readonly #clock: Clock;
  readonly #told: (progress: ModelProgress) => void;
  #phase: ModelProgress['phase'] | undefined;
  #told_at = -Infinity;

  constructor(clock: Clock, told: (progress: ModelProgress) => void) {
    this.#clock = clock;
    this.#told = told;
  }

  tell(phase: ModelProgress['phase'], bytes_done: number, bytes_total: number | undefined): void {
    const now = this.#clock.now();
    const isOver = phase === this.#phase && bytes_done === bytes_total;
    if (phase === this.#phase && !isOver && now - this.#told_at < PERIOD_MS) return;
    this.#phase = phase;
    this.#told_at = now;
    this.#told({ phase, bytes_done, bytes_total });
  }
}
