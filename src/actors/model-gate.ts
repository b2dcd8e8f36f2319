import type { ModelState } from '../contract/generated/types.ts';
import type { Failure } from '../errors.ts';

/** What the orchestrator asks of the catalog; every question is answered in its own turn. */
export interface ModelGate {
  /** Why no new work may use the model, if so: MODEL_DEPRECATED or UNTRUSTED_ARTIFACT. */
  refusalOf(model_ref: string): Failure | undefined;
  /** Whether two references mean the same model: by the same name, or names of the same digest. */
  isSame(a: string, b: string): boolean;
  states(): Iterable<{ id: string; state: ModelState }>;
}

/** Whether a pool with this model does the work of tasks that name the other. */
export function serves(gate: ModelGate | undefined, model: string, model_ref: string): boolean {
  return model === model_ref || (gate?.isSame(model, model_ref) ?? false);
}
