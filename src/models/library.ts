import { statfs } from 'node:fs/promises';
import { modelId, type RemoteModelName } from '../config/model.ts';
import { systemClock, type Clock } from '../clock.ts';
import { failure, TaskchartError, toFailure } from '../errors.ts';
import { ModelCache } from './cache.ts';
import { digestOf } from './download.ts';
import { forbidden, unobtainable, untrusted } from './failures.ts';
import { FetchJob, type FreeSpace } from './fetch-job.ts';
import { Flights } from './flights.ts';
import type { Hub } from './origins/hub.ts';
import type { RemoteModel } from './origins/origin.ts';
import { loadS3Sdk, type S3Sdk } from './origins/s3.ts';
import { ProgressMeter } from './progress.ts';
import { FETCH_RETRY, type RetryRules } from './retry.ts';
import {
  fileModels,
  isLocal,
  nameOf,
  type ModelProgress,
  type PreparedModel,
  type ResolvedModel,
} from './source.ts';
import { Web } from './web.ts';

export interface ModelLibraryOptions {
  /** Folder of the model files; it is made when the first one is fetched. */
  cache_dir: string;
  /** Most bytes that it may hold. @default no limit */
  max_bytes?: number | undefined;
  /** Where it is noted what came from where; JSON lines. */
  provenance_file: string;
  policy: {
    /** Nothing is asked of anybody. */
    offline: boolean;
    /** Whether a model that is not here is fetched. */
    auto_fetch: boolean;
    /** Hosts that may be asked; all of them where it is empty. */
    allowlist: readonly string[];
  };
  /** @default the public hub, without a token */
  hub?: Partial<Hub> | undefined;
  /** @default the system's clock */
  clock?: Clock;
  /** 0 to 1; the jitter of retries. @default Math.random */
  random?: () => number;
  retry?: RetryRules;
  /** Silence after which a connection counts as dead, in milliseconds. @default 30000 */
  stall_ms?: number;
  /** Bytes that stay free on the disk. @default 256 MiB */
  reserve_bytes?: number;
  /** @default what the file system says */
  free_space?: FreeSpace;
  /** @default the package `@aws-sdk/client-s3`, where it is installed */
  load_s3?: () => Promise<S3Sdk>;
}

export interface ModelRequirements {
  /** `sha256:<hex>` that the file must have. */
  checksum?: string | undefined;
  /** What the engine is given: one GGUF, or a folder. @default gguf */
  form?: 'gguf' | 'folder';
}

/** Hears how far a model is, at most four times a second. */
export type TellProgress = (progress: ModelProgress) => void;

const HUB = 'https://huggingface.co';
const STALL_MS = 30_000;
const RESERVE_BYTES = 256 * 1024 * 1024;

/** Every model of this process: those in files, and those that are fetched, checked and cached. */
export class ModelLibrary {
  readonly #options: ModelLibraryOptions;
  readonly #clock: Clock;
  readonly #hub: Hub;
  readonly #cache: ModelCache;
  readonly #web: Web;
  readonly #flights = new Flights<void, ModelProgress>();
  /** What was resolved, until it is fetched. */
  readonly #plans = new Map<string, RemoteModel>();

