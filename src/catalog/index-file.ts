import { randomUUID } from 'node:crypto';
import { mkdir, open, readdir, rename, rm, stat, type FileHandle } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { validateCatalogModel } from '../contract/generated/validators.js';
import { reasonOf, StoreError } from '../sqlite/store-error.ts';
import type { CatalogEntry } from './catalog-store.ts';

/** Of the file's own form; one that another version has written is not read in part. */
const SCHEMA_VERSION = 1;

/** What a file says, and which one it was. */
export interface IndexContent {
  entries: readonly CatalogEntry[];
  /** Changes with every write. */
  version: string;
}

/** The catalog's one file. It is there whole or not at all: a reader gets what was before a write, or after it. */
export class IndexFile {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  /** @throws StoreError `newer`, `foreign` or `unusable`; the file stays as it is */
  async read(): Promise<IndexContent> {
    let handle: FileHandle;
    try {
      handle = await open(this.path, 'r');
    } catch (error) {
      if (isMissing(error)) return { entries: [], version: '' };
      throw this.#unusable('read', error);
    }
    try {
      const version = versionOf(await handle.stat({ bigint: true }));
      return { entries: this.#parse(await handle.readFile('utf8')), version };
    } catch (error) {
      throw error instanceof StoreError ? error : this.#unusable('read', error);
    } finally {
      await handle.close();
    }
  }

  /** Of the file that is there now. */
  async version(): Promise<string> {
    try {
      return versionOf(await stat(this.path, { bigint: true }));
    } catch (error) {
      if (isMissing(error)) return '';
      throw this.#unusable('read', error);
    }
  }

  /**
   * Only for whoever holds the catalog's lock.
   * @returns the new version
   * @throws StoreError `unusable`, and then the file is as it was
   */
  async write(entries: readonly CatalogEntry[]): Promise<string> {
    const unfinished = `${this.path}.${randomUUID()}.tmp`;
    try {
      await mkdir(dirname(this.path), { recursive: true });
      const file = await open(unfinished, 'wx', 0o644);
      try {
        await file.writeFile(
          `${JSON.stringify({ schema_version: SCHEMA_VERSION, models: entries }, undefined, 1)}\n`,
        );
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(unfinished, this.path);
    } catch (error) {
      await rm(unfinished, { force: true });
      throw this.#unusable('write', error);
    }
    await syncFolder(dirname(this.path));
    return this.version();
  }

  /** Removes what writers have left that did not live to finish. Only for whoever holds the catalog's lock. */
  async tidy(): Promise<void> {
    const folder = dirname(this.path);
    const names = await readdir(folder).catch(() => [] as string[]);
    for (const name of names)
      if (name.endsWith('.tmp') && join(folder, name).startsWith(`${this.path}.`))
        await rm(join(folder, name), { force: true });
  }

  #parse(text: string): CatalogEntry[] {
    let content: { schema_version?: unknown; models?: unknown } | undefined;
    try {
      content = JSON.parse(text) as typeof content;
    } catch {
      throw this.#foreign('it is not JSON');
    }
    const { schema_version, models } = content ?? {};
    if (!Number.isInteger(schema_version)) throw this.#foreign('it has no schema_version');
    if (schema_version !== SCHEMA_VERSION)
      throw new StoreError(
        (schema_version as number) > SCHEMA_VERSION ? 'newer' : 'foreign',
        `${this.path} has the schema version ${String(schema_version)}, and this version of taskchart reads ` +
          `${SCHEMA_VERSION}; nothing of it was loaded. Use the taskchart that wrote it, or another folder`,
      );
    if (!Array.isArray(models)) throw this.#foreign('it has no list of models');
    for (const [place, entry] of models.entries())
      if (!validateCatalogModel(entry) || !isState(entry.state) || !Number.isInteger(entry.created_ms))
        throw this.#foreign(`models[${place}] is no entry`);
    return models as CatalogEntry[];
  }

  #foreign(why: string): StoreError {
    return new StoreError('foreign', `${this.path} is no catalog of taskchart, ${why}; it was left as it is`);
  }

  #unusable(what: 'read' | 'write', error: unknown): StoreError {
    return new StoreError('unusable', `cannot ${what} ${this.path}: ${reasonOf(error)}`, { cause: error });
  }
}

function versionOf({ ino, mtimeNs, size }: { ino: bigint; mtimeNs: bigint; size: bigint }): string {
  return `${ino}-${mtimeNs}-${size}`;
}

function isState(state: unknown): boolean {
  return state === 'Active' || state === 'Retired';
}

function isMissing(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENOENT';
}

/** A new name is only kept for good once its folder is. Not every system can do that with a folder. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r').catch(() => undefined);
  await handle?.sync().catch(() => undefined);
  await handle?.close();
}
