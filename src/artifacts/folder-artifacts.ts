import { lstat, mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Artifact, ArtifactPage, ArtifactRef } from '../contract/generated/types.ts';
import { reasonOf, StoreError } from '../sqlite/store-error.ts';
import { digestIn, digestOf, refOf, seal, type Sealed } from './artifact.ts';
import { ArtifactIndex, type Entry } from './artifact-index.ts';
import type { ArtifactLimits, ArtifactQuery, ArtifactStore, ArtifactStoreOptions } from './artifact-store.ts';
import { closing } from './memory-artifacts.ts';

export interface FolderArtifactsOptions extends ArtifactStoreOptions {
  /** Hears of files that are no artifacts, or not any more, and of folders that cannot be read. @default none */
  onError?: ((error: StoreError) => void) | undefined;
}

interface Found extends Entry {
  /** What a list says of it, once it was read. */
  ref?: ArtifactRef;
}

const BRANCH = /^[0-9a-f]{2}$/;
const DIGEST = /^[0-9a-f]{64}$/;
const UNFINISHED = /^[0-9a-f]{64}\.\d+\.tmp$/;

/**
 * Artifacts in a folder, for one process at a time: `<folder>/<two hex digits>/<digest>`, each file its artifact's
 * canonical text, so that `sha256sum` of a file is its name and a damaged one is known. A file is there whole or not at
 * all, also after a loss of power; its time of change is when it was stored. What others put into the folder is told
 * and left alone. The folder is made when the first artifact comes.
 */
export class FolderArtifacts implements ArtifactStore {
  readonly #folder: string;
  readonly #onError: FolderArtifactsOptions['onError'];
  readonly #wall: () => number;
  readonly #index = new ArtifactIndex<Found>();
  /** Same artifacts that come at the same time are written once. */
  readonly #writing = new Map<string, Promise<ArtifactRef>>();
  #scanned: Promise<void> | undefined;
  /** Files leave one after the other, and before one of their name is written again. */
  #leaving = Promise.resolve();
  #writes = 0;
  #isClosed = false;

  constructor(folder: string, { onError, wall = Date.now }: FolderArtifactsOptions = {}) {
    this.#folder = folder;
    this.#onError = onError;
    this.#wall = wall;
  }

  async put(artifact: Artifact): Promise<ArtifactRef> {
    if (this.#isClosed) throw closing();
    const sealed = seal(artifact);
    this.#index.checkSize(sealed.bytes);
    const { digest } = sealed;
    let writing = this.#writing.get(digest);
    if (!writing) {
      writing = this.#put(artifact, sealed).finally(() => this.#writing.delete(digest));
      this.#writing.set(digest, writing);
    }
    return writing;
  }

  async get(id: string): Promise<Artifact | undefined> {
    await this.#ready();
    const entry = this.#index.get(digestIn(id) ?? '');
    return entry && this.#read(entry);
  }

  async list(query: ArtifactQuery): Promise<ArtifactPage> {
    await this.#ready();
    return this.#index.page(query, (entry) => this.#refOf(entry));
  }

  /** What is too old or too much leaves at once. */
  limit(limits: ArtifactLimits): void {
    this.#index.limits = limits;
    void this.#ready();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#scanned;
    await Promise.allSettled(this.#writing.values());
    await this.#leaving;
  }

  async #put(artifact: Artifact, { digest, text, bytes }: Sealed): Promise<ArtifactRef> {
    await this.#ready();
    const known = this.#index.get(digest);
    // Looked at and not believed: whoever stores it again may do so because it cannot be read.
    const ref = known && (await this.#read(known)) && known.ref;
    if (ref) return ref;
    const created_ms = Math.floor(this.#wall());
    await this.#write(digest, text, created_ms);
    const entry = { digest, bytes, created_ms, ref: refOf(artifact, digest, created_ms) };
    this.#index.add(entry);
    await this.#trim();
    return entry.ref;
  }

  async #refOf(entry: Found): Promise<ArtifactRef | undefined> {
    if (!entry.ref) await this.#read(entry);
    return entry.ref;
  }

  /** Undefined, and no longer known, where the file is gone or damaged. */
  async #read(entry: Found): Promise<Artifact | undefined> {
    const { digest, created_ms } = entry;
    const path = this.#pathOf(digest);
    try {
      const bytes = await readFile(path);
      if (digestOf(bytes) !== digest)
        throw new StoreError(
          'foreign',
          `${path} is not the artifact that its name says; it was left as it is`,
        );
      const artifact = JSON.parse(bytes.toString('utf8')) as Artifact;
      entry.ref ??= refOf(artifact, digest, created_ms);
      return artifact;
    } catch (error) {
      if (this.#index.get(digest) === entry) this.#index.delete(digest);
      if (!isMissing(error)) this.#tell(error, path);
      return undefined;
    }
  }

  /** All of it under its name, or nothing. */
  async #write(digest: string, text: string, created_ms: number): Promise<void> {
    const path = this.#pathOf(digest);
    const branch = dirname(path);
    const unfinished = `${path}.${this.#writes++}.tmp`;
    let isNew = false;
    try {
      isNew = (await mkdir(branch, { recursive: true, mode: 0o700 })) !== undefined;
      const file = await open(unfinished, 'w', 0o600);
      try {
        await file.writeFile(text);
        await file.utimes(new Date(created_ms), new Date(created_ms));
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(unfinished, path);
    } catch (error) {
      await this.#remove(unfinished);
      throw new StoreError('unusable', `cannot write ${path}: ${reasonOf(error)}`, { cause: error });
    }
    await syncFolder(branch);
    if (isNew) await syncFolder(this.#folder);
  }

  /** Looks at the folder only once it is known what may stay. */
  async #ready(): Promise<void> {
    await (this.#scanned ??= this.#scan());
    await this.#trim();
  }

  async #trim(): Promise<void> {
    const gone = this.#index.trim(this.#wall());
    if (gone.length > 0)
      this.#leaving = this.#leaving.then(async () => {
        for (const { digest } of gone) await this.#remove(this.#pathOf(digest));
      });
    await this.#leaving;
  }

