import { stat } from 'node:fs/promises';
import type { CatalogEntry, FileStamp } from '../catalog/catalog-store.ts';
import { catalogIdOf, parseModel } from '../config/model.ts';
import { failure, TaskchartError } from '../errors.ts';
import type { PreparedModel, ResolvedModel } from '../machines/provisioner.ts';
import { loadableOf, type Catalog } from './catalog.ts';
import type { ModelSource } from './provisioner.ts';

/** Gives the steps of a provisioning whose file must have this digest; any file where it is undefined. */
export type StepsFor = (checksum: string | undefined) => ModelSource;

/** A provisioning between its steps. */
interface Plan {
  model_ref: string;
  /** What its model is loaded by. */
  target: string;
  steps: ModelSource;
  /** Digest that its file has to have, whether or not it is read again. */
  digest: string | undefined;
  /** Whether its file is read and compared. */
  isCompared: boolean;
}

/**
 * A source of models that asks the catalog first: what a name means, whether it may be used, and which digest it must
 * have. A model that was prepared is in the catalog afterwards.
 * @param checksum what the pool's configuration demands
 */
export function catalogedSource(catalog: Catalog, stepsFor: StepsFor, checksum?: string): ModelSource {
  const plans = new Map<string, Plan>();

  async function planOf(model_ref: string): Promise<Plan> {
    await permit(catalog, model_ref);
    const entry = catalog.find(model_ref);
    if (entry && checksum !== undefined && checksum !== entry.digest)
      throw untrusted(model_ref, `has the digest ${entry.digest} in the catalog, checksum says ${checksum}`);
    const target = targetOf(model_ref, entry);
    // A file of this machine is read once, and again when it has changed; what was fetched is watched by its cache.
    const isKnown = entry !== undefined && isLocal(target) && (await catalog.isUntouched(entry));
    const digest = checksum ?? entry?.digest;
    const demanded = isKnown ? undefined : digest;
    const isCompared = demanded !== undefined && isLocal(target);
    return { model_ref, target, steps: stepsFor(demanded), digest, isCompared };
  }

  function known(model: ResolvedModel): Plan {
    const plan = plans.get(model.id);
    if (!plan) throw new Error(`model ${model.id} was not resolved here`);
    return plan;
  }

  async function checked<T>({ model_ref }: Plan, step: () => Promise<T>): Promise<T> {
    try {
      return await step();
    } catch (error) {
      if (error instanceof TaskchartError && error.code === 'UNTRUSTED_ARTIFACT')
        catalog.tell({
          type: 'model.verified',
          model_id: catalogIdOf(model_ref),
          result: 'fail',
          reason: 'digest_mismatch',
        });
      throw error;
    }
  }

  return {
    nameOf: (model_ref) => stepsFor(undefined).nameOf(model_ref),

    async locate(model_ref) {
      const target = targetOf(model_ref, catalog.find(model_ref));
      return stepsFor(undefined).locate(target);
    },

    async resolve(model_ref, signal) {
      const plan = await planOf(model_ref);
      const resolved = await checked(plan, () => plan.steps.resolve(plan.target, signal));
      plans.set(resolved.id, plan);
      return resolved;
    },

    async fetch(model, signal, progress) {
      const plan = known(model);
      const fetched = await checked(plan, () => plan.steps.fetch(model, signal, progress));
      plan.isCompared = true;
      return fetched;
    },

    async verify(model, signal, progress) {
      const plan = known(model);
      const prepared = await checked(plan, async () => {
        const found = await plan.steps.verify(model, signal, progress);
        if (plan.digest !== undefined && found.digest !== undefined && found.digest !== plan.digest)
          throw untrusted(plan.model_ref, `has the digest ${found.digest}, the catalog says ${plan.digest}`);
        return found;
      });
      // Nobody waits for the catalog: the model is here, whether or not that can be written down.
      void register(catalog, plan, prepared).catch((error: unknown) => {
        if (!catalog.isClosed)
          process.emitWarning(`a model cannot be added to the catalog: ${String(error)}`);
      });
      return plan.digest === undefined ? prepared : { ...prepared, digest: plan.digest };
    },
  };
}

/** A source of models that others have loaded: the catalog only says whether they may be used. */
export function gatedSource(catalog: Catalog, source: ModelSource): ModelSource {
  return {
    ...source,
    async resolve(model_ref, signal) {
      await permit(catalog, model_ref);
      return source.resolve(model_ref, signal);
    },
  };
}

/** @throws TaskchartError that lets the pool ask again: the catalog may say something else by then */
async function permit(catalog: Catalog, model_ref: string): Promise<void> {
  await catalog.refresh();
  const refusal = catalog.refusalOf(model_ref);
  if (refusal) throw new TaskchartError({ ...refusal, retriable: true });
}

async function register(
  catalog: Catalog,
  { model_ref, target, digest: demanded, isCompared }: Plan,
  { digest: found, path, size_bytes, verification }: PreparedModel,
): Promise<void> {
  const entry = catalog.find(model_ref);
  const id = entry?.id ?? catalogIdOf(model_ref);
  const result = demanded === undefined ? verification : 'pass';
  const reason = result === 'pass' ? 'digest_match' : 'no_digest';
  // What comes with the package has not been compared, and need not be warned about.
  if (parseModel(target).kind !== 'bundled' || isCompared)
    catalog.tell({ type: 'model.verified', model_id: id, result, reason });
  const file = isLocal(target) ? await stampOf(path) : undefined;
  // A folder, or a model in several files, has no digest of its own.
  const digest = found ?? demanded ?? (file && (await catalog.digestOf(path)));
  if (digest === undefined) return;
  const isHere = { local_path: path, ...(file ? { file } : {}) };
  const outcome = isCompared ? { verification: result, last_verified_ms: catalog.now() } : {};
  await catalog.note(id, {
    digest,
    ...(parseModel(target).kind === 'bundled' ? {} : { source_url: target }),
    manifests: [{ digest, size_bytes }],
    ...isHere,
    ...outcome,
  });
}

/** @throws TaskchartError where the catalog has the model, and nothing tells where its file is */
function targetOf(model_ref: string, entry: CatalogEntry | undefined): string {
  const target = entry ? loadableOf(entry) : catalogIdOf(model_ref);
  if (target !== undefined) return target;
  throw new TaskchartError(
    failure(
      'POOL_UNAVAILABLE',
      `model "${model_ref}" is in the catalog, but its source_url is nothing that can be loaded; give it one such as ` +
        'hf:org/repo/file.gguf or file:/path/model.gguf',
      { retriable: false },
    ),
  );
}

function isLocal(reference: string): boolean {
  const { kind } = parseModel(reference);
  return kind === 'file' || kind === 'bundled';
}

async function stampOf(path: string): Promise<FileStamp | undefined> {
  const found = await stat(path).catch(() => undefined);
  return found?.isFile() ? { size_bytes: found.size, mtime_ms: found.mtimeMs } : undefined;
}

function untrusted(model_ref: string, why: string): TaskchartError {
  return new TaskchartError(failure('UNTRUSTED_ARTIFACT', `model "${model_ref}" ${why}`));
}
