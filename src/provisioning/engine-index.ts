import { mkdir, open, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { unobtainable } from '../models/failures.ts';
import { tryLock } from '../models/lock.ts';

/** An engine that was built here. */
export interface EngineEntry {
  id: string;
  engine: string;
  /** What it says of itself. */
  version: string;
  /** The commit it was built from. */
  build_ref?: string;
  /** `sha256:<hex>` of the program. */
  digest: string;
  build_flags: string[];
  /** Folders that are its own, relative to the index. */
  artifacts: string[];
  created_ms: number;
}

const SCHEMA = 1;
const LOOK_MS = 20;

/** The list of what was built, in a file that all processes of this machine share: `<folder>/index.json`. */
export class EngineIndex {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
  }

  /** @throws TaskchartError where another version has written it, or it is damaged: nothing is loaded in part */
  async entries(): Promise<EngineEntry[]> {
    let text: string;
    try {
      text = await readFile(this.#file, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
    const { schema, engines } = parse(text);
    if (schema !== SCHEMA)
      throw unobtainable(
        `the engine index ${this.#file} has the schema version ${JSON.stringify(schema)}, this version reads ${SCHEMA}; ` +
          'move the folder away, or name another one as engines.cache_dir',
      );
    if (!Array.isArray(engines) || !engines.every(isEntry))
      throw unobtainable(`the engine index ${this.#file} is damaged; remove it, and engines are built anew`);
    return engines;
  }

  async find(id: string): Promise<EngineEntry | undefined> {
    return (await this.entries()).find((entry) => entry.id === id);
  }

  async add(entry: EngineEntry): Promise<void> {
    await this.#change((entries) => [...entries.filter(({ id }) => id !== entry.id), entry]);
  }

  /** @returns the entry that is gone, if there was one */
  async remove(id: string): Promise<EngineEntry | undefined> {
    const entry = await this.find(id);
    if (entry) await this.#change((entries) => entries.filter((each) => each.id !== id));
    return entry;
  }

  get #file(): string {
    return join(this.folder, 'index.json');
  }

  async #change(change: (entries: EngineEntry[]) => EngineEntry[]): Promise<void> {
    await mkdir(this.folder, { recursive: true });
    let lock = tryLock(join(this.folder, 'index.lock'), 'alone');
    while (!lock) {
      await sleep(LOOK_MS);
      lock = tryLock(join(this.folder, 'index.lock'), 'alone');
    }
    try {
      const engines = change(await this.entries());
      const temporary = `${this.#file}.${process.pid}.tmp`;
      const file = await open(temporary, 'w');
      await file.writeFile(`${JSON.stringify({ schema: SCHEMA, engines }, undefined, 2)}\n`);
      await file.sync();
      await file.close();
      await rename(temporary, this.#file);
    } finally {
      lock.release();
    }
  }
}

function parse(text: string): { schema?: unknown; engines?: unknown } {
  try {
    return JSON.parse(text) as { schema?: unknown; engines?: unknown };
  } catch {
    return { schema: SCHEMA };
  }
}

function isEntry(value: unknown): value is EngineEntry {
  if (typeof value !== 'object' || value === null) return false;
  const { id, engine, artifacts } = value as Partial<EngineEntry>;
  return (
    typeof id === 'string' &&
    typeof engine === 'string' &&
    Array.isArray(artifacts) &&
    artifacts.every((path) => typeof path === 'string')
  );
}
