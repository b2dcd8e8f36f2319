/** Commits one key after the other, several at a time, and says each key once its commit is answered. Until killed. */
import { openSqliteStore } from '../../src/store/sqlite-store.ts';

const [path = '', prefix = 'key', last = 'Infinity'] = process.argv.slice(2);
const store = await openSqliteStore(path);
let next = 0;

async function commit(): Promise<void> {
  while (next < Number(last)) {
    const key = `${prefix}/${next++}`;
    const result = await store.commit({ checks: [{ key, version: 0 }], facts: [{ key, data: { key } }] });
    process.stdout.write(`${result === 'ok' ? key : result}\n`);
  }
}

await Promise.all([commit(), commit(), commit(), commit(), commit()]);
