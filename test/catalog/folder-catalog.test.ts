import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { FolderCatalog } from '../../src/catalog/folder-catalog.ts';
import { StoreError } from '../../src/sqlite/store-error.ts';
import { program, type Program } from '../helpers/cli.ts';
import { entryOf, FULL, testCatalogStore } from './conformance.ts';

function folderOf(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'taskchart-catalog-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

testCatalogStore('folder', (t) => FolderCatalog.open(join(folderOf(t), 'not', 'made')));

const writer = (folder: string, how: 'live' | 'die', ...ids: string[]): Program =>
  program([fileURLToPath(new URL('dying-program.ts', import.meta.url)), folder, how, ...ids]);
const namesIn = (folder: string): string[] => readdirSync(folder).toSorted();

test('what one process has kept, the next one has', async (t) => {
  const folder = folderOf(t);
  const first = await FolderCatalog.open(folder);
  await first.change(FULL.id, () => FULL);
  await first.close();
  const second = await FolderCatalog.open(folder);
  t.deepEqual(second.entries(), [FULL]);
  t.deepEqual(namesIn(folder), ['catalog.json', 'catalog.lock']);
});

test('a folder that nothing was added to stays as it is', async (t) => {
  const folder = folderOf(t);
  const catalog = await FolderCatalog.open(folder);
  await catalog.refresh();
  await catalog.close();
  t.deepEqual(namesIn(folder), []);
});

test('a process that dies between the file and its name has changed nothing, and the next write tidies up', async (t) => {
  const folder = folderOf(t);
  const before = await FolderCatalog.open(folder);
  await before.change('a', () => entryOf('a'));
  const whole = readFileSync(join(folder, 'catalog.json'), 'utf8');
  t.is(await writer(folder, 'die', 'b').exit, 'SIGKILL');
  t.is(namesIn(folder).filter((name) => name.endsWith('.tmp')).length, 1, 'it died in the middle');
  t.is(readFileSync(join(folder, 'catalog.json'), 'utf8'), whole);
  const after = await FolderCatalog.open(folder);
  t.deepEqual(after.entries(), [entryOf('a')]);
  await after.change('c', () => entryOf('c'));
  t.deepEqual(namesIn(folder), ['catalog.json', 'catalog.lock']);
  t.deepEqual(
    after.entries().map(({ id }) => id),
    ['a', 'c'],
  );
});

test('two processes that write at the same time lose nothing of each other, and a reader never sees half', async (t) => {
  t.timeout(60_000);
  const folder = folderOf(t);
  const errors: unknown[] = [];
  const names = (letter: string): string[] => Array.from({ length: 15 }, (_, n) => `${letter}${n}`);
  const writers = ['a', 'b'].map((letter) => writer(folder, 'live', ...names(letter)));
  const over = Promise.all(writers.map(({ exit }) => exit));
  const running = new Set(writers);
  for (const each of writers) void each.exit.then(() => running.delete(each));
  const reader = await FolderCatalog.open(folder, { onError: (error) => errors.push(error) });
  let seen = 0;
  while (running.size > 0) {
    await reader.refresh();
    const entries = reader.entries();
    t.true(entries.length >= seen, 'what was there stays there');
    seen = entries.length;
    for (const { id, tags } of entries) if (tags?.length !== 200 || tags.at(-1) !== id) t.fail(id);
    await FolderCatalog.open(folder);
  }
  t.deepEqual(await over, [0, 0], writers.map(({ stderr }) => stderr()).join('\n'));
  await reader.refresh();
  t.deepEqual(
    reader.entries().map(({ id }) => id),
    [...names('a'), ...names('b')].toSorted(),
  );
  t.deepEqual(errors, []);
});

for (const { what, text, code, message } of [
  {
    what: 'of a newer schema',
    text: JSON.stringify({ schema_version: 2, models: [entryOf('a')] }),
    code: 'newer',
    message:
      /catalog\.json has the schema version 2, and this version of taskchart reads 1; nothing of it was loaded/,
  },
  {
    what: 'of a schema that never was',
    text: JSON.stringify({ schema_version: 0, models: [] }),
    code: 'foreign',
    message: /has the schema version 0/,
  },
  {
    what: 'that is not JSON',
    text: '{"schema_ver',
    code: 'foreign',
    message: /it is not JSON; it was left as it is/,
  },
  { what: 'without a schema', text: '{"models":[]}', code: 'foreign', message: /it has no schema_version/ },
  { what: 'that is nothing', text: 'null', code: 'foreign', message: /it has no schema_version/ },
  {
    what: 'without models',
    text: '{"schema_version":1}',
    code: 'foreign',
    message: /it has no list of models/,
  },
  {
    what: 'with one entry that is none',
    text: JSON.stringify({ schema_version: 1, models: [entryOf('a'), { ...entryOf('b'), state: 'Draft' }] }),
    code: 'foreign',
    message: /models\[1\] is no entry/,
  },
] as const)
  test(`a file ${what} is refused whole, and left as it is`, async (t) => {
    const folder = folderOf(t);
    const path = join(folder, 'catalog.json');
    writeFileSync(path, text);
    const error = await t.throwsAsync(FolderCatalog.open(folder), { instanceOf: StoreError, message });
    t.is(error.code, code);
    t.is(readFileSync(path, 'utf8'), text);
  });

test('a file that becomes another one while it is used is told, not written over, and what was known stays', async (t) => {
  const folder = folderOf(t);
  const path = join(folder, 'catalog.json');
  const errors: Error[] = [];
  const catalog = await FolderCatalog.open(folder, { onError: (error) => errors.push(error) });
  await catalog.change('a', () => entryOf('a'));
  const text = JSON.stringify({ schema_version: 7, models: [] });
  writeFileSync(path, text);
  await catalog.refresh();
  t.like(errors, [{ code: 'newer' }] as object);
  await t.throwsAsync(
    catalog.change('b', () => entryOf('b')),
    { instanceOf: StoreError },
  );
  t.is(readFileSync(path, 'utf8'), text);
  t.deepEqual(catalog.entries(), [entryOf('a')]);
});

test('who cannot have the lock in time is told so', async (t) => {
  const folder = folderOf(t);
  const { tryLock } = await import('../../src/models/lock.ts');
  const lock = tryLock(join(folder, 'catalog.lock'), 'alone');
  const catalog = await FolderCatalog.open(folder, { lock_ms: 20 });
  const error = await t.throwsAsync(
    catalog.change('a', () => entryOf('a')),
    { instanceOf: StoreError, message: /has been locked by another process for 20 ms/ },
  );
  t.is((error as StoreError).code, 'in_use');
  lock?.release();
  await catalog.change('a', () => entryOf('a'));
  t.is(catalog.entries().length, 1);
});

test('a folder that cannot be is told with its path', async (t) => {
  const folder = folderOf(t);
  writeFileSync(join(folder, 'file'), '');
  const catalog = await FolderCatalog.open(join(folder, 'file')).catch((error: unknown) => error);
  t.true(catalog instanceof StoreError && /cannot read .*catalog\.json: ENOTDIR/.test(catalog.message));
});
