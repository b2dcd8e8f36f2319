import { join } from 'node:path';
import type { Store } from './store/store.ts';
import type { TaskLog } from './streams/task-log.ts';

export interface StorageOptions {
  /** Hears of what could not be written; it is tried again with the next writes. @default none */
  onError?: (error: Error) => void;
}

/** What outlives the process, for `createOrchestrator`. */
export interface Storage {
  store: Store;
  task_log: TaskLog;
}

/**
 * Opens the files that keep accepted tasks (`tasks.db`) and their streams (`streams.db`) in a folder, for this process
 * alone. Whoever closes the orchestrator closes them.
 * @throws StoreError where they are in use, of a newer version, not ours, or cannot be opened
 */
export async function openStorage(folder: string, options: StorageOptions = {}): Promise<Storage> {
  // Loaded here, because a process that keeps nothing should not pay for it at start.
  const [{ openSqliteStore }, { openSqliteTaskLog }] = await Promise.all([
    import('./store/sqlite-store.ts'),
    import('./streams/sqlite-log.ts'),
  ]);
  const [store, task_log] = await Promise.allSettled([
    openSqliteStore(join(folder, 'tasks.db'), options),
    openSqliteTaskLog(join(folder, 'streams.db'), options),
  ]);
  if (store.status === 'fulfilled' && task_log.status === 'fulfilled')
    return { store: store.value, task_log: task_log.value };
  const refused = [];
  for (const opened of [store, task_log])
    if (opened.status === 'rejected') refused.push(opened.reason);
    else await opened.value.close();
  throw refused[0];
}
