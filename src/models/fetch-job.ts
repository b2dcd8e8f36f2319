import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../clock.ts';
import { TaskchartError } from '../errors.ts';
import type { CachedFile, CacheEntry, ModelCache } from './cache.ts';
import { digestOf, diskFailure, download, partOf } from './download.ts';
import { unavailable } from './failures.ts';
import type { FileLock } from './lock.ts';
import type { RemoteFile, RemoteModel } from './origins/origin.ts';
import type { ProgressMeter } from './progress.ts';
import { recordProvenance } from './provenance.ts';
import { pause, type RetryPorts } from './retry.ts';

/** Bytes that are free on the disk of a folder. */
export type FreeSpace = (folder: string) => Promise<number>;

export interface FetchJobOptions {
  id: string;
  /** The entry's path in the cache. */
  path: string;
  plan: RemoteModel;
  /** What the model's one file must have, whatever its origin says. */
  checksum: string | undefined;
  cache: ModelCache;
  clock: Clock;
  retry: RetryPorts;
  reserve_bytes: number;
  free_space: FreeSpace;
  provenance_file: string;
  meter: ProgressMeter;
}

interface FetchedFile {
  file: CachedFile;
  /** Whether it was held against a digest. */
  verified: boolean;
}

/** What says where models go. */
const PLACE = 'models.cache_dir';

/** How often it is looked whether another process has finished. */
const POLL_MS = 200;
/** Files of one model that are fetched at the same time. */
const AT_ONCE = 3;

/** Brings all files of one model into the cache. */
export class FetchJob {
  readonly #options: FetchJobOptions;
  readonly #there = new Map<string, number>();

  constructor(options: FetchJobOptions) {
    this.#options = options;
  }

  /** @throws TaskchartError */
  async run(signal: AbortSignal): Promise<void> {
    const { cache, path, plan } = this.#options;
    try {
      const lock = await this.#lock(signal);
      try {
        if (await cache.whole(path)) return;
        await this.#makeSpace();
        await cache.prepareFolder(plan.folder);
        const entry = this.#entry();
        // From here on what comes counts against the cache's limit, even if this process does not live to see the end.
        await cache.keep(entry);
        await this.#finish(entry, await this.#files(signal));
      } finally {
        lock.release();
      }
    } catch (error) {
      throw diskFailure(error, PLACE);
    }
  }

  /** The entry with the times that its files have now. */
  static async stamped(cache: ModelCache, entry: CacheEntry): Promise<CacheEntry> {
    const files = entry.files.map(async (file) => ({
      ...file,
      mtime_ms: (await lstat(cache.pathOf(join(entry.folder, file.name)))).mtimeMs,
    }));
    return { ...entry, files: await Promise.all(files) };
  }

