import { createHash, type Hash } from 'node:crypto';
import { constants } from 'node:fs';
import { mkdir, open, readFile, rename, rm, writeFile, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { unavailable, unobtainable, untrusted } from './failures.ts';
import { retrying, TransientError, type RetryPorts } from './retry.ts';

/** The bytes of a file from some offset on. */
export interface OpenedBody {
  /** Where they begin: as asked, or at 0 where the other side gives only the whole. */
  offset: number;
  /** Size of the whole file, where it is told. */
  total: number | undefined;
  /** Names exactly these bytes (a strong ETag), so that a later range surely belongs to them. */
  validator: string | undefined;
  /** `sha256:<hex>` of the whole file, where it is told. */
  digest: string | undefined;
  chunks: AsyncIterable<Uint8Array>;
}

/**
 * Asks for a file from an offset on; only where the file still has this validator, if there is one, else from 0 on.
 * @returns undefined where nothing is left from there on
 */
export type OpenBody = (
  offset: number,
  validator: string | undefined,
  signal: AbortSignal,
) => Promise<OpenedBody | undefined>;

export interface DownloadOptions {
  /** For messages. */
  name: string;
  /** Where the file goes; beside it there is `.part` meanwhile, and `.part.json` on where that came from. */
  path: string;
  /** Where it comes from; a part of something else is not gone on with. */
  origin: string;
  size_bytes: number | undefined;
  /** `sha256:<hex>` it must have. */
  digest: string | undefined;
  open: OpenBody;
  retry: RetryPorts;
  /** The key that says in which folder that is, for messages. */
  place: string;
  /** Hears how much is there, after each write. */
  written(bytes: number): void;
}

export interface Downloaded {
  size_bytes: number;
  /** What the bytes really have. */
  digest: string;
  /** Whether anybody had told a digest that they could be held against. */
  verified: boolean;
}

/** What a part on disk belongs to. */
interface PartNote {
  origin: string;
  validator?: string;
}

const READ_BYTES = 1024 * 1024;

export const partOf = (path: string): string => `${path}.part`;
export const noteOf = (path: string): string => `${path}.part.json`;

/**
 * Fetches one file: goes on with what an earlier try left, hashes while it writes, and puts the file in its place
 * only when it is whole and right. Its caller sees to it that nobody else fetches the same file.
 * @throws TaskchartError UNTRUSTED_ARTIFACT where it has another digest, the part is gone then; POOL_UNAVAILABLE
 */
export async function download(options: DownloadOptions, signal: AbortSignal): Promise<Downloaded> {
  await mkdir(dirname(options.path), { recursive: true });
  const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants;
  const handle = await open(partOf(options.path), O_RDWR | O_CREAT | O_NOFOLLOW, 0o644).catch(
    (error: unknown) => {
      throw diskFailure(error, options.place);
    },
  );
  try {
    const part = new Part(handle, options);
    await part.recover(signal);
    for (;;) {
      await part.complete(signal);
      if (part.isRight) break;
      // What an earlier process left may have been damaged since; what this one has written was not.
      if (!part.isInherited) {
        await Promise.all([partOf, noteOf].map((of) => rm(of(options.path), { force: true })));
        throw untrusted(
          `${options.name} has the digest ${part.digest}, but ${part.expected ?? ''} was promised; it was deleted`,
        );
      }
      await part.restart();
    }
    await handle.datasync();
    await rename(partOf(options.path), options.path);
    await rm(noteOf(options.path), { force: true });
    return { size_bytes: part.size, digest: part.digest, verified: part.expected !== undefined };
  } finally {
    await handle.close();
  }
}

/** The bytes that are there so far, and their hash. */
class Part {
  size = 0;
  /** Whether some of it is from an earlier process. */
  isInherited = false;
  digest = '';
  expected: string | undefined;
  readonly #handle: FileHandle;
  readonly #options: DownloadOptions;
  #hash: Hash = createHash('sha256');
  #note: PartNote;
  #total: number | undefined;
  /** Most that was ever there: only what goes beyond it is progress. */
  #most = 0;

  constructor(handle: FileHandle, options: DownloadOptions) {
    this.#handle = handle;
    this.#options = options;
    this.expected = options.digest;
    this.#total = options.size_bytes;
    this.#note = { origin: options.origin };
  }

  get isRight(): boolean {
    return this.expected === undefined || this.expected === this.digest;
  }

  /** Takes over what is on disk, if it is of the same file. */
  async recover(signal: AbortSignal): Promise<void> {
    const { path, origin } = this.#options;
    const note = await readNote(noteOf(path));
    const stat = await this.#handle.stat();
    if (!stat.isFile())
      throw unobtainable(`${this.#options.name} cannot be written: something is in its place`);
    const isKnown = note?.origin === origin && (note.validator !== undefined || this.expected !== undefined);
    if (!isKnown || stat.size > (this.#total ?? Infinity)) return this.restart();
    this.#note = note;
    const block = Buffer.allocUnsafe(READ_BYTES);
    for (;;) {
      signal.throwIfAborted();
      const { bytesRead } = await this.#handle.read(block, 0, block.length, this.size);
      if (bytesRead === 0) break;
      this.#hash.update(block.subarray(0, bytesRead));
      this.size += bytesRead;
    }
    this.isInherited = this.size > 0;
    this.#most = this.size;
    this.#options.written(this.size);
  }

  /** Throws away what is there. */
  async restart(): Promise<void> {
    await this.#handle.truncate(0);
    this.size = 0;
    this.isInherited = false;
    this.expected = this.#options.digest;
    this.#hash = createHash('sha256');
    await this.#keepNote({ origin: this.#options.origin });
    this.#options.written(0);
  }

  /** Fetches until nothing is missing. */
  async complete(signal: AbortSignal): Promise<void> {
    const { retry, name } = this.#options;
    let isWhole = this.#total !== undefined && this.size === this.#total;
    while (!isWhole)
      isWhole = await retrying(retry, signal, async (progressed) => {
        const before = this.#most;
        try {
          return await this.#fetch(signal);
        } finally {
          if (this.#most - before >= this.#worthwhile()) progressed();
        }
      });
    if (this.#total !== undefined && this.size !== this.#total)
      throw unavailable(`${name} has ${this.size} bytes, but ${this.#total} were promised`);
    this.digest = `sha256:${this.#hash.digest('hex')}`;
  }

  /** A server that gives a byte at a time makes no progress worth the name. */
  #worthwhile(): number {
    return Math.max(1, Math.min(READ_BYTES, (this.#total ?? READ_BYTES) / 100));
  }

  /** One try. @returns whether all of it is there */
  async #fetch(signal: AbortSignal): Promise<boolean> {
    const { open: openBody, name } = this.#options;
    // Without a validator only the digest can tell whether a range fits what is there.
    const canResume = this.#note.validator !== undefined || this.expected !== undefined;
    if (this.size > 0 && !canResume) await this.restart();
    const stop = new AbortController();
    const body = await openBody(this.size, this.#note.validator, AbortSignal.any([signal, stop.signal]));
    if (body === undefined) {
      if (this.size > 0 && (this.#total === undefined || this.size === this.#total)) return true;
      await this.restart();
      throw new TransientError(`${name} is shorter than what was there of it`);
    }
    try {
      await this.#align(body);
      for await (const chunk of body.chunks) {
        if (this.size + chunk.length > (this.#total ?? Infinity)) {
          await this.restart();
          throw new TransientError(`${name} is longer than the ${this.#total} bytes that were promised`);
        }
        await this.#write(chunk);
      }
    } finally {
      stop.abort();
    }
    if (this.#total !== undefined && this.size < this.#total)
      throw new TransientError(`${name} ended after ${this.size} of ${this.#total} bytes`);
    return true;
  }

  /** Makes what is there and what comes fit together. @throws TransientError where they do not */
  async #align({ offset, total, validator, digest }: OpenedBody): Promise<void> {
    const { name } = this.#options;
    const hasChanged = this.#note.validator !== undefined && this.#note.validator !== validator;
    if (this.size > 0 && (offset !== this.size || hasChanged)) {
      await this.restart();
      if (offset !== 0) throw new TransientError(`${name} changed while it was fetched`);
    }
    this.expected ??= digest;
    if (total !== undefined && this.#total !== undefined && total !== this.#total) {
      if (this.#options.digest !== undefined)
        throw new TransientError(`${name} has ${total} bytes there, but ${this.#total} were promised`);
      if (this.size > 0) {
        await this.restart();
        throw new TransientError(`${name} changed while it was fetched`);
      }
    }
    this.#total = this.#options.digest === undefined ? (total ?? this.#total) : (this.#total ?? total);
    if (validator !== this.#note.validator)
      await this.#keepNote({
        origin: this.#options.origin,
        ...(validator === undefined ? {} : { validator }),
      });
  }

  async #write(chunk: Uint8Array): Promise<void> {
    this.#hash.update(chunk);
    for (let at = 0; at < chunk.length;) {
      const { bytesWritten } = await this.#handle
        .write(chunk, at, chunk.length - at, this.size)
        .catch((error: unknown) => {
          throw diskFailure(error, this.#options.place);
        });
      at += bytesWritten;
      this.size += bytesWritten;
    }
    this.#most = Math.max(this.#most, this.size);
    this.#options.written(this.size);
  }

  async #keepNote(note: PartNote): Promise<void> {
    this.#note = note;
    await writeFile(noteOf(this.#options.path), JSON.stringify(note), { flag: NOTE_FLAGS });
  }
}

/** As `w`, but never through a link that somebody put there. */
const NOTE_FLAGS = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW;

async function readNote(path: string): Promise<PartNote | undefined> {
  try {
    const note = JSON.parse(await readFile(path, 'utf8')) as Partial<PartNote> | null;
    return typeof note?.origin === 'string' ? (note as PartNote) : undefined;
  } catch {
    return undefined;
  }
}

/** The sha256 of a file, as `sha256:<hex>`. */
export async function digestOf(
  path: string,
  signal: AbortSignal,
  read: (bytes: number) => void = () => undefined,
): Promise<string> {
  const handle = await open(path, 'r');
  try {
    const hash = createHash('sha256');
    const block = Buffer.allocUnsafe(READ_BYTES);
    for (let at = 0; ;) {
      signal.throwIfAborted();
      const { bytesRead } = await handle.read(block, 0, block.length, at);
      if (bytesRead === 0) return `sha256:${hash.digest('hex')}`;
      hash.update(block.subarray(0, bytesRead));
      at += bytesRead;
      read(at);
    }
  } finally {
    await handle.close();
  }
}

/** What a failure of the disk means, without its paths. */
export function diskFailure(error: unknown, place: string): unknown {
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return unavailable(`the disk of ${place} is full; free some of it, or set ${place}`);
  if (code === 'ELOOP') return unobtainable(`${place} has a link where a file should go; remove it`);
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS')
    return unobtainable(`${place} cannot be written (${code}); set ${place} to a folder that can`);
  return error;
}
