import { setImmediate as turn } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { StoreError } from '../../src/sqlite/store-error.ts';
import { openSqliteStore, type SqliteStore, type SqliteStoreOptions } from '../../src/store/sqlite-store.ts';
import { until } from '../helpers/until.ts';
import { makeFile, pathFor, rowsOf, startProgram } from '../sqlite/files.ts';
import { factsOf, testStore } from './conformance.ts';

async function open(t: ExecutionContext, path: string, options?: SqliteStoreOptions): Promise<SqliteStore> {
  const store = await openSqliteStore(path, options);
  t.teardown(() => store.close());
  return store;
}

testStore('sqlite', (t) => open(t, pathFor(t, 'store.db')));

test('what was committed is there after a restart, in its order and with its versions', async (t) => {
  const path = pathFor(t, 'store.db');
  const first = await open(t, path);
  await first.commit({
    facts: [
      { key: 'b', data: 1 },
      { key: 'a', data: 1 },
    ],
  });
  await first.commit({ facts: [{ key: 'b', data: 2 }] });
  await first.close();
  const second = await open(t, path);
  t.deepEqual(await factsOf(second), [
    { key: 'b', data: 2 },
    { key: 'a', data: 1 },
  ]);
  t.is(await second.commit({ checks: [{ key: 'b', version: 2 }], facts: [] }), 'ok');
});

test('a commit takes its data as it is then', async (t) => {
  const store = await open(t, pathFor(t, 'store.db'));
  const data = { text: 'then' };
  const answer = store.commit({ facts: [{ key: 'a', data }] });
  data.text = 'later';
  await answer;
  t.deepEqual(await factsOf(store), [{ key: 'a', data: { text: 'then' } }]);
});

test('data that JSON cannot say is refused at once, and spoils nothing', async (t) => {
  const store = await open(t, pathFor(t, 'store.db'));
  const before = store.commit({ facts: [{ key: 'a', data: 1 }] });
  t.throws(() => store.commit({ checks: [{ key: 'b', version: 0 }], facts: [{ key: 'b', data: 1n }] }), {
    instanceOf: TypeError,
  });
  t.is(await before, 'ok');
  t.deepEqual(await factsOf(store), [{ key: 'a', data: 1 }]);
});

test('commits that arrive together share a transaction, and a conflict among them is alone', async (t) => {
  const store = await open(t, pathFor(t, 'store.db'));
  const some = (from: number): Promise<string>[] =>
    Array.from({ length: 200 }, (_, i) => {
      const key = `task/${i === 7 ? 0 : from + i}`;
      return store.commit({ checks: [{ key, version: 0 }], facts: [{ key, data: i }] });
    });
  const early = some(0);
  await turn();
  const late = some(200);
  const answers = await Promise.all([...early, ...late]);
  t.is(store.transactions, 2);
  t.deepEqual(
    answers.flatMap((answer, place) => (answer === 'ok' ? [] : [[place, answer]])),
    [
      [7, 'conflict'],
      [207, 'conflict'],
    ],
  );
  t.is((await factsOf(store)).length, 398);
});

test('reading sees the facts of one moment, and lets others have their turn', async (t) => {
  const store = await open(t, pathFor(t, 'store.db'));
  const facts = Array.from({ length: 5000 }, (_, i) => ({ key: `task/${i}`, data: i }));
  await store.commit({ facts });
  const keys: string[] = [];
  let turns = 0;
  const count = async (): Promise<void> => {
    while (keys.length < facts.length) {
      await turn();
      turns++;
    }
  };
  const counting = count();
  for await (const batch of store.fold()) {
    if (keys.length === 0)
      await store.commit({
        facts: [
          { key: 'task/4999', data: undefined },
          { key: 'task/new', data: 1 },
        ],
      });
    keys.push(...batch.map(({ key }) => key));
  }
  await counting;
  t.deepEqual(
    keys,
    facts.map(({ key }) => key),
  );
  t.true(turns > 3);
});

