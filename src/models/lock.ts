import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

/** A lock that is held; it ends with the process at the latest, however that ends. */
export interface FileLock {
  release(): void;
}

const BUSY = 5;

/**
 * Takes a lock among all processes of this machine: `shared` goes with other shared ones, `alone` with none. It is an
 * open transaction on an empty database, because the system gives such locks up by itself when their owner dies.
 * @returns undefined where somebody else's lock is in the way
 */
export function tryLock(path: string, kind: 'shared' | 'alone'): FileLock | undefined {
  mkdirSync(dirname(path), { recursive: true });
  const db = new DatabaseSync(path, { timeout: 0 });
  try {
    db.exec(kind === 'alone' ? 'PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE' : 'BEGIN');
    if (kind === 'shared') db.prepare('SELECT count(*) FROM sqlite_master').get();
    return { release: () => db.close() };
  } catch (error) {
    db.close();
    if ((error as { errcode?: number }).errcode === BUSY) return undefined;
    throw error;
  }
}
