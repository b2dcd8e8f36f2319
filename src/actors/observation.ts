import type { ModelState } from '../contract/generated/types.ts';
import type { Failure } from '../errors.ts';
import type { EngineLoss } from '../engines/engine.ts';
import type { TaskState } from '../machines/task.ts';
import type { PlacementDecision, RefusalReason } from '../scheduling/placement.ts';
import type { ProvisioningProgress } from './provisioner.ts';
import type { TaskRecord } from './task-record.ts';
import type { WorkerDescription } from './workers.ts';

/** What happened, for logs, metrics and pages. Observers only look: nothing they do reaches a machine. */
export type Observation =
  | { type: 'task.admitted'; record: TaskRecord; decision: PlacementDecision }
  | {
      type: 'task.refused';
      failure: Failure;
      engine: string;
      correlation_id: string;
      /** Who called, where that is known: `localhost`, or `token:` and its fingerprint. */
      identity: string | undefined;
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
  /** A model or an engine is being brought here: at most a few times a second. */
  | ({ pool_id: string } & ProvisioningProgress)
  | { type: 'pool.moved'; pool_id: string; from: string; to: string; failure: Failure | undefined }
  /** A pool is loaded or unloaded because of the memory that it shares with others; `human` says why. */
  | { type: 'memory.planned'; pool_id: string; do: 'load' | 'unload'; reason: string; human: string }
  /** What was stored for a pool is deleted, or could not be. */
  | { type: 'pool.purged'; pool_id: string; failure: Failure | undefined }
  /** A reload is over: it worked where there is no failure. */
  | { type: 'pool.reloaded'; pool_id: string; model_ref: string; failure: Failure | undefined }
  | {
      type: 'replica.moved';
      pool_id: string;
      replica_id: string;
      from: string;
      to: string;
      failure: Failure | undefined;
      exit: EngineLoss | undefined;
    }
  /** A model is in the catalog that was not, or another one of its name; `warnings` is what its trust lacks. */
  | {
      type: 'model.ingested';
      model_id: string;
      origin: 'caller' | 'provisioning';
      warnings: readonly string[];
    }
  | { type: 'model.verified'; model_id: string; result: 'pass' | 'warn' | 'fail'; reason: string }
  | { type: 'model.moved'; model_id: string; state: ModelState; deadline_ms: number }
  /** `files` is what became of those that were fetched for it. */
  | { type: 'model.removed'; model_id: string; files: 'removed' | 'kept' | 'none' | 'failed' }
  /** An engine was announced, and is used from now on in the place of the one before. */
  | { type: 'worker.bound'; worker: WorkerDescription; before: WorkerDescription | undefined }
  | { type: 'worker.unbound'; worker: WorkerDescription }
  /** A file that announces an engine cannot be used; told once for each that was written. */
  | { type: 'handoff.rejected'; file: string; failure: Failure }
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
