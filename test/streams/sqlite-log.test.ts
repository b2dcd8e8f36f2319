import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { StoreError } from '../../src/sqlite/store-error.ts';
import { encodeEvents } from '../../src/streams/frames.ts';
import { MemoryTaskLog } from '../../src/streams/memory-log.ts';
import {
  openSqliteTaskLog,
  type SqliteTaskLog,
  type SqliteTaskLogOptions,
} from '../../src/streams/sqlite-log.ts';
import type { Cursor, NewLogEvent } from '../../src/streams/task-log.ts';
import { until } from '../helpers/until.ts';
import { makeFile, pathFor, rowsOf, startProgram } from '../sqlite/files.ts';
import { testTaskLog } from './conformance.ts';
import {
  all,
  batchesOf,
  END,
  follow,
  framesOf,
  never,
  push,
  START,
  STARTED,
  textOf,
  token,
} from './events.ts';

async function open(
  t: ExecutionContext,
  path: string,
  options?: SqliteTaskLogOptions,
): Promise<SqliteTaskLog> {
  const log = await openSqliteTaskLog(path, options);
  t.teardown(() => log.close());
  return log;
}

/** How many events of a task are on disk. */
function onDisk(path: string, task_id: string): number {
  const [row] = rowsOf(
    path,
    `SELECT coalesce(max(last), -1) + 1 AS events
      FROM (SELECT task, last FROM open UNION ALL SELECT task, last FROM closed) WHERE task = ?`,
    task_id,
  );
  return row?.['events'] as number;
}

testTaskLog('sqlite', (t) => open(t, pathFor(t, 'log.db')));

test('the first event is seen at once, and written with the second', async (t) => {
  const path = pathFor(t, 'log.db');
  const log = await open(t, path);
  log.append('t', START, [STARTED]);
  const next = follow(log);
  t.is((await next())?.events.length, 1);
  log.append('other', START, [STARTED, END]);
  await all(log, undefined, 'other');
  t.is(onDisk(path, 't'), 0);
  await push(log, 't', token(0));
  t.is((await next())?.events[0]?.id, 1);
  t.is(onDisk(path, 't'), 2);
});

test('a task that only waited begins its log again after a restart', async (t) => {
  const path = pathFor(t, 'log.db');
  const first = await open(t, path);
  first.append('t', START, [STARTED]);
  await first.close();
  const second = await open(t, path);
  t.is(second.tail('t'), START);
  t.is(second.append('t', START, [STARTED]).kind, 'ok');
});

test('a reader sees an event only once it is on disk', async (t) => {
  const path = pathFor(t, 'log.db');
  const log = await open(t, path);
  await push(log, 't', STARTED);
  let seen = 0;
  const reading = (async () => {
    for await (const { events } of log.read('t', undefined, never())) {
      seen = (events.at(-1)?.id as number) + 1;
      if (seen > 1) t.true(onDisk(path, 't') >= seen);
    }
  })();
  for await (const { events } of log.read('t', undefined, never())) {
    const next = (events.at(-1)?.id as number) + 1;
    if (next > 30) break;
    await push(log, 't', token(next - 1));
  }
  await push(log, 't', END);
  await reading;
  t.is(seen, log.tail('t'));
});

test('what is appended is in the tail at once, for its writer alone', async (t) => {
  const log = await open(t, pathFor(t, 'log.db'));
  t.deepEqual(log.append('t', START, [STARTED]), { kind: 'ok', cursor: 1 as Cursor });
  t.deepEqual(log.append('t', 1 as Cursor, [token(0)]), { kind: 'ok', cursor: 2 as Cursor });
  t.is(log.append('t', 1 as Cursor, [token(0)]).kind, 'fenced');
  t.is(log.tail('t'), 2 as Cursor);
});

