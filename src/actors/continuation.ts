import type { TaskRequest } from '../contract/generated/types.ts';
import type { EngineProperties } from '../engines/engine.ts';
import { isCold } from './engine-call.ts';

/**
 * How another run can go on where one was lost: the engine continues the text (`resume`), or it does the same again
 * and what readers have seen already is held back (`replay`).
 */
export type Continuation = 'resume' | 'replay' | 'none';

/**
 * A strict task never gets bytes that one undisturbed run would not have given: only an engine that always does the
 * same can do it again. Without a wish, an engine that can be strict is. Constrained output cannot be taken up in the
 * middle, and vectors and rankings are cheap to make again.
 */
export function continuationOf(
  request: TaskRequest,
  { deterministic: always, deterministic_cold: whenCold = false, resume }: EngineProperties['features'],
): Continuation {
  const { workload, determinism, sampling } = request;
  const deterministic = always || (whenCold && isCold(request));
  if (workload !== 'completion') return 'replay';
  const again = deterministic ? 'replay' : 'none';
  if (sampling?.grammar !== undefined || sampling?.json_schema !== undefined) return again;
  if (determinism === 'strict' || (determinism === undefined && deterministic)) return again;
  return resume ? 'resume' : again;
}
