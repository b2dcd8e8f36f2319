import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Piscina } from 'piscina';

/** Reads model files in a thread of its own, one at a time: a large one takes minutes, and nobody waits for it here. */
export interface FileHasher {
  /** `sha256:<hex>` of a file. @throws Error of the file system, or where it was closed meanwhile */
  digestOf(path: string): Promise<string>;
  /** Ends the thread, in the middle of a file too. Safe to repeat. */
  close(): Promise<void>;
}

/** The thread starts with the first file. */
export function createFileHasher(): FileHasher {
  let piscina: Promise<Piscina<string, string>> | undefined;
  let isClosed = false;
  return {
    async digestOf(path) {
      if (isClosed) throw new Error('the hasher is closed');
      piscina ??= startPiscina();
      return (await piscina).run(path);
    },
    async close() {
      isClosed = true;
      await (await piscina)?.destroy();
    },
  };
}

async function startPiscina(): Promise<Piscina<string, string>> {
  // Loaded here because a process that never compares a file should not pay for it at start.
  const { Piscina } = await import('piscina');
  const piscina = new Piscina<string, string>({
    filename: fileURLToPath(new URL(`hash-file${extname(import.meta.url)}`, import.meta.url)),
    minThreads: 0,
    maxThreads: 1,
    idleTimeout: 1000,
  });
  // A thread that dies without work is replaced by the next file; without a listener it would end the process.
  piscina.on('error', () => undefined);
  return piscina;
}
