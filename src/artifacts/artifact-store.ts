import type { Artifact, ArtifactKind, ArtifactPage, ArtifactRef } from '../contract/generated/types.ts';

export interface ArtifactQuery {
  kind?: ArtifactKind | undefined;
  /** A whole tag. */
  tag?: string | undefined;
  /** Entries per page, at most. */
  limit: number;
  /** `next_cursor` of an earlier page. */
  cursor?: string | undefined;
}

export interface ArtifactLimits {
  /** Most bytes that all artifacts may take together; the oldest leave first. */
  max_bytes: number;
  /** How long an artifact stays, in milliseconds; 0 is for ever. */
  retention_ms: number;
}

/** 256 MiB and 30 days. */
export const DEFAULT_LIMITS: ArtifactLimits = {
  max_bytes: 256 * 1024 * 1024,
  retention_ms: 30 * 24 * 3_600_000,
};

/** Keeps artifacts under the digest of what they say: what is stored never changes, and the same is stored once. */
export interface ArtifactStore {
  /**
   * Answers once it is kept. The same again answers the same, and does not make it newer.
   * @param artifact as `parseArtifact` gives it
   * @throws TaskchartError INVALID_PARAMS (413) for one that alone takes more than all may
   */
  put(artifact: Artifact): Promise<ArtifactRef>;
  /** Undefined for an id that is not known, any more, or no id at all. */
  get(id: string): Promise<Artifact | undefined>;
  /** Newest first. @throws TaskchartError INVALID_PARAMS for a cursor that no page has given */
  list(query: ArtifactQuery): Promise<ArtifactPage>;
  /** What it may hold from now on. @default {@link DEFAULT_LIMITS} */
  limit(limits: ArtifactLimits): void;
  /** Resolves once everything is kept that was put. Safe to repeat; nothing can be put afterwards. */
  close(): Promise<void>;
}

export interface ArtifactStoreOptions {
  /** Epoch milliseconds. @default Date.now */
  wall?: () => number;
}
