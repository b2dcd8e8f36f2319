import { createHash, randomUUID } from 'node:crypto';
import {
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  realpath,
  rename,
  rm,
  rmdir,
  stat,
  utimes,
} from 'node:fs/promises';
import { dirname, join, relative, sep } from 'node:path';
import { noteOf, partOf } from './download.ts';
import { unobtainable, unavailable } from './failures.ts';
import { tryLock, type FileLock } from './lock.ts';

export interface CachedFile {
  /** Below the entry's folder. */
  name: string;
  size_bytes: number | undefined;
  /** What its bytes had when it was written. */
  digest: string | undefined;
  /** With the size: whether it is still the same file. */
  mtime_ms?: number;
}

/** What is known of a model in the cache. */
export interface CacheEntry {
  /** What engines are given, below the cache's folder; an entry's one name. */
  path: string;
  /** Below the cache's folder. */
  folder: string;
  files: CachedFile[];
  /** Reference it was fetched by first. */
  id: string;
  revision?: string;
  /** Whether its files are whole; those of others may be there in part. */
  complete: boolean;
  /** Whether every file was held against a digest that its origin told. */
  verified: boolean;
  fetched_ms: number;
}

/**
 * Model files in one folder that several processes share. `index/entries` says what there is, the time of such a file
 * is that of its last use; `index/refs` says which entry a reference means; locks are in `locks`.
 */
export class ModelCache {
  readonly dir: string;
  readonly #max_bytes: number;
  readonly #using = new Map<string, FileLock>();

  constructor(dir: string, max_bytes = Infinity) {
    this.dir = dir;
    this.#max_bytes = max_bytes;
  }

  pathOf(path: string): string {
    return join(this.dir, path);
  }

