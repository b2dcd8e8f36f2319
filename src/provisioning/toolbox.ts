import { accessSync, constants, statSync } from 'node:fs';
import { delimiter, isAbsolute, join } from 'node:path';

/** The programs of this machine, as an environment finds them. */
export class Toolbox {
  readonly env: Readonly<Record<string, string>>;

  /** @param env what programs are started with; its PATH is where they are looked for */
  constructor(env: Readonly<Record<string, string>>) {
    this.env = env;
  }

  /** @returns the path of the first of these programs that is there */
  find(...names: readonly string[]): string | undefined {
    for (const name of names) {
      const path = this.#look(name);
      if (path !== undefined) return path;
    }
    return undefined;
  }

  #look(name: string): string | undefined {
    const folders = isAbsolute(name) ? [''] : (this.env['PATH'] ?? '').split(delimiter).filter(isAbsolute);
    return folders.map((folder) => (folder === '' ? name : join(folder, name))).find(isProgram);
  }
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
