import type { Failure } from '../errors.ts';
import type { PreparedModel } from '../machines/provisioner.ts';
import { startProvisioner, type ModelSource, type ProvisioningProgress } from './provisioner.ts';

export interface PoolModelOptions {
  /** What tasks call it. */
  name: string;
  /** Where it comes from; left out where its name says so. */
  model_ref?: string | undefined;
  source: ModelSource;
  progress: (progress: ProvisioningProgress) => void;
}

/** One model of a pool: where it comes from, and what it turned out to be. */
interface Weights {
  ref: string;
  prepared: PreparedModel | undefined;
}

/** The model that a pool serves, the one that is to come, and the one that it would go back to. */
export class PoolModel {
  readonly #options: PoolModelOptions;
  #current: Weights;
  #next: Weights | undefined;
  #previous: Weights | undefined;
  #cancel: (() => void) | undefined;
  #run: object | undefined;

  constructor(options: PoolModelOptions) {
    this.#options = options;
    this.#current = { ref: options.model_ref ?? options.name, prepared: undefined };
  }

  /** What tasks call it: a name of its own stays whatever is behind it, a reference is the model. */
  get name(): string {
    return this.isNamed ? this.#options.name : this.#current.ref;
  }

  get isNamed(): boolean {
    return this.#options.model_ref !== undefined;
  }

  get ref(): string {
    return this.#current.ref;
  }

  get prepared(): PreparedModel | undefined {
    return this.#current.prepared;
  }

  /** Where the next one is to come from. */
  plan(ref: string): void {
    this.#next = { ref, prepared: undefined };
  }

  /** Brings a model here and checks it; `told` hears the one outcome. */
  prepare(which: 'current' | 'next', told: (failed: Failure | undefined) => void): void {
    this.cancel();
    const weights = which === 'next' ? (this.#next ?? this.#current) : this.#current;
    const run = (this.#run = {});
    this.#cancel = startProvisioner(
      weights.ref,
      this.#options.source,
      (fact) => {
        // One that was canceled has nothing to say any more.
        if (this.#run !== run) return;
        this.#run = this.#cancel = undefined;
        if (fact.type === 'model.prepared') weights.prepared = fact.model;
        told(fact.type === 'model.failed' ? fact.failure : undefined);
      },
      this.#options.progress,
    );
  }

  /** The next one is the pool's from now on. */
  adopt(): void {
    if (!this.#next) return;
    this.#previous = this.#current;
    this.#current = this.#next;
    this.#next = undefined;
  }

  /** The one before is the pool's again. */
  restore(): void {
    this.#next = undefined;
    if (!this.#previous) return;
    this.#current = this.#previous;
    this.#previous = undefined;
  }

  cancel(): void {
    const cancel = this.#cancel;
    this.#run = this.#cancel = undefined;
    cancel?.();
  }

  /** The path of its file, where it is on this machine; '' where it has none. */
  async locate(): Promise<string | undefined> {
    return this.#current.prepared?.path ?? (await this.#options.source.locate(this.#current.ref));
  }
}