test('a log with its end is one row, which is all that is read of it', async (t) => {
  const path = pathFor(t, 'log.db');
  const log = await open(t, path);
  log.append('t', START, [STARTED]);
  const reader = follow(log);
  await reader();
  for (let i = 0; i < 5; i++) {
    await push(log, 't', token(i));
    await reader();
  }
  t.is(rowsOf(path, 'SELECT first FROM open').length, 5);
  const live = all(log);
  await push(log, 't', END);
  const events = await live;
  t.deepEqual(rowsOf(path, 'SELECT first FROM open'), []);
  t.like(rowsOf(path, 'SELECT task, last FROM closed'), [{ task: 't', last: 6 }]);
  const [batch, ...more] = await batchesOf(log);
  t.is(more.length, 0);
  t.true(batch?.frames instanceof Uint8Array);
  t.is(textOf(batch?.frames as Uint8Array), encodeEvents(events));
});

test('any log, over any number of restarts, is read as if it had always been in memory', async (t) => {
  const path = pathFor(t, 'log.db');
  const step = fc.record({
    task: fc.constantFrom('a', 'b', 'c'),
    what: fc.constantFrom('tokens', 'tokens', 'tokens', 'end', 'restart', 'drop', 'read'),
    count: fc.integer({ min: 1, max: 3 }),
  });
  let log = await openSqliteTaskLog(path);
  try {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
        const memory = new MemoryTaskLog();
        for (const task of ['a', 'b', 'c']) log.drop(task);
        const both = async (task: string, events: NewLogEvent[]): Promise<void> => {
          const cursor = log.tail(task);
          t.is(cursor, memory.tail(task));
          t.is(log.append(task, cursor, events).kind, memory.append(task, cursor, events).kind);
        };
        const begin = async (): Promise<void> => {
          for (const task of ['a', 'b', 'c'])
            if (log.tail(task) === 0) {
              memory.drop(task);
              await both(task, [STARTED]);
            }
        };
        await begin();
        for (const { task, what, count } of steps) {
          if (what === 'tokens')
            await both(
              task,
              Array.from({ length: count }, (_, i) => token(log.tail(task) - 1 + i)),
            );
          if (what === 'end') await both(task, [END]);
          if (what === 'read') void all(log, count, task);
          if (what === 'drop') {
            log.drop(task);
            memory.drop(task);
          }
          if (what === 'restart') {
            await log.close();
            log = await openSqliteTaskLog(path);
          }
          await begin();
        }
        for (const task of ['a', 'b', 'c']) {
          if (steps.length % 2 === 0) await both(task, [END]);
          const tail = log.tail(task);
          for (const after of [undefined, 0, 2]) {
            const mine = await readTo(tail, log, task, after);
            t.is(mine, await readTo(tail, memory, task, after));
          }
        }
      }),
      { numRuns: 15 },
    );
  } finally {
    await log.close();
  }
});

/** The wire form of what a log has before `tail`. */
async function readTo(
  tail: number,
  log: SqliteTaskLog | MemoryTaskLog,
  task_id: string,
  after: number | undefined,
): Promise<string> {
  let text = '';
  if ((after ?? -1) + 1 >= tail) return text;
  for await (const { frames, events } of log.read(task_id, after, never())) {
    text += textOf(frames);
    if ((events.at(-1)?.id as number) + 1 >= tail) break;
  }
  return text;
}

test('what is dropped is gone from disk', async (t) => {
  const path = pathFor(t, 'log.db');
  const log = await open(t, path);
  log.append('closed', START, [STARTED, token(0), END]);
  await all(log, undefined, 'closed');
  log.append('live', START, [STARTED, token(0)]);
  log.drop('closed');
  log.drop('live');
  log.append('again', START, [STARTED, token(0)]);
  log.drop('again');
  log.append('again', START, [STARTED, END]);
  await log.close();
  t.deepEqual(rowsOf(path, 'SELECT task FROM open'), []);
  t.like(rowsOf(path, 'SELECT task, last FROM closed'), [{ task: 'again', last: 1 }]);
});

