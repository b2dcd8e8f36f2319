import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { tryLock, type FileLock } from '../models/lock.ts';
import { reasonOf, StoreError } from '../sqlite/store-error.ts';
import type { CatalogEntry, CatalogStore } from './catalog-store.ts';
import { CatalogView } from './catalog-view.ts';
import { IndexFile, type IndexContent } from './index-file.ts';
import { closed } from './memory-catalog.ts';

export interface FolderCatalogOptions {
  /** Hears of a file that another process has made unreadable; what was known stays known. @default none */
  onError?: ((error: Error) => void) | undefined;
  /** How long a change may wait for those of other processes, in milliseconds. @default 10000 */
  lock_ms?: number;
}

const LOCK_MS = 10_000;
const POLL_MS = 10;

/**
 * The catalog in `catalog.json` of a folder that several processes may share: changes come one after the other, under
 * a lock, each to what the file says then. The folder is made with the first entry.
 */
export class FolderCatalog implements CatalogStore {
  readonly #folder: string;
  readonly #file: IndexFile;
  readonly #options: FolderCatalogOptions;
  #view = new CatalogView();
  #version = '';
  /** Grows with every view: who has read for longer than that has read what is old. */
  #views = 0;
  #changing: Promise<unknown> = Promise.resolve();
  #isClosed = false;

  private constructor(folder: string, options: FolderCatalogOptions) {
    this.#folder = folder;
    this.#file = new IndexFile(join(folder, 'catalog.json'));
    this.#options = options;
  }

  /** @throws StoreError `newer`, `foreign` or `unusable`, where the file cannot be read whole */
  static async open(folder: string, options: FolderCatalogOptions = {}): Promise<FolderCatalog> {
    const catalog = new FolderCatalog(folder, options);
    catalog.#show(await catalog.#file.read());
    return catalog;
  }

  get(id: string): CatalogEntry | undefined {
    return this.#view.get(id);
  }

  withDigest(digest: string): readonly CatalogEntry[] {
    return this.#view.withDigest(digest);
  }

  entries(): readonly CatalogEntry[] {
    return this.#view.entries;
  }

  async refresh(): Promise<void> {
    try {
      const views = this.#views;
      if ((await this.#file.version()) === this.#version) return;
      const content = await this.#file.read();
      if (views === this.#views) this.#show(content);
    } catch (error) {
      this.#options.onError?.(error as Error);
    }
  }

  change(
    id: string,
    change: (current: CatalogEntry | undefined) => CatalogEntry | undefined,
  ): Promise<CatalogEntry | undefined> {
    if (this.#isClosed) return Promise.reject(closed());
    const changed = this.#changing.then(() => this.#change(id, change));
    this.#changing = changed.catch(() => undefined);
    return changed;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#changing;
  }

  async #change(
    id: string,
    change: (current: CatalogEntry | undefined) => CatalogEntry | undefined,
  ): Promise<CatalogEntry | undefined> {
    const lock = await this.#lock();
    try {
      // Nobody else writes now: what is read here is what there is.
      if ((await this.#file.version()) !== this.#version) this.#show(await this.#file.read());
      const before = this.#view.get(id);
      const after = change(before);
      if (after === before) return after;
      const view = this.#view.with(id, after);
      await this.#file.tidy();
      this.#show({ entries: view.entries, version: await this.#file.write(view.entries) });
      return view.get(id);
    } finally {
      lock.release();
    }
  }

  #show({ entries, version }: IndexContent): void {
    this.#view = new CatalogView(entries);
    this.#version = version;
    this.#views++;
  }

  async #lock(): Promise<FileLock> {
    const { lock_ms = LOCK_MS } = this.#options;
    for (let waited_ms = 0; ; waited_ms += POLL_MS) {
      try {
        await mkdir(this.#folder, { recursive: true });
        const lock = tryLock(join(this.#folder, 'catalog.lock'), 'alone');
        if (lock) return lock;
      } catch (error) {
        throw new StoreError('unusable', `cannot lock ${this.#file.path}: ${reasonOf(error)}`, {
          cause: error,
        });
      }
      if (waited_ms >= lock_ms)
        throw new StoreError(
          'in_use',
          `${this.#file.path} has been locked by another process for ${lock_ms} ms`,
        );
      await pause(POLL_MS);
    }
  }
}
