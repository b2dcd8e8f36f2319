import type { Priority } from '../contract/generated/types.ts';

/** Shares of the slots while both classes wait. Whole numbers of at least 1. */
export type Weights = Readonly<Record<Priority, number>>;

/**
 * In which order the two classes are served. Without weights `interactive` always goes first. With weights `wi` and
 * `wb`, the i-th waiting interactive task is due at `lead + (i + 1) × wb` and the j-th batch task at `(j + 1) × wi`;
 * whoever is due first goes first, `interactive` where both are. So of `wi + wb` tasks `wi` are interactive, as evenly
 * mixed as whole tasks allow, and nobody at the head of a class sees more than `ceil(other weight / own weight)` of
 * the other class pass. No clock and no chance: only serving a task changes the lead.
 */
export class ClassOrder {
  readonly #weights: Weights | undefined;
  /** What interactive tasks had more than their share of, in units of work. */
  #lead = 0;

  constructor(weights: Weights | undefined) {
    this.#weights = weights;
  }

  /** How many of endlessly many interactive tasks go before the batch task with so many batch tasks before it. */
  interactiveBefore(rank: number): number {
    if (!this.#weights) return Infinity;
    const { interactive, batch } = this.#weights;
    return Math.max(0, Math.floor(((rank + 1) * interactive - this.#lead) / batch));
  }

  /** How many of endlessly many batch tasks go before the interactive task with so many of its class before it. */
  batchBefore(rank: number): number {
    if (!this.#weights) return 0;
    const { interactive, batch } = this.#weights;
    return Math.max(0, Math.ceil((this.#lead + (rank + 1) * batch) / interactive) - 1);
  }

  /** A task was served while the other class waited too: nobody owes anything to a class that does not wait. */
  served(priority: Priority): void {
    if (!this.#weights) return;
    const { interactive, batch } = this.#weights;
    const lead = priority === 'interactive' ? this.#lead + batch : this.#lead - interactive;
    // Serving out of turn must not add up to a debt that starves a class.
    this.#lead = Math.min(interactive, Math.max(1 - batch, lead));
  }
}
