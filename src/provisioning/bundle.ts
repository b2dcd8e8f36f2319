import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The llama.cpp that a dependency of this package brings along: a git bundle of one version. */
export interface Bundle {
  path: string;
  /** Its tag. */
  version: string;
}

/** @throws Error where the dependency is not installed as it should be */
export function llamaBundle(): Bundle {
  const folder = join(dirname(fileURLToPath(import.meta.resolve('node-llama-cpp'))), '..', 'llama');
  const text = readFileSync(join(folder, 'binariesGithubRelease.json'), 'utf8');
  const { release } = JSON.parse(text) as { release?: string };
  return { path: join(folder, 'gitRelease.bundle'), version: release ?? 'unknown' };
}