  async #remove(path: string): Promise<void> {
    await rm(path, { force: true }).catch((error: unknown) => this.#tell(error, path));
  }

  /** Finds what earlier processes have stored; what they had not finished is removed. */
  async #scan(): Promise<void> {
    const found: Found[] = [];
    const foreign: string[] = [];
    for (const branch of await this.#listing(this.#folder)) {
      const folder = join(this.#folder, branch);
      if (!BRANCH.test(branch)) {
        foreign.push(folder);
        continue;
      }
      for (const name of await this.#listing(folder)) {
        const path = join(folder, name);
        const isOurs = name.startsWith(branch);
        if (isOurs && UNFINISHED.test(name)) await this.#remove(path);
        else if (isOurs && DIGEST.test(name)) {
          const entry = await this.#entryOf(path, name);
          if (entry) found.push(entry);
          else foreign.push(path);
        } else foreign.push(path);
      }
    }
    for (const entry of found.sort((a, b) => a.created_ms - b.created_ms)) this.#index.add(entry);
    const [example] = foreign;
    if (example !== undefined)
      this.#tell(
        new StoreError(
          'foreign',
          `${foreign.length === 1 ? '' : `${foreign.length} files, such as `}${example} ` +
            `${foreign.length === 1 ? 'is no artifact; it was' : 'are no artifacts; they were'} left as found`,
        ),
        example,
      );
  }

  async #entryOf(path: string, digest: string): Promise<Found | undefined> {
    const found = await lstat(path).catch(() => undefined);
    if (!found?.isFile()) return undefined;
    return { digest, bytes: found.size, created_ms: Math.round(found.mtimeMs) };
  }

  async #listing(folder: string): Promise<string[]> {
    try {
      return await readdir(folder);
    } catch (error) {
      if (!isMissing(error)) this.#tell(error, folder);
      return [];
    }
  }

  #pathOf(digest: string): string {
    return join(this.#folder, digest.slice(0, 2), digest);
  }

  #tell(error: unknown, path: string): void {
    this.#onError?.(
      error instanceof StoreError
        ? error
        : new StoreError('unusable', `cannot use ${path}: ${reasonOf(error)}`, { cause: error }),
    );
  }
}

/** A new name is only kept for good once its folder is. Not every system can do that with a folder. */
async function syncFolder(folder: string): Promise<void> {
  try {
    const handle = await open(folder, 'r');
    await handle.sync().finally(() => handle.close());
  } catch (error) {
    if (!['EISDIR', 'EPERM', 'EINVAL', 'EACCES'].includes((error as NodeJS.ErrnoException).code ?? ''))
      throw error;
  }
}

function isMissing(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENOENT';
}