  get #total(): number | undefined {
    return this.#options.plan.files.reduce<number | undefined>(
      (sum, { size_bytes }) => (sum === undefined || size_bytes === undefined ? undefined : sum + size_bytes),
      0,
    );
  }

  /** Waits until nobody else fetches it, and tells meanwhile how far they are. */
  async #lock(signal: AbortSignal): Promise<FileLock> {
    const { cache, path, plan, meter, clock } = this.#options;
    for (;;) {
      const lock = cache.lockFetch(path);
      if (lock) return lock;
      const sizes = await Promise.all(plan.files.map((file) => this.#onDisk(file)));
      meter.tell(
        'waiting',
        sizes.reduce((sum, size) => sum + size, 0),
        this.#total,
      );
      await pause(clock, POLL_MS, signal);
    }
  }

  /** Bytes of a file that are there, whole or in part. */
  async #onDisk({ name }: RemoteFile): Promise<number> {
    const path = this.#target(name);
    const size = (of: string) =>
      lstat(of).then(
        (found) => found.size,
        () => undefined,
      );
    return (await size(path)) ?? (await size(partOf(path))) ?? 0;
  }

  #target(name: string): string {
    const { cache, plan } = this.#options;
    return cache.pathOf(join(plan.folder, name));
  }

  async #makeSpace(): Promise<void> {
    const { cache, path, plan, reserve_bytes, free_space } = this.#options;
    await cache.makeRoom(this.#total ?? 0, path);
    await cache.prepareFolder(plan.folder);
    let missing = 0;
    for (const file of plan.files)
      missing += Math.max(0, (file.size_bytes ?? 0) - (await this.#onDisk(file)));
    const free = await free_space(cache.dir);
    if (missing + reserve_bytes <= free) return;
    throw unavailable(
      `the disk of models.cache_dir has ${free} bytes free; the model needs ${missing} more, and ${reserve_bytes} ` +
        'stay free; free some of it, or set models.cache_dir',
    );
  }

  #entry(): CacheEntry {
    const { id, path, plan, clock } = this.#options;
    return {
      id,
      path,
      folder: plan.folder,
      files: plan.files.map(({ name, size_bytes, digest }) => ({ name, size_bytes, digest })),
      ...(plan.revision === undefined ? {} : { revision: plan.revision }),
      complete: false,
      verified: false,
      fetched_ms: clock.wall(),
    };
  }

  async #files(signal: AbortSignal): Promise<FetchedFile[]> {
    const { plan } = this.#options;
    const done: FetchedFile[] = [];
    const waiting = [...plan.files.entries()];
    const failed = new AbortController();
    const either = AbortSignal.any([signal, failed.signal]);
    const work = async (): Promise<void> => {
      for (let next = waiting.shift(); next; next = waiting.shift()) {
        const [at, file] = next;
        done[at] = await this.#one(file, either);
      }
    };
    const workers = Array.from({ length: Math.min(AT_ONCE, waiting.length) }, () =>
      work().catch((error: unknown) => {
        // The first failure is the cause; the others end because of it.
        if (!failed.signal.aborted) failed.abort(error);
      }),
    );
    await Promise.all(workers);
    signal.throwIfAborted();
    failed.signal.throwIfAborted();
    return done;
  }

  async #one(file: RemoteFile, signal: AbortSignal): Promise<FetchedFile> {
    const { id, plan, checksum, retry } = this.#options;
    const name = plan.files.length === 1 ? `model "${id}"` : `${file.name} of model "${id}"`;
    const there = await this.#finished(file, signal);
    if (there) return there;
    try {
      const { size_bytes, digest, verified } = await download(
        {
          name,
          path: this.#target(file.name),
          origin: file.origin,
          size_bytes: file.size_bytes,
          digest: file.digest ?? checksum,
          open: file.open,
          retry,
          place: PLACE,
          written: (bytes) => this.#written(file, bytes),
        },
        signal,
      );
      return { file: { name: file.name, size_bytes, digest }, verified };
    } catch (error) {
      if (error instanceof TaskchartError && error.code === 'UNTRUSTED_ARTIFACT')
        await this.#record(0, null, 'fail');
      throw error;
    }
  }

  /** A file that an earlier process finished before its model was whole. */
  async #finished(file: RemoteFile, signal: AbortSignal): Promise<FetchedFile | undefined> {
    const path = this.#target(file.name);
    const found = await lstat(path).catch(() => undefined);
    if (!found?.isFile() || found.size !== file.size_bytes || file.digest === undefined) return undefined;
    if ((await digestOf(path, signal)) !== file.digest) return undefined;
    this.#written(file, found.size);
    return { file: { name: file.name, size_bytes: found.size, digest: file.digest }, verified: true };
  }

  #written(file: RemoteFile, bytes: number): void {
    this.#there.set(file.name, bytes);
    let done = 0;
    for (const size of this.#there.values()) done += size;
    this.#options.meter.tell('fetching', done, this.#total);
  }

  async #finish(entry: CacheEntry, done: readonly FetchedFile[]): Promise<void> {
    const { cache, clock } = this.#options;
    const verified = done.every((each) => each.verified);
    const files = done.map(({ file }) => file);
    await cache.keep(await FetchJob.stamped(cache, { ...entry, files, complete: true, verified }));
    await cache.touch(entry.path, clock.wall());
    const [only, other] = files;
    const size = files.reduce((sum, file) => sum + (file.size_bytes ?? 0), 0);
    await this.#record(size, other ? null : (only?.digest ?? null), verified ? 'pass' : 'warn');
    // Whoever does not tell the size beforehand is counted now.
    if (this.#total === undefined) await cache.makeRoom(size, entry.path);
  }

  #record(size_bytes: number, digest: string | null, outcome: 'pass' | 'warn' | 'fail'): Promise<void> {
    const { id, path, plan, cache, clock, provenance_file } = this.#options;
    return recordProvenance(provenance_file, {
      ts_ms: clock.wall(),
      model_id: id,
      path: cache.pathOf(path),
      size_bytes,
      revision: plan.revision ?? null,
      digest,
      outcome,
    });
  }
}