test('a full disk is told and holds no reader up; once there is room all of it is written', async (t) => {
  const errors: StoreError[] = [];
  const path = pathFor(t, 'log.db');
  const log = await open(t, path, { max_bytes: 256 * 1024, onError: (error) => errors.push(error) });
  const big: NewLogEvent = { type: 'token', data: { t: 'x'.repeat(60_000), i: 0 } };
  const tasks: string[] = [];
  while (errors.length === 0) {
    const task_id = `task ${tasks.length}`;
    tasks.push(task_id);
    log.append(task_id, START, [STARTED, big, END]);
    t.is((await all(log, undefined, task_id)).length, 3);
  }
  t.regex(errors[0]?.message ?? '', /^cannot write .*log\.db: .*full/);
  const last = tasks.at(-1) as string;
  t.is(onDisk(path, last), 0);
  t.is((await all(log, 1, last)).length, 1);
  log.append('live', START, [STARTED, big]);
  const next = follow(log, never(), 'live');
  await next();
  t.is((await next())?.events.length, 1);
  t.is(errors.length, 2);
  for (const task_id of tasks.slice(0, 3)) log.drop(task_id);
  await until(() => onDisk(path, last) === 3 && onDisk(path, 'live') === 2);
  await push(log, 'live', END);
  t.is((await framesOf(log, undefined, 'live')).split('\n\n').length, 4);
  t.is(errors.length, 2);
});

test('closing writes what was appended, ends the readers, and takes nothing more', async (t) => {
  const path = pathFor(t, 'log.db');
  const log = await open(t, path);
  log.append('t', START, [STARTED]);
  const next = follow(log);
  await next();
  log.append('t', 1 as Cursor, [token(0)]);
  const closing = log.close();
  t.is(log.append('t', 2 as Cursor, [token(1)]).kind, 'fenced');
  await closing;
  t.is((await next())?.events.length, 1);
  t.is(await next(), undefined);
  t.is(onDisk(path, 't'), 2);
  await log.close();
});

test('a file in use, of a newer version or of others is refused', async (t) => {
  const path = pathFor(t, 'log.db');
  await open(t, path);
  const codeOf = async (file: string): Promise<string | undefined> =>
    (await t.throwsAsync(openSqliteTaskLog(file), { instanceOf: StoreError }))?.code;
  t.is(await codeOf(path), 'in_use');
  const newer = pathFor(t, 'newer.db');
  makeFile(newer, 'PRAGMA application_id = 0x74636c31; PRAGMA user_version = 99');
  t.is(await codeOf(newer), 'newer');
  const store = pathFor(t, 'store.db');
  makeFile(store, 'PRAGMA application_id = 0x74636631; PRAGMA user_version = 1');
  t.is(await codeOf(store), 'foreign');
});

test('nothing that a reader has seen is missing after kill -9, and its log goes on', async (t) => {
  const path = pathFor(t, 'log.db');
  for (let round = 0; round < 5; round++) {
    const program = startProgram(t, 'streaming-program.ts', import.meta.url, [path, `${round}/`]);
    await until(() => program.lines.length > 20 + round * 40, 'readers of the other process');
    program.child.kill('SIGKILL');
    await program.ended;
    const seen = new Map<string, { id: number; isLast: boolean }>();
    for (const line of program.lines) {
      const [, task_id, id, last] = /^(\d\/\d\.\d+) (\d+)( last)?$/.exec(line) ?? [];
      // The first event is made again by the owner of a task that has no more than that.
      if (task_id !== undefined && id !== '0')
        seen.set(task_id, { id: Number(id), isLast: last !== undefined });
    }
    const log = await openSqliteTaskLog(path);
    for (const [task_id, { id, isLast }] of seen) {
      t.true(log.tail(task_id) > id);
      if (isLast) t.is(log.tail(task_id), (id + 1) as Cursor);
      else await push(log, task_id, END);
      const events = await all(log, undefined, task_id);
      t.deepEqual(
        events.map((event) => (event.type === 'token' ? event.data.i + 1 : event.id)),
        events.map((_, place) => place),
      );
    }
    await log.close();
  }
});