  /** The entry that a reference means, if all of its files are there. */
  async lookup(id: string): Promise<CacheEntry | undefined> {
    const ref = (await readJson(this.#ref(id))) as { path?: string } | undefined;
    return typeof ref?.path === 'string' ? this.whole(ref.path) : undefined;
  }

  /** The entry of this path, if all of its files are there. */
  async whole(path: string): Promise<CacheEntry | undefined> {
    const entry = (await readJson(this.#entry(path))) as CacheEntry | undefined;
    if (!entry?.complete || entry.path !== path) return undefined;
    for (const { name, size_bytes } of entry.files) {
      const found = await lstat(this.pathOf(join(entry.folder, name))).catch(() => undefined);
      if (!found?.isFile() || found.size !== size_bytes) return undefined;
    }
    return entry;
  }

  /** Whether no file has been written since it was checked. */
  async isUntouched({ folder, files }: CacheEntry): Promise<boolean> {
    for (const { name, mtime_ms } of files)
      if ((await stat(this.pathOf(join(folder, name)))).mtimeMs !== mtime_ms) return false;
    return true;
  }

  async keep(entry: CacheEntry): Promise<void> {
    await writeJson(this.#entry(entry.path), entry);
  }

  async name(id: string, path: string): Promise<void> {
    await writeJson(this.#ref(id), { id, path });
  }

  /** It was used now: the last to be evicted. */
  async touch(path: string, now_ms: number): Promise<void> {
    await utimes(this.#entry(path), now_ms / 1000, now_ms / 1000).catch(() => undefined);
  }

  /** Nobody else fetches or evicts it meanwhile. @returns undefined while somebody does */
  lockFetch(path: string): FileLock | undefined {
    return tryLock(this.#lock(path, 'fetch'), 'alone');
  }

  /** Nobody evicts it as long as this process uses it. @returns false where somebody is about to */
  use(path: string): boolean {
    if (this.#using.has(path)) return true;
    const lock = tryLock(this.#lock(path, 'use'), 'shared');
    if (lock) this.#using.set(path, lock);
    return lock !== undefined;
  }

  /** Makes the folder of an entry. @throws TaskchartError where a link leads it out of the cache */
  async prepareFolder(folder: string): Promise<void> {
    await mkdir(this.pathOf(folder), { recursive: true });
    const [root, real] = await Promise.all([realpath(this.dir), realpath(this.pathOf(folder))]);
    if (relative(root, real) !== folder.replaceAll('/', sep))
      throw unobtainable('models.cache_dir has a link where a model’s folder should be; remove it');
  }

  /**
   * Evicts what was not used for longest until `needed_bytes` more fit below the limit; never what somebody uses or
   * fetches. @throws TaskchartError naming models.max_bytes
   */
  async makeRoom(needed_bytes: number, own_path: string): Promise<void> {
    if (this.#max_bytes === Infinity) return;
    if (needed_bytes > this.#max_bytes)
      throw unobtainable(
        `the model has ${needed_bytes} bytes, models.max_bytes allows ${this.#max_bytes} for all of them; raise it`,
      );
    const entries = (await this.entries()).filter(({ entry }) => entry.path !== own_path);
    let total = entries.reduce((sum, { bytes }) => sum + bytes, 0);
    for (const { entry, bytes } of entries) {
      if (total + needed_bytes <= this.#max_bytes) return;
      if (await this.evict(entry)) total -= bytes;
    }
    if (total + needed_bytes > this.#max_bytes)
      throw unavailable(
        `models.max_bytes (${this.#max_bytes}) is taken up by models in use (${total} bytes); raise it, or use fewer`,
      );
  }

  /** Everything in the cache, what was not used for longest first. */
  async entries(): Promise<{ entry: CacheEntry; bytes: number; used_ms: number }[]> {
    const folder = join(this.dir, 'index', 'entries');
    const names = await readdir(folder).catch(() => [] as string[]);
    const found = await Promise.all(
      names
        .filter((name) => name.endsWith('.json'))
        .map(async (name) => {
          const [entry, known] = await Promise.all([
            readJson(join(folder, name)) as Promise<CacheEntry | undefined>,
            stat(join(folder, name)).catch(() => undefined),
          ]);
          if (!entry || !known) return undefined;
          return { entry, bytes: await this.#sizeOf(entry), used_ms: known.mtimeMs };
        }),
    );
    return found.filter((each) => each !== undefined).toSorted((a, b) => a.used_ms - b.used_ms);
  }

  /** Bytes of an entry that are there, parts included. */
  async #sizeOf({ folder, files }: CacheEntry): Promise<number> {
    const sizes = await Promise.all(
      files
        .map(({ name }) => this.pathOf(join(folder, name)))
        .flatMap((path) => [path, partOf(path)])
        .map((path) =>
          lstat(path).then(
            ({ size }) => size,
            () => 0,
          ),
        ),
    );
    return sizes.reduce((sum, size) => sum + size, 0);
  }

  /** Deletes an entry and its files. @returns false where somebody uses or fetches it */
  async evict(entry: CacheEntry): Promise<boolean> {
    if (this.#using.has(entry.path)) return false;
    const fetching = this.lockFetch(entry.path);
    const using = fetching && tryLock(this.#lock(entry.path, 'use'), 'alone');
    try {
      if (!using) return false;
      await this.forget(entry);
      return true;
    } finally {
      using?.release();
      fetching?.release();
    }
  }

  /** Deletes an entry and its files; the caller holds its lock. */
  async forget({ path, folder, files }: CacheEntry): Promise<void> {
    // First the entry: whoever looks meanwhile finds none, not half of one.
    await rm(this.#entry(path), { force: true });
    for (const { name } of files) {
      const file = this.pathOf(join(folder, name));
      for (const each of [file, partOf(file), noteOf(file)]) await rm(each, { force: true });
    }
    for (const { name } of files) await this.#removeEmpty(dirname(join(folder, name)));
    await this.#removeEmpty(folder);
  }

  /** This folder and those above it, as far as they are empty. */
  async #removeEmpty(folder: string): Promise<void> {
    for (let at = folder; at !== '.' && at !== ''; at = dirname(at)) {
      if (!(await rmdir(this.pathOf(at)).then(() => true, isMissing))) return;
    }
  }

  /** This process does not use it any more. */
  release(path: string): void {
    this.#using.get(path)?.release();
    this.#using.delete(path);
  }

  /** Gives up what this process uses. */
  close(): void {
    for (const lock of this.#using.values()) lock.release();
    this.#using.clear();
  }

  #entry(path: string): string {
    return join(this.dir, 'index', 'entries', `${shortHash(path)}.json`);
  }

  #ref(id: string): string {
    return join(this.dir, 'index', 'refs', `${shortHash(id)}.json`);
  }

  #lock(path: string, purpose: string): string {
    return join(this.dir, 'locks', `${shortHash(path)}.${purpose}`);
  }
}

function isMissing(error: NodeJS.ErrnoException): boolean {
  return error.code === 'ENOENT';
}

function shortHash(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 32);
}

async function readJson(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, 'utf8'));
  } catch {
    return undefined;
  }
}

/** Readers see the old or the new, never a mix. */
async function writeJson(path: string, value: unknown): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const temporary = `${path}.${randomUUID()}.tmp`;
  const handle = await open(temporary, 'wx', 0o644);
  try {
    await handle.writeFile(`${JSON.stringify(value)}\n`);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(temporary, path);
}