test('a full disk answers `unknown` and is told; once there is room commits are kept again', async (t) => {
  const errors: StoreError[] = [];
  const store = await open(t, pathFor(t, 'store.db'), {
    max_bytes: 256 * 1024,
    onError: (error) => errors.push(error),
  });
  const big = 'x'.repeat(60_000);
  const kept: string[] = [];
  while (errors.length === 0) {
    const key = `task/${kept.length}`;
    if ((await store.commit({ facts: [{ key, data: big }] })) === 'ok') kept.push(key);
  }
  t.true(errors[0] instanceof StoreError);
  t.regex(errors[0]?.message ?? '', /^cannot write .*store\.db: .*full/);
  t.is(await store.commit({ facts: [{ key: 'also big', data: big }] }), 'unknown');
  t.is(await store.commit({ facts: [{ key: 'task/0', data: undefined }] }), 'ok');
  t.is(await store.commit({ facts: [{ key: 'again', data: big }] }), 'ok');
  t.is(errors.length, 2);
  t.deepEqual(
    (await factsOf(store)).map(({ key }) => key),
    [...kept.slice(1), 'again'],
  );
});

test('closing finishes what was accepted, and keeps nothing that comes later', async (t) => {
  const path = pathFor(t, 'store.db');
  const store = await open(t, path);
  const accepted = store.commit({ facts: [{ key: 'a', data: 1 }] });
  const closing = store.close();
  t.is(await store.commit({ facts: [{ key: 'late', data: 1 }] }), 'unknown');
  t.is(await accepted, 'ok');
  await closing;
  t.deepEqual(
    rowsOf(path, 'SELECT key FROM facts').map(({ key }) => key),
    ['a'],
  );
});

test('a store that somebody forgot does not keep its process alive', async (t) => {
  const program = startProgram(t, 'committing-program.ts', import.meta.url, [
    pathFor(t, 'store.db'),
    'key',
    '10',
  ]);
  t.deepEqual(await program.ended, { code: 0, signal: null });
  t.is(program.lines.length, 10);
});

test('a file that was made and never filled is brought to today’s version', async (t) => {
  const path = pathFor(t, 'store.db');
  makeFile(path, 'PRAGMA application_id = 0x74636631');
  const store = await open(t, path);
  t.is(await store.commit({ facts: [{ key: 'a', data: 1 }] }), 'ok');
});

test('a file in use, of a newer version or of others is refused', async (t) => {
  const path = pathFor(t, 'store.db');
  await open(t, path);
  const codeOf = async (file: string): Promise<string | undefined> =>
    (await t.throwsAsync(openSqliteStore(file), { instanceOf: StoreError }))?.code;
  t.is(await codeOf(path), 'in_use');
  const newer = pathFor(t, 'newer.db');
  makeFile(newer, 'PRAGMA application_id = 0x74636631; PRAGMA user_version = 99');
  t.is(await codeOf(newer), 'newer');
  const log = pathFor(t, 'log.db');
  makeFile(log, 'PRAGMA application_id = 0x74636c31; PRAGMA user_version = 1');
  t.is(await codeOf(log), 'foreign');
});

test('everything that was answered is there after kill -9, in order, whenever that happens', async (t) => {
  const path = pathFor(t, 'store.db');
  const answered: string[] = [];
  for (let round = 0; round < 6; round++) {
    const program = startProgram(t, 'committing-program.ts', import.meta.url, [path, `round ${round}`]);
    await until(() => program.lines.length > round * 25, 'commits of the other process');
    program.child.kill('SIGKILL');
    await program.ended;
    // A line that the kill has cut was answered all the same, but nobody knows which.
    answered.push(...program.lines.filter((line) => /^round \d\/\d+$/.test(line)));
    const store = await openSqliteStore(path);
    const facts = await factsOf(store);
    await store.close();
    const keys = facts.map(({ key }) => key);
    const there = new Set(keys);
    t.deepEqual(
      answered.filter((key) => !there.has(key)),
      [],
    );
    t.true(facts.every(({ key, data }) => (data as { key: string }).key === key));
    const inOrder = keys.toSorted((a, b) => placeOf(a) - placeOf(b));
    t.deepEqual(keys, inOrder);
  }
});

/** Keys of the program are numbered in the order of their commits. */
function placeOf(key: string): number {
  const [round, number] = key.slice('round '.length).split('/');
  return Number(round) * 1e9 + Number(number);
}
