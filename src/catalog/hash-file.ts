import { createHash } from 'node:crypto';
import { closeSync, openSync, readSync } from 'node:fs';

const READ_BYTES = 1024 * 1024;

/** What a thread does: `sha256:` and the digest of a file. @throws Error of the file system */
export default function hashFile(path: string): string {
  const file = openSync(path, 'r');
  try {
    const hash = createHash('sha256');
    const block = Buffer.allocUnsafe(READ_BYTES);
    for (;;) {
      const bytes = readSync(file, block, 0, block.length, null);
      if (bytes === 0) return `sha256:${hash.digest('hex')}`;
      hash.update(block.subarray(0, bytes));
    }
  } finally {
    closeSync(file);
  }
}
