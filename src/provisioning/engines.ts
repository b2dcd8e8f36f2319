import { rm } from 'node:fs/promises';
import { availableParallelism, cpus } from 'node:os';
import { join } from 'node:path';
import type { Clock } from '../clock.ts';
import { TaskchartError, toFailure } from '../errors.ts';
import { forbidden, unobtainable } from '../models/failures.ts';
import { Flights } from '../models/flights.ts';
import { buildLlama } from './build-llama.ts';
import { llamaBundle } from './bundle.ts';
import { downloadBinary, downloadedEngine, type DownloadRequest, downloadSteps } from './download-binary.ts';
import { type EngineEntry, EngineIndex } from './engine-index.ts';
import { type ImageRequest, ensureImage, imageName, imageSteps } from './image.ts';
import { installPackage, type PackageRequest, packageSteps } from './install-package.ts';
import { type BuildRequest, type LlamaBuild, buildSteps, decideBuild } from './llama-build.ts';
import { installedServer, LLAMA_SERVER } from './llama-server.ts';
import type { EngineProgress, PreparedEngine, Step, TellEngineProgress } from './step.ts';
import { Toolbox } from './toolbox.ts';

/** Where a pool's engine comes from. */
export type EngineRequest =
  | { mode: 'binary'; path?: string }
  | ({ mode: 'download' } & DownloadRequest)
  | ({ mode: 'source' } & BuildRequest)
  | ({ mode: 'package' } & PackageRequest)
  | ({ mode: 'container' } & ImageRequest);

export interface EnginesOptions {
  policy: {
    /** Nothing is asked of anybody. */
    offline: boolean;
    /** Hosts that may be asked; all of them where it is empty. */
    allowlist: readonly string[];
  };
  /** What programs are started with, and where they are looked for (`PATH`). */
  env: Readonly<Record<string, string>>;
  clock: Clock;
}

/** Every engine of this process that is not a part of it: found, downloaded, built, installed or pulled, once for all who need the same. */
export class Engines {
  readonly #options: EnginesOptions;
  readonly #tools: Toolbox;
  readonly #flights = new Flights<PreparedEngine, EngineProgress>();

  constructor(options: EnginesOptions) {
    this.#options = options;
    this.#tools = new Toolbox(options.env);
  }

  /** What `ensure` would do, step by step; nothing is changed and nobody is asked. */
  plan(request: EngineRequest): Step[] {
    switch (request.mode) {
      case 'binary':
        return [{ kind: 'preflight-tools', human: `Look for ${request.path ?? `${LLAMA_SERVER} on PATH`}.` }];
      case 'download':
        return downloadSteps(request);
      case 'source':
        return buildSteps(this.#build(request));
      case 'package':
        return packageSteps(request);
      case 'container':
        return imageSteps(request, this.#tools);
    }
  }

  /** The program that is started once the engine is here. */
  programOf(request: Exclude<EngineRequest, { mode: 'container' }>): string {
    if (request.mode === 'source') return this.#build(request).program;
    if (request.mode === 'download') return downloadedEngine(request).program;
    if (request.mode === 'package') return this.#tools.find(LLAMA_SERVER) ?? LLAMA_SERVER;
    return this.#tools.find(request.path ?? LLAMA_SERVER) ?? request.path ?? LLAMA_SERVER;
  }

  /**
   * Brings an engine here, unless it is here: single flight for each, given up once nobody waits for it.
   * @throws TaskchartError with what to do
   */
  async ensure(
    request: EngineRequest,
    signal: AbortSignal,
    tell: TellEngineProgress = () => undefined,
  ): Promise<PreparedEngine> {
    try {
      const prepared = await this.#flights.join(this.#keyOf(request), signal, tell, (stop, told) =>
        this.#prepare(request, stop, told),
      );
      tell({ phase: 'prepared', fraction: 1 });
      return prepared;
    } catch (error) {
      if (error instanceof TaskchartError) throw error;
      signal.throwIfAborted();
      throw new TaskchartError(toFailure(error, 'POOL_UNAVAILABLE'));
    }
  }

  /** What was built in this folder. @throws TaskchartError */
  list(cache_dir: string): Promise<EngineEntry[]> {
    return new EngineIndex(cache_dir).entries();
  }

  /**
   * Forgets a build, also where its files cannot be removed.
   * @returns the entry, with what went wrong; undefined where there is none
   */
  async remove(cache_dir: string, id: string): Promise<{ entry: EngineEntry; problem?: string } | undefined> {
    const entry = await new EngineIndex(cache_dir).remove(id);
    if (!entry) return undefined;
    try {
      for (const path of entry.artifacts) await rm(join(cache_dir, path), { recursive: true, force: true });
      return { entry };
    } catch (error) {
      return { entry, problem: (error as Error).message };
    }
  }

  /** The same by what was asked for. @returns whether there was something to forget: only what we brought here is ours */
  async removeBuild(request: EngineRequest): Promise<boolean> {
    if (request.mode === 'download')
      return (await this.remove(request.cache_dir, downloadedEngine(request).id)) !== undefined;
    if (request.mode !== 'source') return false;
    const { cache_dir } = request.build;
    const { program } = this.#build(request);
    const entries = await this.list(cache_dir);
    const entry = entries.find(({ artifacts }) =>
      artifacts.some((path) => program.startsWith(join(cache_dir, path))),
    );
    return entry !== undefined && (await this.remove(cache_dir, entry.id)) !== undefined;
  }

  #keyOf(request: EngineRequest): string {
    switch (request.mode) {
      case 'source':
        return this.#build(request).folder;
      case 'download':
        return downloadedEngine(request).folder;
      case 'binary':
        return `binary ${request.path ?? ''}`;
      case 'package':
        return `package ${request.repo ?? ''}/${request.name} ${request.version ?? ''}`;
      case 'container':
        return imageName(request);
    }
  }

