import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';
import {
  ModelLibrary,
  type ModelLibraryOptions,
  type ModelRequirements,
} from '../../../src/models/library.ts';
import type { ModelProgress, PreparedModel } from '../../../src/models/source.ts';
import { FakeRegistry } from '../../helpers/fake-registry.ts';

export const STORYTELLER = fileURLToPath(
  new URL('../../../models/storyteller/storyteller.gguf', import.meta.url),
);

/** A header that is enough to be a GGUF, and bytes that tell their place. */
export function gguf(size: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size; at++) bytes[at] = (at * 31 + seed * 17 + (at >> 8)) & 0xff;
  bytes.write('GGUF', 0, 'latin1');
  bytes.writeUInt32LE(3, 4);
  // No tensors, no metadata.
  bytes.fill(0, 8, 24);
  return bytes;
}

export const POLICY: ModelLibraryOptions['policy'] = { offline: false, auto_fetch: true, allowlist: [] };

/** No waiting worth the name between tries. */
export const FAST = { base_ms: 1, multiplier: 2, cap_ms: 4, max_attempts: 4 };

export interface SourceRig {
  registry: FakeRegistry;
  folder: string;
  cache_dir: string;
  provenance(): Record<string, unknown>[];
  library(options?: Partial<ModelLibraryOptions>): ModelLibrary;
  /** All steps of a provisioning, as its machine does them. */
  provision(
    reference: string,
    options?: Partial<ModelLibraryOptions> & ModelRequirements,
    told?: (progress: ModelProgress) => void,
  ): Promise<PreparedModel>;
}

/** A registry, a cache that is empty, and libraries over them that end with the test. */
export async function createSourceRig(t: ExecutionContext): Promise<SourceRig> {
  const registry = await FakeRegistry.start();
  const folder = mkdtempSync(join(tmpdir(), 'taskchart-models-'));
  const cache_dir = join(folder, 'cache');
  const provenance_file = join(folder, 'runtime/provenance/models.jsonl');
  const libraries: ModelLibrary[] = [];
  t.teardown(async () => {
    await Promise.all(libraries.map((library) => library.close()));
    await registry.close();
    rmSync(folder, { recursive: true });
  });
  const library: SourceRig['library'] = (options = {}) => {
    const made = new ModelLibrary({
      cache_dir,
      provenance_file,
      policy: POLICY,
      hub: { endpoint: registry.url },
      retry: FAST,
      reserve_bytes: 0,
      ...options,
    });
    libraries.push(made);
    return made;
  };
  return {
    registry,
    folder,
    cache_dir,
    library,
    provenance: () =>
      readFileSync(provenance_file, 'utf8')
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as Record<string, unknown>),
    provision: (reference, { checksum, form, ...options } = {}, told) =>
      provisionWith(library(options), reference, { checksum, ...(form ? { form } : {}) }, told),
  };
}

export async function provisionWith(
  library: ModelLibrary,
  reference: string,
  requirements: ModelRequirements = {},
  told: (progress: ModelProgress) => void = () => undefined,
  signal: AbortSignal = new AbortController().signal,
): Promise<PreparedModel> {
  const source = library.source(requirements);
  const resolved = await source.resolve(reference, signal);
  const here = resolved.present ? resolved : await source.fetch(resolved, signal, told);
  return source.verify(here, signal, told);
}