  constructor(options: ModelLibraryOptions) {
    const { clock = systemClock, random = Math.random, retry = FETCH_RETRY, hub, policy } = options;
    this.#options = options;
    this.#clock = clock;
    this.#hub = { endpoint: (hub?.endpoint ?? HUB).replace(/\/+$/, ''), token: hub?.token };
    this.#cache = new ModelCache(options.cache_dir, options.max_bytes);
    this.#web = new Web({
      retry: { clock, random, rules: retry },
      allowlist: policy.allowlist,
      stall_ms: options.stall_ms ?? STALL_MS,
    });
  }

  /** The steps of a provisioning, for a pool with these requirements. Every step throws TaskchartError. */
  source({ checksum, form = 'gguf' }: ModelRequirements = {}) {
    return {
      locate: (model_ref: string) => this.#locate(model_ref),
      resolve: (model_ref: string, signal: AbortSignal): Promise<ResolvedModel> =>
        this.#guarded(() => this.#resolve(model_ref, checksum, form, signal)),
      fetch: (
        model: ResolvedModel,
        signal: AbortSignal,
        progress: TellProgress = ignore,
      ): Promise<ResolvedModel> => this.#guarded(() => this.#fetch(model, signal, progress)),
      verify: (
        model: ResolvedModel,
        signal: AbortSignal,
        progress: TellProgress = ignore,
      ): Promise<PreparedModel> => this.#guarded(() => this.#verify(model, form, signal, progress)),
    };
  }

  /**
   * Deletes what was fetched by a reference; `kept` is what somebody uses or fetches, or was never fetched.
   * @throws Error of the file system
   */
  async remove(model_ref: string, isUnused = false): Promise<'removed' | 'kept' | 'none'> {
    const name = nameOf(model_ref);
    if (isLocal(name)) return 'kept';
    const entry = await this.#cache.lookup(modelId(name, '.'));
    if (!entry) return 'none';
    if (isUnused) this.#cache.release(entry.path);
    return (await this.#cache.evict(entry)) ? 'removed' : 'kept';
  }

  /** Ends connections, and lets go of what this process has in use. */
  async close(): Promise<void> {
    this.#cache.close();
    await this.#web.close();
  }

  async #locate(model_ref: string): Promise<string | undefined> {
    const name = nameOf(model_ref);
    if (isLocal(name)) return fileModels.locate(model_ref);
    const entry = await this.#cache.lookup(modelId(name, '.'));
    return entry && this.#cache.pathOf(entry.path);
  }

  async #resolve(
    model_ref: string,
    checksum: string | undefined,
    form: 'gguf' | 'folder',
    signal: AbortSignal,
  ): Promise<ResolvedModel> {
    const name = nameOf(model_ref);
    const digest = checksum === undefined ? {} : { digest: checksum };
    if (isLocal(name)) return { ...(await fileModels.resolve(model_ref)), ...digest };
    const isFolder = name.kind === 'hf' && name.file === undefined && name.quant === undefined;
    if (isFolder && form === 'gguf')
      throw unobtainable(
        `model "${model_ref}" is a whole repository; this engine takes one GGUF: ${model_ref}/path/file.gguf or ${model_ref}:QUANT`,
      );
    const id = modelId(name, '.');
    const cached = await this.#cache.lookup(id);
    if (cached) {
      const { revision, path } = cached;
      return {
        id,
        path: this.#cache.pathOf(path),
        present: true,
        ...(revision === undefined ? {} : { revision }),
        ...digest,
      };
    }
    this.#permit(id);
    const plan = await this.#find(name, signal);
    const [first] = plan.files;
    if (!first) throw unobtainable(`model "${model_ref}" has no files`);
    if (checksum !== undefined && (plan.isFolder || plan.files.length > 1))
      throw unobtainable(`model "${model_ref}" has ${plan.files.length} files, checksum goes with one`);
    if (checksum !== undefined && first.digest !== undefined && first.digest !== checksum)
      throw untrusted(
        `model "${model_ref}" has the digest ${first.digest} at its origin, checksum says ${checksum}`,
      );
    this.#plans.set(id, plan);
    return {
      id,
      path: this.#cache.pathOf(pathOf(plan)),
      present: false,
      ...(plan.revision === undefined ? {} : { revision: plan.revision }),
      ...digest,
    };
  }

  /** @throws TaskchartError naming the key that forbids it */
  #permit(id: string): void {
    const { offline, auto_fetch } = this.#options.policy;
    if (offline)
      throw forbidden(`model "${id}" is not on this machine, and policy.offline forbids to fetch it`);
    if (!auto_fetch)
      throw forbidden(
        `model "${id}" is not on this machine, and policy.auto_fetch: false forbids to fetch it`,
      );
  }

  async #find(name: RemoteModelName, signal: AbortSignal): Promise<RemoteModel> {
    switch (name.kind) {
      case 'hf':
        return (await import('./origins/hub.ts')).resolveHub(name, this.#hub, this.#web, signal);
      case 'oci':
        return (await import('./origins/registry.ts')).resolveRegistry(name, this.#web, signal);
      case 'https':
        return (await import('./origins/https.ts')).resolveUrl(name, this.#hub, this.#web, signal);
      case 's3': {
        // The SDK asks by itself: only the host that it surely asks can be held against the list.
        this.#web.check(new URL(`https://${name.bucket}.s3.amazonaws.com`));
        const sdk = await (this.#options.load_s3 ?? loadS3Sdk)();
        return (await import('./origins/s3.ts')).resolveS3(name, sdk, this.#web.retry, signal);
      }
    }
  }

  async #fetch(model: ResolvedModel, signal: AbortSignal, progress: TellProgress): Promise<ResolvedModel> {
    const plan = this.#plans.get(model.id);
    if (model.present || !plan) return model;
    const path = pathOf(plan);
    const { reserve_bytes = RESERVE_BYTES, free_space = freeSpace, provenance_file } = this.#options;
    await this.#flights.join(path, signal, progress, async (stop, tell) => {
      const job = new FetchJob({
        id: model.id,
        path,
        plan,
        checksum: model.digest,
        cache: this.#cache,
        clock: this.#clock,
        retry: this.#web.retry,
        reserve_bytes,
        free_space,
        provenance_file,
        meter: new ProgressMeter(this.#clock, tell),
      });
      await job.run(stop);
    });
    // Another reference may have brought the same files.
    await this.#cache.name(model.id, path);
    this.#plans.delete(model.id);
    return { ...model, present: true };
  }

  async #verify(
    model: ResolvedModel,
    form: 'gguf' | 'folder',
    signal: AbortSignal,
    progress: TellProgress,
  ): Promise<PreparedModel> {
    const meter = new ProgressMeter(this.#clock, progress);
    if (isLocal(nameOf(model.id))) {
      const prepared = await fileModels.verify(model, signal);
      if (model.digest === undefined) return prepared;
      const { size_bytes } = prepared;
      const digest = await digestOf(model.path, signal, (bytes) =>
        meter.tell('verifying', bytes, size_bytes),
      );
      if (digest !== model.digest)
        throw untrusted(`model "${model.id}" has the digest ${digest}, checksum says ${model.digest}`);
      return { ...prepared, digest, verification: 'pass' };
    }
    const { digest, verified, size_bytes, revision } = await this.#verifyCached(model, signal, meter);
    const facts = {
      ...(digest === undefined ? {} : { digest }),
      ...(revision === undefined ? {} : { revision }),
      verification: verified ? ('pass' as const) : ('warn' as const),
    };
    if (form === 'folder') return { id: model.id, path: model.path, size_bytes, ...facts };
    return { ...(await fileModels.verify(model, signal)), size_bytes, ...facts };
  }

  /** From here on nobody evicts it. */
  async #verifyCached(model: ResolvedModel, signal: AbortSignal, meter: ProgressMeter) {
    const found = await this.#cache.lookup(model.id);
    const entry = found && this.#cache.use(found.path) ? await this.#cache.whole(found.path) : undefined;
    if (!entry) throw gone(model.id);
    await this.#cache.touch(entry.path, this.#clock.wall());
    const size_bytes = entry.files.reduce((sum, file) => sum + (file.size_bytes ?? 0), 0);
    if (!(await this.#cache.isUntouched(entry))) await this.#rehash(entry, size_bytes, signal, meter);
    const [only, other] = entry.files;
    const digest = other ? undefined : only?.digest;
    if (model.digest !== undefined && digest !== model.digest)
      throw untrusted(
        digest === undefined
          ? `model "${model.id}" has ${entry.files.length} files, checksum goes with one`
          : `model "${model.id}" has the digest ${digest}, checksum says ${model.digest}`,
      );
    return {
      digest,
      size_bytes,
      revision: entry.revision,
      verified: entry.verified || model.digest !== undefined,
    };
  }

  /** Somebody has written to it since it was fetched, or the folder was copied. */
  async #rehash(
    entry: NonNullable<Awaited<ReturnType<ModelCache['lookup']>>>,
    size_bytes: number,
    signal: AbortSignal,
    meter: ProgressMeter,
  ): Promise<void> {
    let before = 0;
    for (const file of entry.files) {
      const path = this.#cache.pathOf(`${entry.folder}/${file.name}`);
      const digest = await digestOf(path, signal, (bytes) =>
        meter.tell('verifying', before + bytes, size_bytes),
      );
      before += file.size_bytes ?? 0;
      if (digest === file.digest) continue;
      await this.#cache.forget(entry);
      throw gone(entry.id);
    }
    await this.#cache.keep(await FetchJob.stamped(this.#cache, entry));
  }

  /** Whatever goes wrong is a member of the family, and nothing in it is a secret. */
  async #guarded<T>(step: () => Promise<T>): Promise<T> {
    try {
      return await step();
    } catch (error) {
      const cause = toFailure(error, 'POOL_UNAVAILABLE');
      const { token } = this.#hub;
      if (token === undefined || !cause.message.includes(token)) {
        throw error instanceof TaskchartError ? error : new TaskchartError(cause);
      }
      throw new TaskchartError({ ...cause, message: cause.message.replaceAll(token, '***') });
    }
  }
}

const ignore: TellProgress = () => undefined;

function pathOf({ folder, files, isFolder }: RemoteModel): string {
  return isFolder ? folder : `${folder}/${files[0]?.name ?? ''}`;
}

function gone(id: string): TaskchartError {
  return new TaskchartError(
    failure('POOL_UNAVAILABLE', `model "${id}" is not whole in the cache any more; it is fetched again`),
  );
}

async function freeSpace(folder: string): Promise<number> {
  const { bavail, bsize } = await statfs(folder);
  return bavail * bsize;
}