  #prepare(request: EngineRequest, signal: AbortSignal, tell: TellEngineProgress): Promise<PreparedEngine> {
    switch (request.mode) {
      case 'binary':
        return this.#locate(request.path, signal);
      case 'download': {
        const { url, cache_dir, is_allowed } = request;
        const index = new EngineIndex(cache_dir);
        const { allowlist } = this.#options.policy;
        const ports = { index, tools: this.#tools, clock: this.#options.clock, allowlist };
        const permit = (): void => {
          if (!is_allowed)
            throw forbidden(
              `provisioning.allow_binary_downloads is false, and ${url} is not here; set it to true to have it downloaded and run`,
            );
          this.#permit(url, 'engine');
        };
        return downloadBinary(request, { ...ports, permit }, signal, tell);
      }
      case 'package':
        return installPackage(
          request,
          { tools: this.#tools, offline: this.#options.policy.offline },
          signal,
          tell,
        );
      case 'source': {
        if (request.repo !== undefined) this.#permit(request.repo, 'source');
        const index = new EngineIndex(request.build.cache_dir);
        const ports = { index, tools: this.#tools, clock: this.#options.clock };
        return buildLlama(this.#build(request), ports, signal, tell);
      }
      case 'container': {
        const { offline } = this.#options.policy;
        if (!offline) this.#permit(`https://${registryOf(request.image)}`, 'image');
        return ensureImage(request, { tools: this.#tools, offline }, signal, tell);
      }
    }
  }

  async #locate(path: string | undefined, signal: AbortSignal): Promise<PreparedEngine> {
    const program = this.#tools.find(path ?? LLAMA_SERVER);
    if (program === undefined)
      throw unobtainable(
        path === undefined
          ? `there is no ${LLAMA_SERVER} on PATH; install llama.cpp, name it as provisioning.binary.path, or use provisioning.mode source, which builds it`
          : `${path} is no program that can be started; provisioning.binary.path has to be the path of a ${LLAMA_SERVER}`,
      );
    return installedServer('binary', program, this.#tools, signal);
  }

  /** @throws TaskchartError naming the key that forbids it */
  #permit(from: string, what: string): void {
    const { offline, allowlist } = this.#options.policy;
    const url = URL.parse(from);
    if (!url || url.protocol === 'file:') return;
    if (offline) throw forbidden(`policy.offline forbids to fetch the ${what} from ${url.host}`);
    const isListed = allowlist.some(
      (host) => url.host === host || url.hostname === host || url.hostname.endsWith(`.${host}`),
    );
    if (allowlist.length > 0 && !isListed)
      throw forbidden(`policy.allowlist does not have ${url.host}, from which the ${what} would be fetched`);
  }

  #build(request: BuildRequest): LlamaBuild {
    const machine = {
      platform: process.platform,
      arch: process.arch,
      cpu: cpus()[0]?.model ?? '',
      jobs: availableParallelism(),
    };
    return decideBuild(request, machine, llamaBundle(), this.#tools);
  }
}

/** The first part of a name is a host where it looks like one; everything else is on Docker Hub. */
function registryOf(image: string): string {
  const [first = ''] = image.split('/');
  const isHost = image.includes('/') && (/[.:]/.test(first) || first === 'localhost');
  return isHost ? first : 'docker.io';
}
