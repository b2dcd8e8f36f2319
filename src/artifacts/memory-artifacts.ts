import type { Artifact, ArtifactPage, ArtifactRef } from '../contract/generated/types.ts';
import { failure, TaskchartError } from '../errors.ts';
import { digestIn, refOf, seal } from './artifact.ts';
import { ArtifactIndex, type Entry } from './artifact-index.ts';
import type { ArtifactLimits, ArtifactQuery, ArtifactStore, ArtifactStoreOptions } from './artifact-store.ts';

interface Kept extends Entry {
  text: string;
  ref: ArtifactRef;
}

/** Artifacts as text, for as long as the process lives. */
export class MemoryArtifacts implements ArtifactStore {
  readonly #index = new ArtifactIndex<Kept>();
  readonly #wall: () => number;
  #isClosed = false;

  constructor({ wall = Date.now }: ArtifactStoreOptions = {}) {
    this.#wall = wall;
  }

  async put(artifact: Artifact): Promise<ArtifactRef> {
    if (this.#isClosed) throw closing();
    const { digest, text, bytes } = seal(artifact);
    this.#trim();
    const known = this.#index.get(digest);
    if (known) return known.ref;
    this.#index.checkSize(bytes);
    const created_ms = Math.floor(this.#wall());
    const ref = refOf(artifact, digest, created_ms);
    this.#index.add({ digest, bytes, created_ms, text, ref });
    this.#trim();
    return ref;
  }

  async get(id: string): Promise<Artifact | undefined> {
    this.#trim();
    const kept = this.#index.get(digestIn(id) ?? '');
    return kept && (JSON.parse(kept.text) as Artifact);
  }

  async list(query: ArtifactQuery): Promise<ArtifactPage> {
    this.#trim();
    return this.#index.page(query, ({ ref }) => ref);
  }

  limit(limits: ArtifactLimits): void {
    this.#index.limits = limits;
  }

  /** What is there can still be read. */
  async close(): Promise<void> {
    this.#isClosed = true;
  }

  #trim(): void {
    this.#index.trim(this.#wall());
  }
}

export function closing(): TaskchartError {
  return new TaskchartError(failure('POOL_UNREADY', 'this server is shutting down'));
}
