import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { basename } from 'node:path';
import { pipeline } from 'node:stream/promises';

/** @throws Error with the reason, before the native loader gets a file it would only curse at. */
export async function checkModelFile(path: string): Promise<void> {
  const file = await open(path).catch(() => {
    throw new Error(`The model file ${basename(path)} cannot be opened.`);
  });
  try {
    const magic = Buffer.alloc(4);
    await file.read(magic, 0, 4, 0);
    if (magic.toString('latin1') !== 'GGUF')
      throw new Error(`The file ${basename(path)} is not a GGUF model.`);
  } finally {
    await file.close();
  }
}

/** @returns `sha256:<hex>` of the file. */
export async function digestOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash);
  return `sha256:${hash.digest('hex')}`;
}
