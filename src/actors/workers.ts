import { isDeepStrictEqual } from 'node:util';
import type { WorkerRegistration } from '../contract/generated/types.ts';
import { failure, TaskchartError } from '../errors.ts';
import type { Observers } from './observation.ts';
import { Turns } from './turns.ts';

/** An engine that somebody else runs and announces, with everything that was left out filled in. Plain data. */
export interface WorkerDescription {
  /** The pool it belongs to. */
  readonly pool_id: string;
  /** Its name in the pool: whoever comes under the same one takes its place. */
  readonly replica_id: string;
  /** Where it listens. */
  readonly url: string;
  readonly engine: WorkerRegistration['engine'];
  readonly engine_version: string;
  /** Tasks that it runs at the same time; undefined: nobody has said. */
  readonly slots_total?: number;
  /** Its devices. */
  readonly device_mask?: string;
}

/** Where engines are announced. */
export interface WorkerPort {
  /**
   * Puts an engine in its place; saying the same again changes nothing.
   * @throws TaskchartError INVALID_PARAMS for a pool that there is not, or what the pool says to it
   */
  bind(worker: WorkerDescription): Promise<void>;
  /** Takes the engine in that place away; where there is none, nothing happens. */
  unbind(pool_id: string, replica_id: string): Promise<void>;
}

/** Whoever gives work to engines that were announced. */
export interface WorkerHost {
  /**
   * Begins to use an engine.
   * @param before what is in its place until now, to be given up; undefined: nothing is
   * @throws TaskchartError where it cannot be used; what was there before stays
   */
  attach(worker: WorkerDescription, before: WorkerDescription | undefined): void | Promise<void>;
  /** Stops using it. */
  detach(worker: WorkerDescription): void | Promise<void>;
}

export interface WorkersOptions {
  host: WorkerHost;
  /** Whether there is such a pool. */
  knows: (pool_id: string) => boolean;
  observers: Observers;
}

/** Every engine that was announced, whoever did it: the latest of a place wins. */
export class Workers implements WorkerPort {
  readonly #options: WorkersOptions;
  readonly #bound = new Map<string, WorkerDescription>();
  readonly #turns = new Turns();

  constructor(options: WorkersOptions) {
    this.#options = options;
  }

  /** What is bound in a place. */
  get(pool_id: string, replica_id: string): WorkerDescription | undefined {
    return this.#bound.get(placeOf(pool_id, replica_id));
  }

  bind(worker: WorkerDescription): Promise<void> {
    const { host, knows, observers } = this.#options;
    const place = placeOf(worker.pool_id, worker.replica_id);
    return this.#turns.take([place], async () => {
      const before = this.#bound.get(place);
      if (before && isDeepStrictEqual(before, worker)) return;
      if (!knows(worker.pool_id))
        throw new TaskchartError(
          failure('INVALID_PARAMS', `pool_id: there is no pool "${worker.pool_id}"`, {
            engine: worker.engine,
          }),
        );
      await host.attach(worker, before);
      this.#bound.set(place, worker);
      observers.tell({ type: 'worker.bound', worker, before });
    });
  }

  unbind(pool_id: string, replica_id: string): Promise<void> {
    const { host, observers } = this.#options;
    const place = placeOf(pool_id, replica_id);
    return this.#turns.take([place], async () => {
      const worker = this.#bound.get(place);
      if (!worker) return;
      // Whatever its host says to it: the engine is not to be used any more.
      this.#bound.delete(place);
      await host.detach(worker);
      observers.tell({ type: 'worker.unbound', worker });
    });
  }
}

function placeOf(pool_id: string, replica_id: string): string {
  return `${pool_id}/${replica_id}`;
}
