import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../clock.ts';
import { parseWorker } from '../contract/validate.ts';
import { failure, TaskchartError, toFailure, type Failure } from '../errors.ts';
import type { Observers } from './observation.ts';
import type { WorkerDescription, Workers } from './workers.ts';

/** A file as a folder lists it. */
export interface HandoffFile {
  name: string;
  /** When it was written last, in epoch milliseconds. */
  mtime_ms: number;
  size_bytes: number;
}

/** Where files that announce engines are. */
export interface HandoffFolder {
  /** Its `*.json`; none where there is no such folder. @throws Error where it cannot be read */
  list(): Promise<readonly HandoffFile[]>;
  /** @throws Error where it is gone or cannot be read */
  read(name: string): Promise<string>;
}

export interface HandoffWatcherOptions {
  clock: Clock;
  /** Time between two looks, in milliseconds. */
  poll_ms: number;
  folder: HandoffFolder;
  /**
   * Whether the process that a file names as its owner (`owner_pid`) runs, and is another one than this: what this
   * process starts itself it binds itself, and what a dead one has left behind is nobody's.
   */
  isElsewhere: (owner_pid: number) => boolean;
  workers: Pick<Workers, 'bind' | 'unbind' | 'get'>;
  observers: Observers;
}

/** A payload is a few lines. */
const LARGEST_BYTES = 65_536;

/** What a file said when it was written last. */
interface Announcement {
  file: HandoffFile;
  /** Undefined: nothing that can be used. */
  worker: WorkerDescription | undefined;
  owner_pid: number | undefined;
  /** What its engine was refused with last. */
  refused: Failure | undefined;
}

/**
 * Binds engines that are announced by files: one a file, the one that was written last where several name the same
 * place; a file that goes away takes its engine along. Reading never holds anything up.
 */
export class HandoffWatcher {
  readonly #options: HandoffWatcherOptions;
  readonly #announced = new Map<string, Announcement>();
  /** By place: what files have bound. */
  readonly #bound = new Map<string, WorkerDescription>();
  readonly #stopping = new AbortController();
  /** Why the folder could not be read the last time. */
  #trouble: string | undefined;
  #timer: unknown;
  #looking: Promise<void> = Promise.resolve();

  constructor(options: HandoffWatcherOptions) {
    this.#options = options;
  }

  /** Looks at once, and again each time `poll_ms` after the last look was over. */
  start(): void {
    const { clock, poll_ms } = this.#options;
    this.#looking = this.#look().then(() => {
      if (!this.#stopping.signal.aborted) this.#timer = clock.setTimeout(() => this.start(), poll_ms);
    });
  }

  /** Engines that are bound stay bound. Safe to repeat. @returns once the last look is over */
  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#options.clock.clearTimeout(this.#timer);
    await this.#looking;
  }

  async #look(): Promise<void> {
    try {
      await this.#readAll(await this.#options.folder.list());
      this.#trouble = undefined;
    } catch (error) {
      const { message } = toFailure(error);
      if (message !== this.#trouble) this.#tell('.', failure('INTERNAL', message));
      this.#trouble = message;
      return;
    }
    const winners = this.#winners();
    for (const [place, worker] of this.#bound) if (!winners.has(place)) await this.#unbind(place, worker);
    for (const [place, announcement] of winners) await this.#bind(place, announcement);
  }

  async #readAll(files: readonly HandoffFile[]): Promise<void> {
    const names = new Set(files.map(({ name }) => name));
    for (const name of this.#announced.keys()) if (!names.has(name)) this.#announced.delete(name);
    for (const file of files) {
      if (isDeepStrictEqual(this.#announced.get(file.name)?.file, file)) continue;
      const announcement: Announcement = {
        file,
        worker: undefined,
        owner_pid: undefined,
        refused: undefined,
      };
      this.#announced.set(file.name, announcement);
      try {
        Object.assign(announcement, await this.#read(file));
      } catch (error) {
        this.#tell(file.name, toFailure(error));
      }
    }
  }

  async #read({ name, size_bytes }: HandoffFile): Promise<Pick<Announcement, 'worker' | 'owner_pid'>> {
    if (size_bytes > LARGEST_BYTES)
      throw invalid(`must have at most ${LARGEST_BYTES} bytes, has ${size_bytes}`);
    const payload = jsonOf(await this.#options.folder.read(name));
    const owner_pid = (payload as { owner_pid?: unknown } | null)?.owner_pid;
    if (owner_pid === undefined) return { worker: parseWorker(payload), owner_pid };
    if (typeof owner_pid !== 'number' || !Number.isInteger(owner_pid) || owner_pid < 1)
      throw invalid('owner_pid: must be the id of a process');
    // What nobody else announces is not looked at: of our own engines we know more than a file says.
    const isAnnounced = this.#options.isElsewhere(owner_pid);
    return { worker: isAnnounced ? parseWorker(payload) : undefined, owner_pid };
  }

  /** By place: the announcement that was written last. */
  #winners(): Map<string, Announcement & { worker: WorkerDescription }> {
    const winners = new Map<string, Announcement & { worker: WorkerDescription }>();
    for (const announcement of this.#announced.values()) {
      const { worker, owner_pid, file } = announcement;
      if (!worker || (owner_pid !== undefined && !this.#options.isElsewhere(owner_pid))) continue;
      const place = `${worker.pool_id}/${worker.replica_id}`;
      const other = winners.get(place)?.file;
      if (!other || isLater(file, other))
        winners.set(place, announcement as typeof announcement & { worker: WorkerDescription });
    }
    return winners;
  }

  async #bind(place: string, announcement: Announcement & { worker: WorkerDescription }): Promise<void> {
    const { worker, refused, file } = announcement;
    if (isDeepStrictEqual(this.#bound.get(place), worker)) return;
    // What cannot get better is tried again once somebody writes the file again.
    if (this.#stopping.signal.aborted || refused?.retriable === false) return;
    try {
      await this.#options.workers.bind(worker);
      this.#bound.set(place, worker);
      announcement.refused = undefined;
    } catch (error) {
      const cause = toFailure(error);
      if (cause.message !== refused?.message) this.#tell(file.name, cause);
      announcement.refused = cause;
    }
  }

  async #unbind(place: string, worker: WorkerDescription): Promise<void> {
    if (this.#stopping.signal.aborted) return;
    const { workers } = this.#options;
    const { pool_id, replica_id } = worker;
    this.#bound.delete(place);
    // Somebody else may have registered in the same place since.
    if (!isDeepStrictEqual(workers.get(pool_id, replica_id), worker)) return;
    await workers.unbind(pool_id, replica_id).catch((error: unknown) => this.#tell(place, toFailure(error)));
  }

  #tell(file: string, cause: Failure): void {
    this.#options.observers.tell({ type: 'handoff.rejected', file, failure: cause });
  }
}

/** Of two that were written in the same moment, the one that is last by name: whoever looks again finds the same. */
function isLater(file: HandoffFile, other: HandoffFile): boolean {
  return file.mtime_ms === other.mtime_ms ? file.name > other.name : file.mtime_ms > other.mtime_ms;
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw invalid('is not valid JSON');
  }
}

function invalid(message: string): TaskchartError {
  return new TaskchartError(failure('INVALID_PARAMS', message));
}
