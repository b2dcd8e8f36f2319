import { appendFile, mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Where a model file came from, for people who have to know later. */
export interface Provenance {
  ts_ms: number;
  model_id: string;
  path: string;
  size_bytes: number;
  revision: string | null;
  digest: string | null;
  /** `pass`: held against a digest; `warn`: there was none; `fail`: it has another one. */
  outcome: 'pass' | 'warn' | 'fail';
}

/** Adds a line; a log that cannot be written is no reason to be without the model. */
export async function recordProvenance(file: string, line: Provenance): Promise<void> {
  try {
    await mkdir(dirname(file), { recursive: true });
    await appendFile(file, `${JSON.stringify(line)}\n`);
  } catch (error) {
    process.emitWarning(`the provenance of a model cannot be written: ${String(error)}`);
  }
}
