import { join } from 'node:path';
import type { ArtifactStore } from './artifacts/artifact-store.ts';
import type { Store } from './store/store.ts';
import type { TaskLog } from './streams/task-log.ts';

export interface StorageOptions {
  /**
   * Hears of what could not be written, such as on a full disk. A task that could not be stored was refused; events of
   * a stream are tried again with the next ones.
   * @default none
   */
  onError?: (error: Error) => void;
}

/** What outlives the process, for `createOrchestrator`. */
export interface Storage {
  store: Store;
  task_log: TaskLog;
  artifact_store: ArtifactStore;
}

/**
 * Opens the files that keep accepted tasks (`tasks.db`), their streams (`streams.db`) and artifacts (`artifacts/`) in a
 * folder, for this process alone; what is missing is made, readable by its owner only. Closing the orchestrator closes them.
 * @param folder an absolute path, or one from the working directory
 * @throws StoreError where they are in use, of a newer version, not ours, or cannot be opened; `code` says which
 */
export async function openStorage(folder: string, options: StorageOptions = {}): Promise<Storage> {
  // Loaded here, because a process that keeps nothing should not pay for it at start.
  const [{ openSqliteStore }, { openSqliteTaskLog }, { FolderArtifacts }] = await Promise.all([
    import('./store/sqlite-store.ts'),
    import('./streams/sqlite-log.ts'),
    import('./artifacts/folder-artifacts.ts'),
  ]);
  const [store, task_log] = await Promise.allSettled([
    openSqliteStore(join(folder, 'tasks.db'), options),
    openSqliteTaskLog(join(folder, 'streams.db'), options),
  ]);
  if (store.status === 'fulfilled' && task_log.status === 'fulfilled') {
    const artifact_store = new FolderArtifacts(join(folder, 'artifacts'), options);
    return { store: store.value, task_log: task_log.value, artifact_store };
  }
  const refused = [];
  for (const opened of [store, task_log])
    if (opened.status === 'rejected') refused.push(opened.reason);
    else await opened.value.close();
  throw refused[0];
}
