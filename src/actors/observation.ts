import type { Failure } from '../errors.ts';
import type { EngineLoss } from '../engines/engine.ts';
import type { TaskState } from '../machines/task.ts';
import type { PlacementDecision, RefusalReason } from '../scheduling/placement.ts';
import type { TaskRecord } from './task-record.ts';

/** What happened, for logs, metrics and pages. Observers only look: nothing they do reaches a machine. */
export type Observation =
  | { type: 'task.admitted'; record: TaskRecord; decision: PlacementDecision }
  | {
      type: 'task.refused';
      failure: Failure;
      engine: string;
      correlation_id: string;
      /** Where no pool could take it, which it came to. */
      placement?: RefusedPlacement | undefined;
    }
  /** A request had fields that nobody knows; these are their names, cut where they are long. */
  | { type: 'request.trimmed'; fields: readonly string[]; correlation_id: string }
  /** Its place in a full queue went to another one; its `task.closed` follows. */
  | { type: 'task.dropped'; record: TaskRecord; policy: string }
  | { type: 'task.moved'; record: TaskRecord; from: TaskState; to: TaskState }
  | { type: 'task.closed'; record: TaskRecord }
  | { type: 'placement.decided'; decision: PlacementDecision }
  /** A model is being brought here: at most a few times a second. */
  | {
      type: 'model.progress';
      pool_id: string;
      phase: string;
      bytes_done: number;
      bytes_total: number | undefined;
    }
  | { type: 'pool.moved'; pool_id: string; from: string; to: string; failure: Failure | undefined }
  | {
      type: 'replica.moved';
      pool_id: string;
      replica_id: string;
      from: string;
      to: string;
      failure: Failure | undefined;
      exit: EngineLoss | undefined;
    }
  /** What earlier processes had accepted is known again. */
  | { type: 'store.recovered'; finished: number; unfinished: number }
  | { type: 'child.crashed'; child: string; error: unknown };

/** What was looked at for a task that no pool can take, and why none can. */
export interface RefusedPlacement {
  reason: RefusalReason;
  considered: number;
  feasible: number;
  pinned: boolean;
}

export type Observer = (observation: Observation) => void;

/** Calls every observer; one that throws is reported once to the others' stead and never reaches the caller. */
export class Observers {
  readonly #all = new Set<Observer>();

  add(observer: Observer): () => void {
    this.#all.add(observer);
    return () => void this.#all.delete(observer);
  }

  tell(observation: Observation): void {
    for (const observer of this.#all) {
      try {
        observer(observation);
      } catch (error) {
        process.emitWarning(`an observer failed on ${observation.type}: ${String(error)}`);
      }
    }
  }
}
