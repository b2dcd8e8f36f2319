import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';

/** Files in a folder of the disk that announce engines. */
export class FolderOfHandoffs {
  readonly #dir: string;

  /** @param dir need not be there */
  constructor(dir: string) {
    this.#dir = dir;
  }

  /** Its `*.json`; what is being written under another name is none yet. @throws Error where it cannot be read */
  async list(): Promise<{ name: string; mtime_ms: number; size_bytes: number }[]> {
    const names = await readdir(this.#dir).catch(unlessMissing(() => []));
    const files = names
      .filter((name) => name.endsWith('.json') && !name.startsWith('.'))
      .map(async (name) => {
        const found = await stat(join(this.#dir, name)).catch(unlessMissing(() => undefined));
        return found?.isFile() ? [{ name, mtime_ms: found.mtimeMs, size_bytes: found.size }] : [];
      });
    return (await Promise.all(files)).flat();
  }

  read(name: string): Promise<string> {
    return readFile(join(this.#dir, name), 'utf8');
  }
}

/** Whether a process runs that is not this one. */
export function isElsewhere(pid: number): boolean {
  if (pid === process.pid) return false;
  try {
    return process.kill(pid, 0);
  } catch (error) {
    // It is somebody else's, so there is one.
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function unlessMissing<T>(absent: () => T): (error: NodeJS.ErrnoException) => T {
  return (error) => {
    if (error.code === 'ENOENT') return absent();
    throw new Error(`the folder cannot be read (${error.code ?? error.message})`, { cause: error });
  };
}
