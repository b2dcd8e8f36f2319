import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { openDatabase, type Schema } from '../../src/sqlite/database.ts';
import { StoreError } from '../../src/sqlite/store-error.ts';
import { until } from '../helpers/until.ts';
import { makeFile, pathFor, rowsOf, startProgram } from './files.ts';

const NOTES: Schema = {
  name: 'notebook',
  application_id: 77,
  migrations: [
    'CREATE TABLE notes (text TEXT NOT NULL)',
    "ALTER TABLE notes ADD COLUMN author TEXT NOT NULL DEFAULT 'nobody'",
    "UPDATE notes SET text = text || '.'",
  ],
};
const SAFE = { synchronous: 'FULL' } as const;

test('makes a file at the newest version, its folder included, for its owner’s eyes only', (t) => {
  const path = join(pathFor(t, 'deep'), 'notes.db');
  openDatabase(path, NOTES, SAFE).close();
  t.deepEqual(
    rowsOf(path, 'PRAGMA user_version').map((row) => row['user_version']),
    [3],
  );
  t.is(statSync(path).mode & 0o777, 0o600);
});

test('brings an older file to today’s version, with what is in it', (t) => {
  const path = pathFor(t, 'notes.db');
  openDatabase(path, { ...NOTES, migrations: NOTES.migrations.slice(0, 1) }, SAFE).close();
  makeFile(path, "INSERT INTO notes VALUES ('first')");
  openDatabase(path, NOTES, SAFE).close();
  t.like(rowsOf(path, 'SELECT * FROM notes'), [{ text: 'first.', author: 'nobody' }]);
});

test('a step that fails leaves the file at the version before it', (t) => {
  const path = pathFor(t, 'notes.db');
  const broken = {
    ...NOTES,
    migrations: [...NOTES.migrations, 'DELETE FROM notes; SELECT * FROM elsewhere'],
  };
  openDatabase(path, NOTES, SAFE).close();
  makeFile(path, "INSERT INTO notes (text) VALUES ('kept')");
  t.throws(() => openDatabase(path, broken, SAFE), {
    instanceOf: StoreError,
    message: `cannot bring ${path} from version 3 to 4: no such table: elsewhere`,
  });
  t.like(rowsOf(path, 'SELECT text FROM notes'), [{ text: 'kept' }]);
  openDatabase(path, NOTES, SAFE).close();
});

test('a file of a newer version is refused with both versions', (t) => {
  const path = pathFor(t, 'notes.db');
  openDatabase(path, NOTES, SAFE).close();
  const error = t.throws(() => openDatabase(path, { ...NOTES, migrations: [] }, SAFE), {
    instanceOf: StoreError,
  });
  t.is(error?.code, 'newer');
  t.true(error?.message.startsWith(`${path} is a notebook of version 3, this taskchart knows version 0: `));
});

test('files of others are refused and left as they are', (t) => {
  const another = pathFor(t, 'another.db');
  makeFile(another, "CREATE TABLE stamps (name TEXT); INSERT INTO stamps VALUES ('blue')");
  const text = pathFor(t, 'letter.txt');
  writeFileSync(
    text,
    'Dear reader, this is not a database but a letter, and it is long enough to have a header.',
  );
  const short = pathFor(t, 'short.txt');
  writeFileSync(short, 'Hello');
  for (const path of [another, text, short]) {
    const before = readFileSync(path);
    const error = t.throws(() => openDatabase(path, NOTES, SAFE), { instanceOf: StoreError });
    t.is(error?.code, 'foreign');
    t.true(error?.message.startsWith(`${path} is not a notebook`));
    t.deepEqual(readFileSync(path), before);
    t.false(existsSync(`${path}-wal`));
  }
});

test('a path where no file can be says why', (t) => {
  const file = pathFor(t, 'file');
  writeFileSync(file, '');
  const error = t.throws(() => openDatabase(join(file, 'notes.db'), NOTES, SAFE), { instanceOf: StoreError });
  t.is(error?.code, 'unusable');
  t.regex(error?.message ?? '', /^cannot open .*notes\.db: /);
});

test('a file has one owner at a time', (t) => {
  const path = pathFor(t, 'notes.db');
  const first = openDatabase(path, NOTES, SAFE);
  const error = t.throws(() => openDatabase(path, NOTES, SAFE), { instanceOf: StoreError });
  t.is(error?.code, 'in_use');
  t.is(error?.message, `${path} is in use by another taskchart`);
  first.close();
  openDatabase(path, NOTES, SAFE).close();
});

test('an owner in another process keeps others out until it is killed', async (t) => {
  const path = pathFor(t, 'store.db');
  const owner = startProgram(t, '../store/committing-program.ts', import.meta.url, [path]);
  await until(() => owner.lines.length > 0, 'the first commit of the other process');
  t.throws(() => openDatabase(path, NOTES, SAFE), { message: `${path} is in use by another taskchart` });
  owner.child.kill('SIGKILL');
  await owner.ended;
  t.is(t.throws(() => openDatabase(path, NOTES, SAFE), { instanceOf: StoreError })?.code, 'foreign');
});
