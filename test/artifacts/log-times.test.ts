import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { encodeEvents } from '../../src/streams/frames.ts';
import { noteTime, packTimes, toTimes, unpackTimes } from '../../src/streams/log-times.ts';
import { MemoryTaskLog } from '../../src/streams/memory-log.ts';
import { openSqliteTaskLog, type SqliteTaskLog } from '../../src/streams/sqlite-log.ts';
import type { LogEvent, NewLogEvent } from '../../src/streams/task-log.ts';
import { makeFile, pathFor, rowsOf } from '../sqlite/files.ts';
import { all, END, follow, push, START, STARTED, token } from '../streams/events.ts';

const NOW = 1_700_000_000_000;

async function open(
  t: ExecutionContext,
  path: string,
  wall: () => number = () => NOW,
): Promise<SqliteTaskLog> {
  const log = await openSqliteTaskLog(path, { wall });
  t.teardown(() => log.close());
  return log;
}

test('a log tells when its events came, once for each millisecond, and nothing of a log that only begins', async (t) => {
  let now = NOW;
  const wall = (): number => now;
  for (const log of [new MemoryTaskLog({ wall }), await open(t, pathFor(t, 'log.db'), wall)]) {
    now = NOW;
    t.deepEqual(log.times('t'), []);
    await push(log, 't', STARTED);
    t.deepEqual(log.times('t'), []);
    now += 100;
    await push(log, 't', token(0));
    await push(log, 't', token(1));
    now += 0.5;
    await push(log, 't', token(2), token(3));
    now += 0.5;
    await push(log, 't', token(4));
    now -= 50;
    await push(log, 't', token(5));
    now += 50.7;
    await push(log, 't', END);
    await push(log, 't', token(6));
    const times = [
      { from: 1, at_ms: NOW + 100 },
      { from: 5, at_ms: NOW + 101 },
    ];
    t.deepEqual(log.times('t'), times);
    await all(log);
    t.deepEqual(log.times('t'), times);
    log.drop('t');
    t.deepEqual(log.times('t'), []);
    await push(log, 't', STARTED, token(0), END);
    await all(log);
    t.deepEqual(log.times('t'), [{ from: 1, at_ms: NOW + 101 }]);
  }
});

test('times are the same after a restart, whether the log is over or goes on, and never go back', async (t) => {
  const path = pathFor(t, 'log.db');
  let now = NOW;
  const wall = (): number => now;
  const add = async (log: SqliteTaskLog, task_id: string, event: NewLogEvent): Promise<void> => {
    now += 7;
    await push(log, task_id, event);
  };
  const first = await open(t, path, wall);
  for (const task_id of ['over', 'live']) {
    await add(first, task_id, STARTED);
    const next = follow(first, undefined, task_id);
    await next();
    for (let i = 0; i < 3; i++) {
      await add(first, task_id, token(i));
      // Each is a row of its own.
      await next();
    }
  }
  await add(first, 'over', END);
  await all(first, undefined, 'over');
  const times = { over: first.times('over'), live: first.times('live') };
  t.is(times.over.length, 4);
  t.is(times.live.length, 3);
  await first.close();
  t.is(rowsOf(path, 'SELECT first FROM open').length, 3);
  now = NOW;
  const second = await open(t, path, wall);
  t.deepEqual(second.times('over'), times.over);
  t.deepEqual(second.times('live'), times.live);
  await push(second, 'live', token(3));
  t.deepEqual(second.times('live'), times.live, 'a clock that was set back');
  now = NOW + 1000;
  await push(second, 'live', END);
  await all(second, undefined, 'live');
  t.deepEqual(second.times('live'), [...times.live, { from: 5, at_ms: NOW + 1000 }]);
  t.deepEqual(rowsOf(path, 'SELECT first FROM open'), []);
});

test('a file of the first version is read as it was, its events have no times, and those that follow do', async (t) => {
  const path = pathFor(t, 'log.db');
  const stored = (events: NewLogEvent[]): string =>
    encodeEvents(events.map((event, id) => ({ ...event, id }) as LogEvent)).replaceAll("'", "''");
  makeFile(
    path,
    `PRAGMA application_id = 0x74636c31; PRAGMA user_version = 1; PRAGMA journal_mode = WAL;
    CREATE TABLE open (
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
    CREATE UNIQUE INDEX closed_tasks ON closed (task, last);
    INSERT INTO open VALUES ('live', 0, 1, '${stored([STARTED, token(0)])}');
    INSERT INTO closed (task, last, frames) VALUES ('over', 2, CAST('${stored([STARTED, token(0), END])}' AS BLOB))`,
  );
  const log = await open(t, path);
  t.deepEqual(rowsOf(path, 'PRAGMA user_version')[0]?.['user_version'], 2);
  t.deepEqual(
    await all(log, undefined, 'over'),
    [STARTED, token(0), END].map((event, id) => ({ ...event, id }) as LogEvent),
  );
  t.deepEqual(log.times('over'), []);
  t.deepEqual(log.times('live'), []);
  await push(log, 'live', token(1), END);
  t.is((await all(log, undefined, 'live')).length, 4);
  t.deepEqual(log.times('live'), [{ from: 2, at_ms: NOW }]);
  await log.close();
  const again = await open(t, path);
  t.deepEqual(again.times('live'), [{ from: 2, at_ms: NOW }]);
  t.deepEqual(again.times('over'), []);
  log.drop('over');
});

test('an append after the start of a log that was never flushed has its time all the same', async (t) => {
  const path = pathFor(t, 'log.db');
  const log = await open(t, path);
  log.append('t', START, [STARTED]);
  await push(log, 't', END);
  await log.close();
  t.deepEqual((await open(t, path)).times('t'), [{ from: 1, at_ms: NOW }]);
});

test('times are packed and unpacked without a loss, from any event on', (t) => {
  const steps = fc.array(fc.record({ count: fc.integer({ min: 1, max: 5 }), ms: fc.nat(5000) }));
  fc.assert(
    fc.property(steps, fc.nat(20), (appends, first) => {
      let times: number[] | undefined;
      let next = 1;
      let now = NOW;
      for (const { count, ms } of appends) {
        now += ms;
        times = noteTime(times, next, now);
        next += count;
      }
      times ??= [];
      t.deepEqual(unpackTimes(packTimes(times)), times);
      const rest = toTimes(times).filter(({ from }) => from >= first);
      t.deepEqual(toTimes(unpackTimes(packTimes(times, first))), rest);
    }),
  );
  t.is(packTimes([1, NOW, 2, NOW + 23, 3, NOW + 46]), `1,${NOW},1,23,1,23`);
});
