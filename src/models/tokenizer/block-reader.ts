import type { FileHandle } from 'node:fs/promises';

/** A model file that cannot be read as GGUF; the message is one line for the person who chose the file. */
export class GgufError extends Error {
  override readonly name = 'GgufError';
}

const FIRST_BLOCK = 64 * 1024;
/** Small enough that stepping through the strings of one block does not hold up the event loop. */
const LAST_BLOCK = 256 * 1024;
/** No key, value or token comes near this; a longer one is garbage that would otherwise be allocated. */
const MAX_TEXT = 64 * 1024 * 1024;

/**
 * Little-endian values from a file, loaded in blocks that double from 64 KiB to 256 KiB. `need` brings bytes into
 * memory, the getters behind it are synchronous: a caller awaits once per block, not once per value.
 */
export class BlockReader {
  readonly #file: FileHandle;
  readonly #size: number;
  readonly #signal: AbortSignal | undefined;
  #buffer = Buffer.alloc(0);
  #at = 0;
  #file_offset = 0;
  #block = FIRST_BLOCK;

  constructor(file: FileHandle, size: number, signal: AbortSignal | undefined) {
    this.#file = file;
    this.#size = size;
    this.#signal = signal;
  }

  /** Whether the next `count` bytes are in memory. */
  has(count: number): boolean {
    return this.#at + count <= this.#buffer.length;
  }

  /** @throws GgufError where the file ends before the next `count` bytes do. */
  expect(count: number): void {
    if (count > this.#size - this.#position()) throw new GgufError('GGUF file is cut off in its header');
  }

  /** Brings the next `count` bytes into memory. */
  async need(count: number): Promise<void> {
    if (this.has(count)) return;
    this.expect(count);
    if (count > MAX_TEXT) throw new GgufError(`not a GGUF file: it has a text of ${count} bytes`);
    const rest = this.#buffer.subarray(this.#at);
    const wanted = Math.min(Math.max(count, this.#block), this.#size - this.#position());
    this.#block = Math.min(this.#block * 2, LAST_BLOCK);
    const buffer = Buffer.allocUnsafe(wanted);
    rest.copy(buffer);
    let filled = rest.length;
    while (filled < wanted) {
      this.#signal?.throwIfAborted();
      const { bytesRead } = await this.#file.read(buffer, filled, wanted - filled, this.#file_offset);
      if (bytesRead === 0) throw new GgufError('GGUF file is cut off in its header');
      filled += bytesRead;
      this.#file_offset += bytesRead;
    }
    this.#buffer = buffer;
    this.#at = 0;
  }

  /** Steps over bytes without reading those that are not in memory. */
  skip(count: number): void {
    if (this.has(count)) {
      this.#at += count;
      return;
    }
    this.expect(count);
    this.#file_offset = this.#position() + count;
    this.#buffer = Buffer.alloc(0);
    this.#at = 0;
  }

  u32(): number {
    this.#at += 4;
    return this.#buffer.readUInt32LE(this.#at - 4);
  }

  /** A 64-bit length or count; one that no file can hold becomes a number that `expect` refuses. */
  length(): number {
    this.#at += 8;
    return Number(this.#buffer.readBigUInt64LE(this.#at - 8));
  }

  text(bytes: number): string {
    this.#at += bytes;
    return this.#buffer.toString('utf8', this.#at - bytes, this.#at);
  }

  /** A value of one of GGUF's fixed-size types. */
  scalar(type: number): number | bigint | boolean {
    const at = this.#at;
    const buffer = this.#buffer;
    const took = (bytes: number): void => void (this.#at += bytes);
    switch (type) {
      case 0:
        return (took(1), buffer.readUInt8(at));
      case 1:
        return (took(1), buffer.readInt8(at));
      case 2:
        return (took(2), buffer.readUInt16LE(at));
      case 3:
        return (took(2), buffer.readInt16LE(at));
      case 4:
        return (took(4), buffer.readUInt32LE(at));
      case 5:
        return (took(4), buffer.readInt32LE(at));
      case 6:
        return (took(4), buffer.readFloatLE(at));
      case 7:
        return (took(1), buffer.readUInt8(at) !== 0);
      case 10:
        return (took(8), narrow(buffer.readBigUInt64LE(at)));
      case 11:
        return (took(8), narrow(buffer.readBigInt64LE(at)));
      default:
        return (took(8), buffer.readDoubleLE(at));
    }
  }

  #position(): number {
    return this.#file_offset - (this.#buffer.length - this.#at);
  }
}

function narrow(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
