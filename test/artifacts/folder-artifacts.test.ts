import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { FolderArtifacts, type FolderArtifactsOptions } from '../../src/artifacts/folder-artifacts.ts';
import type { StoreError } from '../../src/sqlite/store-error.ts';
import { until } from '../helpers/until.ts';
import { pathFor } from '../sqlite/files.ts';
import { DAY_MS, numbered, PLAN, testArtifactStore } from './conformance.ts';

const NOW = 1_700_000_000_123;

function open(t: ExecutionContext, folder: string, options: FolderArtifactsOptions = {}): FolderArtifacts {
  const store = new FolderArtifacts(folder, { wall: () => NOW, ...options });
  t.teardown(() => store.close());
  return store;
}

function fileOf(folder: string, id: string): string {
  const digest = id.slice('sha256:'.length);
  return join(folder, digest.slice(0, 2), digest);
}

function filesIn(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map(({ name }) => name);
}

testArtifactStore('folder', async (t, wall) => open(t, pathFor(t, 'artifacts'), { wall: () => wall.now }));

test('a file is the canonical text under its own SHA-256, for its owner’s eyes only', async (t) => {
  const folder = pathFor(t, 'artifacts');
  const store = open(t, folder);
  t.deepEqual(await store.list({ limit: 1 }), { artifacts: [] });
  t.false(existsSync(folder), 'a folder is made for the first artifact');
  const { id } = await store.put(PLAN);
  const path = fileOf(folder, id);
  const bytes = readFileSync(path);
  t.is(`sha256:${createHash('sha256').update(bytes).digest('hex')}`, id);
  t.deepEqual(JSON.parse(bytes.toString()), PLAN);
  t.is(statSync(path).mode & 0o777, 0o600);
  t.is(statSync(dirname(path)).mode & 0o777, 0o700);
  t.deepEqual(filesIn(folder), [id.slice('sha256:'.length)]);
});

test('what was stored is there for the next process, as it was', async (t) => {
  const folder = pathFor(t, 'artifacts');
  let now = NOW;
  const first = open(t, folder, { wall: () => now++ });
  const oldest = await first.put(numbered(0, ['x']));
  for (let n = 1; n < 5; n++) await first.put(numbered(n, ['x']));
  const before = await first.list({ limit: 3 });
  await first.close();
  const second = open(t, folder);
  t.deepEqual(await second.list({ limit: 3 }), before);
  const rest = await second.list({ limit: 3, cursor: before.next_cursor });
  t.is(rest.artifacts.length, 2);
  t.deepEqual(await second.get(rest.artifacts[1]?.id as string), numbered(0, ['x']));
  t.deepEqual(await second.put(numbered(0, ['x'])), oldest);
});

test('an unfinished write of a process that was killed is as if it had never begun', async (t) => {
  const folder = pathFor(t, 'artifacts');
  const first = open(t, folder);
  const { id } = await first.put(PLAN);
  await first.close();
  const { id: other } = await open(t, pathFor(t, 'elsewhere')).put(numbered(1));
  // One before its rename, one of an artifact that is there already.
  mkdirSync(dirname(fileOf(folder, other)), { recursive: true });
  writeFileSync(`${fileOf(folder, other)}.0.tmp`, '{"content":{"n":"00');
  writeFileSync(`${fileOf(folder, id)}.7.tmp`, '');
  const errors: StoreError[] = [];
  const second = open(t, folder, { onError: (error) => errors.push(error) });
  t.deepEqual(
    (await second.list({ limit: 9 })).artifacts.map((ref) => ref.id),
    [id],
  );
  t.is(await second.get(other), undefined);
  t.deepEqual(await second.get(id), PLAN);
  t.deepEqual(filesIn(folder), [id.slice('sha256:'.length)]);
  t.deepEqual(errors, []);
  t.is((await second.put(numbered(1))).id, other);
  t.deepEqual(await second.get(other), numbered(1));
});

