import type { ModelLibrary, ModelLibraryOptions, ModelRequirements, TellProgress } from './library.ts';
import {
  fileModels,
  folderModels,
  isLocal,
  nameOf,
  requestedName,
  type PreparedModel,
  type ResolvedModel,
} from './source.ts';

/**
 * Every model of this process. What fetches them is loaded with the first one that has to be fetched: a daemon
 * without any starts sooner.
 */
export class Models {
  readonly #options: ModelLibraryOptions;
  #library: Promise<ModelLibrary> | undefined;

  constructor(options: ModelLibraryOptions) {
    this.#options = options;
  }

  /** The steps of a provisioning, for a pool with these requirements. Every step throws TaskchartError. */
  source(requirements: ModelRequirements = {}) {
    const stepsFor = async (reference: string) =>
      isLocal(nameOf(reference)) && requirements.checksum === undefined
        ? requirements.form === 'folder'
          ? folderModels
          : fileModels
        : (await this.#load()).source(requirements);
    return {
      nameOf: requestedName,
      locate: async (model_ref: string): Promise<string | undefined> =>
        (await stepsFor(model_ref)).locate(model_ref),
      resolve: async (model_ref: string, signal: AbortSignal): Promise<ResolvedModel> =>
        (await stepsFor(model_ref)).resolve(model_ref, signal),
      fetch: async (model: ResolvedModel, signal: AbortSignal, tell: TellProgress): Promise<ResolvedModel> =>
        (await stepsFor(model.id)).fetch(model, signal, tell),
      verify: async (model: ResolvedModel, signal: AbortSignal, tell: TellProgress): Promise<PreparedModel> =>
        (await stepsFor(model.id)).verify(model, signal, tell),
    };
  }

  /** Deletes what was fetched by a reference; `kept` is what is in use, or was never fetched. */
  async remove(model_ref: string, isUnused = false): Promise<'removed' | 'kept' | 'none'> {
    return isLocal(nameOf(model_ref)) ? 'kept' : (await this.#load()).remove(model_ref, isUnused);
  }

  /** Ends connections, and lets go of what this process has in use. */
  async close(): Promise<void> {
    await (await this.#library)?.close();
  }

  #load(): Promise<ModelLibrary> {
    this.#library ??= import('./library.ts').then(({ ModelLibrary }) => new ModelLibrary(this.#options));
    return this.#library;
  }
}
