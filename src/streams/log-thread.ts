import { inTransaction, openDatabase, type DatabaseOptions, type Schema } from '../sqlite/database.ts';
import { serve, type Served } from '../sqlite/serve.ts';
import type { LogFlush } from './log-flush.ts';

/** A log without its end has a row for each flush, one with its end is a single row. */
const SCHEMA: Schema = {
  name: 'taskchart log',
  application_id: 0x74_63_6c_31,
  migrations: [
    `CREATE TABLE open (
      task TEXT NOT NULL,
      first INTEGER NOT NULL,
      last INTEGER NOT NULL,
      frames TEXT NOT NULL,
      PRIMARY KEY (task, first)
    ) WITHOUT ROWID;
    CREATE TABLE closed (
      id INTEGER PRIMARY KEY,
      task TEXT NOT NULL,
      last INTEGER NOT NULL,
      frames BLOB NOT NULL
    );
    -- Has both columns, so that listing what is there reads no frames.
    CREATE UNIQUE INDEX closed_tasks ON closed (task, last)`,
    // When the events came. What was written before has none.
    `ALTER TABLE open ADD COLUMN times TEXT NOT NULL DEFAULT '';
    ALTER TABLE closed ADD COLUMN times TEXT NOT NULL DEFAULT ''`,
  ],
};

interface LogThreadData extends Pick<DatabaseOptions, 'max_bytes'> {
  path: string;
}

serve<LogThreadData, LogFlush, undefined>(({ path, max_bytes }) => {
  const { db, close } = openDatabase(path, SCHEMA, { synchronous: 'NORMAL', max_bytes });
  // A flush that comes again, because nobody knows what became of it, finds what it has written and leaves that alone.
  const put = db.prepare(
    'INSERT OR REPLACE INTO open (task, first, last, frames, times) VALUES (?, ?, ?, ?, ?)',
  );
  const compact = db.prepare(
    `INSERT OR IGNORE INTO closed (task, last, frames, times) VALUES (?1, ?3, CAST(
      coalesce((SELECT group_concat(frames, '' ORDER BY first) FROM open WHERE task = ?1 AND first < ?2), '') || ?4
    AS BLOB), ?5)`,
  );
  const removeOpen = db.prepare('DELETE FROM open WHERE task = ?');
  const removeClosed = db.prepare('DELETE FROM closed WHERE task = ?');

  function write({ dropped, tasks, places, ends, frames, times }: LogFlush): void {
    for (const task of dropped) {
      removeOpen.run(task);
      removeClosed.run(task);
    }
    for (const [place, task] of tasks.entries()) {
      const first = places[2 * place] as number;
      const last = places[2 * place + 1] as number;
      const text = frames[place] as string;
      const at = times[place] as string;
      if (!ends[place]) {
        put.run(task, first, last, text, at);
        continue;
      }
      compact.run(task, first, last, text, at);
      if (first > 0) removeOpen.run(task);
    }
  }

  return {
    write(flush) {
      inTransaction(db, () => write(flush));
      return undefined;
    },
    close,
  } satisfies Served<LogFlush, undefined>;
});
