import { setImmediate as turn } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { encodeEvents } from '../../src/streams/frames.ts';
import type { Cursor, LogBatch, NewLogEvent, TaskLog } from '../../src/streams/task-log.ts';
import { all, batchesOf, END, follow, framesOf, push, START, STARTED, token } from './events.ts';

/** What every task log has to do. `open` gives an empty one that ends with the test. */
export function testTaskLog(name: string, open: (t: ExecutionContext) => Promise<TaskLog>): void {
  const filled = async (t: ExecutionContext): Promise<TaskLog> => {
    const log = await open(t);
    await push(log, 't', STARTED, token(0), token(1), END);
    await all(log);
    return log;
  };

  test(`${name}: numbers events from 0 without gaps, and replays them after the end`, async (t) => {
    const log = await filled(t);
    const once = await all(log);
    t.deepEqual(
      once.map((event) => [event.id, event.type]),
      [
        [0, 'started'],
        [1, 'token'],
        [2, 'token'],
        [3, 'end'],
      ],
    );
    t.deepEqual(await all(log), once);
  });

  test(`${name}: resumes after any id, and after the last there is nothing`, async (t) => {
    const log = await filled(t);
    const once = await all(log);
    for (const after of [0, 1, 2]) {
      t.deepEqual(await all(log, after), once.slice(after + 1));
      t.is(await framesOf(log, after), encodeEvents(once.slice(after + 1)));
    }
    t.deepEqual(await all(log, 3), []);
    t.deepEqual(await all(log, 99), []);
  });

  test(`${name}: many readers at their own pace see the same, whenever they come`, async (t) => {
    const log = await open(t);
    await push(log, 't', STARTED);
    const early = all(log);
    await push(log, 't', token(0));
    const middle = all(log);
    await turn();
    await push(log, 't', token(1), END);
    const late = all(log);
    t.is((await early).length, 4);
    t.deepEqual(await early, await late);
    t.deepEqual(await middle, await late);
  });

  test(`${name}: whoever waits at the same place is given the same batch`, async (t) => {
    const log = await open(t);
    await push(log, 't', STARTED);
    const readers = Array.from({ length: 50 }, () => follow(log));
    await Promise.all(readers.map((next) => next()));
    const waiting = readers.map((next) => next());
    await push(log, 't', token(0));
    const batches = new Set<LogBatch | undefined>(await Promise.all(waiting));
    t.is(batches.size, 1);
  });

  test(`${name}: what was read from a closed log is not kept for readers that may never come`, async (t) => {
    const log = await filled(t);
    const [first] = await batchesOf(log, 0);
    const [second] = await batchesOf(log, 0);
    t.deepEqual(first?.events, second?.events);
    t.not(first, second);
  });

  test(`${name}: a batch says whether it is the last`, async (t) => {
    const log = await open(t);
    await push(log, 't', STARTED);
    const next = follow(log);
    t.false((await next())?.isLast);
    await push(log, 't', END);
    t.true((await next())?.isLast);
    t.is(await next(), undefined);
    t.true((await follow(log)())?.isLast);
  });

  test(`${name}: a reader that leaves while it waits is let go`, async (t) => {
    const log = await open(t);
    await push(log, 't', STARTED);
    const gone = new AbortController();
    const next = follow(log, gone.signal);
    await next();
    const waiting = next();
    gone.abort();
    t.is(await waiting, undefined);
  });

  test(`${name}: whoever does not hold the tail is fenced, and nothing follows a terminal event`, async (t) => {
    const log = await open(t);
    t.is((await log.append('t', 1 as Cursor, [STARTED])).kind, 'fenced');
    t.is((await log.append('t', START, [STARTED])).kind, 'ok');
    t.is((await log.append('t', START, [token(0)])).kind, 'fenced');
    t.is(await push(log, 't', END, token(0)), 'ok');
    t.is(await push(log, 't', token(0)), 'fenced');
    t.is(await log.tail('t'), 2 as Cursor);
    t.is((await all(log)).length, 2);
    t.is(await push(log, 't', token(0)), 'fenced');
    t.is((await log.append('t', START, [STARTED])).kind, 'fenced');
    t.is(await log.tail('t'), 2 as Cursor);
  });

  test(`${name}: a log is closed by its terminal event, and by nothing else`, async (t) => {
    const log = await open(t);
    t.false(await log.isClosed('t'));
    await push(log, 't', STARTED, token(0));
    t.false(await log.isClosed('t'));
    await push(log, 't', END);
    t.true(await log.isClosed('t'));
    await all(log);
    t.true(await log.isClosed('t'));
    await log.drop('t');
    t.false(await log.isClosed('t'));
  });

  test(`${name}: a log that nobody began is empty`, async (t) => {
    const log = await open(t);
    t.is(await log.tail('unknown'), START);
    t.deepEqual(await all(log, undefined, 'unknown'), []);
    await log.drop('unknown');
    t.is(await log.tail('unknown'), START);
  });

  test(`${name}: a dropped log ends its readers, and may begin anew`, async (t) => {
    const log = await open(t);
    await push(log, 't', STARTED);
    const next = follow(log);
    await next();
    const waiting = next();
    await log.drop('t');
    t.is(await waiting, undefined);
    t.is(await log.tail('t'), START);
    await push(log, 't', STARTED, END);
    t.is((await all(log)).length, 2);
    await log.drop('t');
    t.deepEqual(await all(log), []);
    await push(log, 't', STARTED, token(0), END);
    t.is((await all(log)).length, 3);
  });

  test(`${name}: readers of any log see each event once, in order, wherever they begin`, async (t) => {
    const log = await open(t);
    let tasks = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({ count: fc.integer({ min: 1, max: 4 }), waits: fc.boolean(), reads: fc.boolean() }),
        ),
        fc.nat(6),
        async (steps, after) => {
          const task_id = `task ${tasks++}`;
          const events: NewLogEvent[] = [STARTED];
          await push(log, task_id, STARTED);
          const readings = [framesOf(log, undefined, task_id)];
          for (const { count, waits, reads } of steps) {
            const more = Array.from({ length: count }, (_, i) => token(events.length - 1 + i));
            events.push(...more);
            await push(log, task_id, ...more);
            if (reads) readings.push(framesOf(log, undefined, task_id));
            if (waits) await turn();
          }
          events.push(END);
          const late = framesOf(log, after, task_id);
          await push(log, task_id, END);
          readings.push(framesOf(log, undefined, task_id));
          const stored = events.map((event, id) => ({ ...event, id }));
          for (const reading of readings) t.is(await reading, encodeEvents(stored));
          t.is(await late, encodeEvents(stored.slice(after + 1)));
          t.deepEqual(await all(log, undefined, task_id), stored);
        },
      ),
      { numRuns: 60 },
    );
  });
}
