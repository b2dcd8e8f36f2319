import type { OpenBody } from '../download.ts';

/** One file of a model, and how to get it. */
export interface RemoteFile {
  /** Where it goes below the model's folder, `/` between names. */
  name: string;
  size_bytes: number | undefined;
  /** `sha256:<hex>`, as its origin says. */
  digest: string | undefined;
  /** Names these bytes at their origin, for good: a part of the same is gone on with. */
  origin: string;
  open: OpenBody;
}

/** Everything of a model, pinned to one version of it. */
export interface RemoteModel {
  /** Commit, manifest digest or ETag. */
  revision: string | undefined;
  /** Below the cache's folder; the same for every reference to the same version. */
  folder: string;
  /** In the order of its parts; the first one is what engines are given. */
  files: readonly RemoteFile[];
  /** Whether engines are given the folder instead. */
  isFolder: boolean;
}
