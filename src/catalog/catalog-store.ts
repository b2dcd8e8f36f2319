import type { CatalogModel, ModelState } from '../contract/generated/types.ts';

/** What is known of a model. */
export interface CatalogEntry extends CatalogModel {
  state: ModelState;
  created_ms: number;
  /** The file at `local_path` when it was last held against the digest: the same file need not be read again. */
  file?: FileStamp;
}

export interface FileStamp {
  size_bytes: number;
  mtime_ms: number;
}

/** Keeps the catalog. What it answers at once is what it knew at the last look, whole entries and frozen. */
export interface CatalogStore {
  get(id: string): CatalogEntry | undefined;
  /** Those with this digest, by id. */
  withDigest(digest: string): readonly CatalogEntry[];
  /** All of them, by id. */
  entries(): readonly CatalogEntry[];
  /** Looks whether another process has changed it; never rejects. */
  refresh(): Promise<void>;
  /**
   * Changes one entry, after all changes before, of other processes too: `change` gets it as it is then, and gives it
   * as it should be, or undefined to be without it. Resolves once that is kept.
   * @returns what `change` gave
   * @throws StoreError where it cannot be kept; nothing has changed then
   */
  change(
    id: string,
    change: (current: CatalogEntry | undefined) => CatalogEntry | undefined,
  ): Promise<CatalogEntry | undefined>;
  /** Resolves once everything is kept that was changed. Safe to repeat; nothing can be changed afterwards. */
  close(): Promise<void>;
}
