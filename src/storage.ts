import { join } from 'node:path';
import type { ArtifactStore } from './artifacts/artifact-store.ts';
import type { CatalogStore } from './catalog/catalog-store.ts';
import type { Store } from './store/store.ts';
import type { TaskLog } from './streams/task-log.ts';

export interface StorageOptions {
  /**
   * Hears of what could not be written, such as on a full disk. A task that could not be stored was refused; events of
   * a stream are tried again with the next ones.
   * @default none
   */
  onError?: (error: Error) => void;
  /** Folder of the catalog of models, which several processes may share. @default the folder of all */
  catalog_root?: string;
}

/** What outlives the process, for `createOrchestrator`. */
export interface Storage {
  store: Store;
  task_log: TaskLog;
  artifact_store: ArtifactStore;
  catalog_store: CatalogStore;
}

/**
 * Opens the files that keep accepted tasks (`tasks.db`), their streams (`streams.db`), artifacts (`artifacts/`) and the
 * catalog of models (`catalog.json`) in a folder; but for the last, for this process alone; what is missing is made, readable by its owner only. Closing the orchestrator closes them.
 * @param folder an absolute path, or one from the working directory
 * @throws StoreError where they are in use, of a newer version, not ours, or cannot be opened; `code` says which
 */
export async function openStorage(folder: string, options: StorageOptions = {}): Promise<Storage> {
  // Loaded here, because a process that keeps nothing should not pay for it at start.
  const [{ openSqliteStore }, { openSqliteTaskLog }, { FolderArtifacts }, { FolderCatalog }] =
    await Promise.all([
      import('./store/sqlite-store.ts'),
      import('./streams/sqlite-log.ts'),
      import('./artifacts/folder-artifacts.ts'),
      import('./catalog/folder-catalog.ts'),
    ]);
  const [store, task_log, catalog_store] = await Promise.allSettled([
    openSqliteStore(join(folder, 'tasks.db'), options),
    openSqliteTaskLog(join(folder, 'streams.db'), options),
    FolderCatalog.open(options.catalog_root ?? folder, options),
  ]);
  if (
    store.status === 'fulfilled' &&
    task_log.status === 'fulfilled' &&
    catalog_store.status === 'fulfilled'
  ) {
    const artifact_store = new FolderArtifacts(join(folder, 'artifacts'), options);
    return {
      store: store.value,
      task_log: task_log.value,
      artifact_store,
      catalog_store: catalog_store.value,
    };
  }
  const refused = [];
  for (const opened of [store, task_log, catalog_store])
    if (opened.status === 'rejected') refused.push(opened.reason);
    else await opened.value.close();
  throw refused[0];
}
