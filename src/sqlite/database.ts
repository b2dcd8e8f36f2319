import { closeSync, mkdirSync, openSync, readSync, realpathSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { reasonOf, StoreError } from './store-error.ts';

/** What is in a database file, and how older files become today's. */
export interface Schema {
  /** What the file is, for messages: `taskchart store`. */
  name: string;
  /** Marks files of this schema (`PRAGMA application_id`); never changes. */
  application_id: number;
  /** SQL that takes a file from version n to n + 1, for each n from 0; an entry never changes once it was released. */
  migrations: readonly string[];
}

export interface DatabaseOptions {
  /** `FULL`: a commit survives the loss of power; `NORMAL`: it survives the end of the process in any way. */
  synchronous: 'FULL' | 'NORMAL';
  /** Most bytes that the file may take, its write-ahead log not included. No default: as much as the disk has. */
  max_bytes?: number | undefined;
}

export interface OpenDatabase {
  db: DatabaseSync;
  /** Closes the file, and gives it free for others. */
  close(): void;
}

const MAGIC = 'SQLite format 3\0';
const BUSY = 5;
/** For people who look into the file with another program meanwhile. */
const BUSY_TIMEOUT_MS = 5000;
/** Commits write whole pages, the same ones again and again: the longer a checkpoint waits, the less it has to do. */
const PAGES_A_CHECKPOINT = 4000;
const MAX_IDLE_WAL_BYTES = 64 * 1024 * 1024;

/**
 * Opens a database file for writing, for one owner at a time, makes it where it is missing, and brings it to the
 * schema's version. Beside the file there are `-wal` and `-shm` while it is open, and an empty `-lock` for good.
 * @throws StoreError
 */
export function openDatabase(path: string, schema: Schema, options: DatabaseOptions): OpenDatabase {
  try {
    mkdirSync(dirname(path), { recursive: true });
    // Prompts are in it, so only its owner may read it; SQLite gives the files beside it the same rights.
    closeSync(openSync(path, 'a', 0o600));
    const file = realpathSync(path);
    const lock = lockOf(file, path);
    try {
      const isNew = isEmpty(file, path, schema);
      const db = new DatabaseSync(file, { timeout: BUSY_TIMEOUT_MS });
      try {
        prepare(db, isNew, path, schema, options);
      } catch (error) {
        db.close();
        throw error;
      }
      return {
        db,
        close() {
          db.close();
          lock.close();
        },
      };
    } catch (error) {
      lock.close();
      throw error;
    }
  } catch (error) {
    if (error instanceof StoreError) throw error;
    throw new StoreError('unusable', `cannot open ${path}: ${reasonOf(error)}`, { cause: error });
  }
}

/** All of `work` or nothing of it. */
export function inTransaction<T>(db: DatabaseSync, work: () => T): T {
  db.exec('BEGIN IMMEDIATE');
  try {
    const result = work();
    db.exec('COMMIT');
    return result;
  } catch (error) {
    // Some failures have rolled back already.
    if (db.isTransaction) db.exec('ROLLBACK');
    throw error;
  }
}

/**
 * A lock that ends with the process, however that ends. It is a transaction on a file of its own, because one on the
 * database would keep our own reader out.
 */
function lockOf(file: string, path: string): DatabaseSync {
  const lock = new DatabaseSync(`${file}-lock`);
  try {
    lock.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE');
    return lock;
  } catch (error) {
    lock.close();
    if ((error as { errcode?: number }).errcode !== BUSY) throw error;
    throw new StoreError('in_use', `${path} is in use by another taskchart`);
  }
}

/**
 * Whether the file has still to be made. Looks at the file itself: SQLite would begin to repair a database that is
 * not ours. Only with the lock in hand, since closing a file gives up all locks that this process has on it.
 */
function isEmpty(file: string, path: string, { name, application_id }: Schema): boolean {
  const header = Buffer.alloc(72);
  const handle = openSync(file, 'r');
  let size: number;
  try {
    size = readSync(handle, header, 0, header.length, 0);
  } finally {
    closeSync(handle);
  }
  if (size === 0) return true;
  if (size < header.length || header.toString('latin1', 0, MAGIC.length) !== MAGIC)
    throw new StoreError('foreign', `${path} is not a ${name}, nor a database at all; it was left as it is`);
  if (header.readUInt32BE(68) !== application_id)
    throw new StoreError('foreign', `${path} is not a ${name} but another database; it was left as it is`);
  return false;
}

function prepare(
  db: DatabaseSync,
  isNew: boolean,
  path: string,
  { name, application_id, migrations }: Schema,
  { synchronous, max_bytes }: DatabaseOptions,
): void {
  if (isNew) db.exec(`PRAGMA application_id = ${application_id}`);
  const found = numberOf(db, 'user_version');
  if (found > migrations.length)
    throw new StoreError(
      'newer',
      `${path} is a ${name} of version ${found}, this taskchart knows version ${migrations.length}: ` +
        'start the newer taskchart that wrote it, or give another path',
    );
  db.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = ${synchronous}`);
  db.exec(`PRAGMA wal_autocheckpoint = ${PAGES_A_CHECKPOINT}`);
  db.exec(`PRAGMA journal_size_limit = ${MAX_IDLE_WAL_BYTES}`);
  for (let version = found; version < migrations.length; version++) {
    try {
      inTransaction(db, () => db.exec(`${migrations[version]}; PRAGMA user_version = ${version + 1}`));
    } catch (error) {
      throw new StoreError(
        'unusable',
        `cannot bring ${path} from version ${version} to ${version + 1}: ${reasonOf(error)}`,
        { cause: error },
      );
    }
  }
  if (max_bytes !== undefined)
    db.exec(`PRAGMA max_page_count = ${Math.max(1, Math.floor(max_bytes / numberOf(db, 'page_size')))}`);
}

function numberOf(db: DatabaseSync, pragma: string): number {
  return db.prepare(`PRAGMA ${pragma}`).get()?.[pragma] as number;
}