test('a damaged file is told, is not there, and is made good by storing it again', async (t) => {
  const folder = pathFor(t, 'artifacts');
  const first = open(t, folder);
  const { id } = await first.put(PLAN);
  const { id: whole } = await first.put(numbered(1));
  await first.close();
  truncateSync(fileOf(folder, id), 10);
  const errors: StoreError[] = [];
  const options = { onError: (error: StoreError) => errors.push(error) };
  const second = open(t, folder, options);
  t.deepEqual(
    (await second.list({ limit: 9 })).artifacts.map((ref) => ref.id),
    [whole],
  );
  t.is(errors.length, 1);
  t.is(errors[0]?.code, 'foreign');
  t.regex(errors[0]?.message ?? '', /is not the artifact that its name says; it was left as it is$/);
  t.is(statSync(fileOf(folder, id)).size, 10);
  t.is(await second.get(id), undefined);
  await second.close();
  const third = open(t, folder, options);
  t.is((await third.put(PLAN)).id, id);
  t.deepEqual(await third.get(id), PLAN);
});

test('files of others are told once and left alone, whatever their names', async (t) => {
  const folder = pathFor(t, 'artifacts');
  const first = open(t, folder);
  const { id } = await first.put(PLAN);
  await first.close();
  const branch = dirname(fileOf(folder, id));
  const digest = id.slice('sha256:'.length);
  writeFileSync(join(folder, 'notes.txt'), 'mine');
  writeFileSync(join(branch, 'notes.txt'), 'mine');
  writeFileSync(
    join(
      branch,
      digest.toUpperCase().replace(/^../, (hex) => hex.toLowerCase()),
    ),
    'mine',
  );
  mkdirSync(join(branch, `${digest.slice(0, 2)}${'0'.repeat(62)}`));
  mkdirSync(join(folder, '00'), { recursive: true });
  writeFileSync(join(folder, '00', 'f'.repeat(64)), 'in the wrong folder');
  symlinkSync('/etc/passwd', join(folder, '00', `00${'1'.repeat(62)}`));
  const before = filesIn(folder).toSorted();
  const errors: StoreError[] = [];
  const store = open(t, folder, { onError: (error) => errors.push(error) });
  store.limit({ max_bytes: 1, retention_ms: 1 });
  await until(() => !existsSync(fileOf(folder, id)), 'the only artifact to leave');
  t.deepEqual((await store.list({ limit: 9 })).artifacts, []);
  t.is(await store.get(`sha256:00${'1'.repeat(62)}`), undefined);
  t.deepEqual(
    filesIn(folder).toSorted(),
    before.filter((name) => name !== digest),
  );
  const foreign = errors.filter(({ message }) => message.includes('left as found'));
  t.is(foreign.length, 1);
  t.regex(foreign[0]?.message ?? '', /^\d files, such as .* are no artifacts/);
});

test('what is too old or too much leaves as soon as the limits are known, and not before', async (t) => {
  const folder = pathFor(t, 'artifacts');
  let now = NOW;
  const wall = (): number => now;
  const first = open(t, folder, { wall });
  const old = await first.put(numbered(0));
  now += 40 * DAY_MS;
  await first.close();
  const forEver = open(t, folder, { wall });
  forEver.limit({ max_bytes: 1e6, retention_ms: 0 });
  t.truthy(await forEver.get(old.id));
  const young = await forEver.put(numbered(1));
  await forEver.close();
  const second = open(t, folder, { wall });
  second.limit({ max_bytes: 1e6, retention_ms: 30 * DAY_MS });
  await until(() => !existsSync(fileOf(folder, old.id)), 'the old one to leave');
  t.truthy(await second.get(young.id));
});

test('a folder that cannot be written to is told to whoever stores, and only to them', async (t) => {
  const folder = pathFor(t, 'artifacts');
  writeFileSync(folder, 'not a folder');
  const errors: StoreError[] = [];
  const store = open(t, folder, { onError: (error) => errors.push(error) });
  t.deepEqual(await store.list({ limit: 1 }), { artifacts: [] });
  t.is(errors.length, 1);
  await t.throwsAsync(store.put(PLAN), { message: /^cannot write / });
  t.is(readFileSync(folder, 'utf8'), 'not a folder');
});

test('many at once are all kept', async (t) => {
  const folder = pathFor(t, 'artifacts');
  const store = open(t, folder);
  await Promise.all(Array.from({ length: 60 }, (_, n) => store.put(numbered(n % 40))));
  t.is((await store.list({ limit: 100 })).artifacts.length, 40);
  t.is(filesIn(folder).length, 40);
});
