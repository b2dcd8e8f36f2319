import { extname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setImmediate as turn } from 'node:timers/promises';
import { DatabaseThread } from '../sqlite/database-thread.ts';
import { OneAtATime } from '../sqlite/one-at-a-time.ts';
import { reasonOf, StoreError } from '../sqlite/store-error.ts';
import { addCommit, type CommitBatch, type Conflicts } from './commit-batch.ts';
import type { Commit, CommitResult, Fact, Store } from './store.ts';

export interface SqliteStoreOptions {
  /** Told each time a group of commits could not be written; they were answered `unknown`. */
  onError?: (error: StoreError) => void;
  /** Most bytes that the file may take, its write-ahead log not included. No default: as much as the disk has. */
  max_bytes?: number;
}

type Thread = DatabaseThread<CommitBatch, Conflicts>;

interface Waiting extends CommitBatch {
  answers: ((result: CommitResult) => void)[];
}

/** Few enough that a chunk takes a millisecond or two. */
const FACTS_A_CHUNK = 1000;

const PROGRAM = new URL(`store-thread${extname(import.meta.url)}`, import.meta.url);

/**
 * Opens the facts in a file, which is made where it is missing, for this process alone.
 * @throws StoreError where the file is in use, not a taskchart store, of a newer version, or cannot be opened
 */
export async function openSqliteStore(path: string, options: SqliteStoreOptions = {}): Promise<SqliteStore> {
  const { max_bytes } = options;
  const thread: Thread = await DatabaseThread.open(PROGRAM, { path, max_bytes });
  return new SqliteStore(path, thread, options);
}

/**
 * Facts in an SQLite file. `ok` means on disk, so that it outlives a loss of power. Data is taken as JSON when it is
 * committed. Commits that arrive while others are written go into the next transaction together; one whose checks do
 * not hold is left out alone. While nothing is being written, an open store does not keep the process alive.
 */
export class SqliteStore implements Store {
  readonly isDurable = true;
  readonly #path: string;
  readonly #thread: Thread;
  readonly #onError: SqliteStoreOptions['onError'];
  readonly #flushes = new OneAtATime(() => this.#flush());
  #next: Waiting = { counts: [], texts: [], answers: [] };
  #transactions = 0;
  #closed: Promise<void> | undefined;

  /** For {@link openSqliteStore}. */
  constructor(path: string, thread: Thread, { onError }: SqliteStoreOptions) {
    this.#path = path;
    this.#thread = thread;
    this.#onError = onError;
  }

  /** Transactions so far; each is one wait for the disk, and takes all commits that were waiting. */
  get transactions(): number {
    return this.#transactions;
  }

  /** @throws TypeError for data that JSON cannot say */
  commit(commit: Commit): Promise<CommitResult> {
    if (this.#closed) return Promise.resolve('unknown');
    const next = this.#next;
    addCommit(next, commit);
    this.#flushes.want();
    return new Promise((resolve) => next.answers.push(resolve));
  }

  /** @throws StoreError where the file cannot be read */
  async *fold(): AsyncGenerator<readonly Fact[], void, undefined> {
    let db: DatabaseSync | undefined;
    try {
      db = new DatabaseSync(this.#path, { readOnly: true });
      // One transaction, so that what is committed meanwhile is not seen in parts.
      db.exec('BEGIN');
      const chunk = db.prepare('SELECT seq, key, data FROM facts WHERE seq > ? ORDER BY seq LIMIT ?');
      chunk.setReturnArrays(true);
      for (let last = 0; ; await turn()) {
        const rows = chunk.all(last, FACTS_A_CHUNK) as unknown as [seq: number, key: string, data: string][];
        if (rows.length > 0) yield rows.map(([, key, data]) => ({ key, data: JSON.parse(data) as unknown }));
        if (rows.length < FACTS_A_CHUNK) return;
        last = rows.at(-1)?.[0] as number;
      }
    } catch (error) {
      throw new StoreError('unusable', `cannot read ${this.#path}: ${reasonOf(error)}`, { cause: error });
    } finally {
      db?.close();
    }
  }

  close(): Promise<void> {
    this.#closed ??= this.#flushes.idle().then(() => this.#thread.close());
    return this.#closed;
  }

  async #flush(): Promise<void> {
    const { answers, counts, texts } = this.#next;
    this.#next = { counts: [], texts: [], answers: [] };
    try {
      const conflicts = await this.#thread.write({ counts, texts });
      this.#transactions++;
      for (const place of conflicts) answers[place]?.('conflict');
      // An answer that was given stands.
      for (const answer of answers) answer('ok');
    } catch (error) {
      for (const answer of answers) answer('unknown');
      this.#onError?.(
        new StoreError('unusable', `cannot write ${this.#path}: ${reasonOf(error)}`, { cause: error }),
      );
    }
  }
}
