import { TaskchartError, type Failure } from '../errors.ts';
import type { RefusedPlacement } from './observation.ts';

/** No pool can take the task. */
export class NotPlaced extends TaskchartError {
  readonly placement: RefusedPlacement;

  constructor(why: Failure, placement: RefusedPlacement) {
    super(why);
    this.placement = placement;
  }
}

export function refusal(why: Failure, status?: number): TaskchartError {
  return new TaskchartError(why, status);
}
