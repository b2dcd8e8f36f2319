import { inTransaction, openDatabase, type DatabaseOptions, type Schema } from '../sqlite/database.ts';
import { serve, type Served } from '../sqlite/serve.ts';
import { DELETED, type CommitBatch, type Conflicts } from './commit-batch.ts';

/** A key keeps its place, `seq`, for as long as it has a fact. */
const SCHEMA: Schema = {
  name: 'taskchart store',
  application_id: 0x74_63_66_31,
  migrations: [
    `CREATE TABLE facts (
      seq INTEGER PRIMARY KEY,
      key TEXT NOT NULL UNIQUE,
      version INTEGER NOT NULL,
      data TEXT NOT NULL
    )`,
  ],
};

interface StoreThreadData extends Pick<DatabaseOptions, 'max_bytes'> {
  path: string;
}

serve<StoreThreadData, CommitBatch, Conflicts>(({ path, max_bytes }) => {
  const { db, close } = openDatabase(path, SCHEMA, { synchronous: 'FULL', max_bytes });
  const versionOf = db.prepare('SELECT version FROM facts WHERE key = ?');
  const remove = db.prepare('DELETE FROM facts WHERE key = ?');
  const put = db.prepare(
    `INSERT INTO facts (key, version, data) VALUES (?, 1, ?)
      ON CONFLICT (key) DO UPDATE SET version = version + 1, data = excluded.data`,
  );

  function write({ counts, texts }: CommitBatch): Conflicts {
    const conflicts: number[] = [];
    let count = 0;
    let text = 0;
    for (let commit = 0; count < counts.length; commit++) {
      const checks = counts[count++] as number;
      const facts = counts[count++] as number;
      let holds = true;
      for (let check = 0; check < checks; check++) {
        const found = versionOf.get(texts[text++] as string)?.['version'] ?? 0;
        if (found !== counts[count++]) holds = false;
      }
      if (!holds) conflicts.push(commit);
      for (let fact = 0; fact < facts; fact++) {
        const key = texts[text++] as string;
        const data = texts[text++] as string;
        if (!holds) continue;
        if (data === DELETED) remove.run(key);
        else put.run(key, data);
      }
    }
    return conflicts;
  }

  return { write: (batch) => inTransaction(db, () => write(batch)), close } satisfies Served<
    CommitBatch,
    Conflicts
  >;
});
