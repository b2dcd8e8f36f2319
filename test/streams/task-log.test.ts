import test from 'ava';
import fc from 'fast-check';
import { LogWriter } from '../../src/streams/log-writer.ts';
import { MemoryTaskLog } from '../../src/streams/memory-log.ts';
import type { AppendResult, Cursor, LogEvent, NewLogEvent } from '../../src/streams/task-log.ts';

const STARTED: NewLogEvent = { type: 'started', data: { queue_position: 0, predicted_start_ms: 0 } };
const END: NewLogEvent = { type: 'end', data: { tokens_out: 2, decode_ms: 1, decode_time_ms: 1 } };
const token = (i: number): NewLogEvent => ({ type: 'token', data: { t: ` t${i}`, i } });
const START = 0 as Cursor;
const signal = (): AbortSignal => new AbortController().signal;

async function all(log: MemoryTaskLog, after?: number): Promise<LogEvent[]> {
  const events: LogEvent[] = [];
  for await (const batch of log.read('t', after, signal())) events.push(...batch.events);
  return events;
}

function filled(): MemoryTaskLog {
  const log = new MemoryTaskLog();
  log.append('t', START, [STARTED, token(0), token(1), END]);
  return log;
}

test('numbers events from 0 without gaps, and replays them after the end', async (t) => {
  const log = filled();
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

test('resumes after any id, and after the last there is nothing', async (t) => {
  const log = filled();
  for (const after of [0, 1, 2])
    t.deepEqual(
      (await all(log, after)).map((event) => event.id),
      [1, 2, 3].filter((id) => id > after),
    );
  t.deepEqual(await all(log, 3), []);
  t.deepEqual(await all(log, 99), []);
});

test('many readers at their own pace see the same, whenever they come', async (t) => {
  const log = new MemoryTaskLog();
  log.append('t', START, [STARTED]);
  const early = all(log);
  log.append('t', 1 as Cursor, [token(0)]);
  const middle = all(log);
  await Promise.resolve();
  log.append('t', 2 as Cursor, [token(1), END]);
  const late = all(log);
  t.deepEqual(await early, await late);
  t.deepEqual(await middle, await late);
});

test('a reader that leaves while it waits is let go', async (t) => {
  const log = new MemoryTaskLog();
  log.append('t', START, [STARTED]);
  const gone = new AbortController();
  const reading = (async () => {
    let seen = 0;
    for await (const batch of log.read('t', undefined, gone.signal)) seen += batch.events.length;
    return seen;
  })();
  await Promise.resolve();
  gone.abort();
  t.is(await reading, 1);
});

test('whoever does not hold the tail is fenced, and nothing follows a terminal event', (t) => {
  const log = new MemoryTaskLog();
  t.is(log.append('t', START, [STARTED]).kind, 'ok');
  t.is(log.append('t', START, [token(0)]).kind, 'fenced');
  t.is(log.append('t', log.tail('t'), [END, token(0)]).kind, 'ok');
  t.is(log.append('t', log.tail('t'), [token(0)]).kind, 'fenced');
  t.is(log.tail('t'), 2 as Cursor);
});

test('a dropped log ends its readers', async (t) => {
  const log = new MemoryTaskLog();
  log.append('t', START, [STARTED]);
  const gone = new AbortController();
  const reading = log.read('t', undefined, gone.signal)[Symbol.asyncIterator]();
  await reading.next();
  const waiting = reading.next();
  log.drop('t');
  t.deepEqual(await waiting, { done: true, value: undefined });
});

test('a writer over a slow log keeps one append in flight, in order, and drops what follows its end', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.nat(20), fc.scheduler(), async (count, scheduler) => {
      const log = new MemoryTaskLog();
      let inFlight = 0;
      const slow = {
        append: async (id: string, cursor: Cursor, events: readonly NewLogEvent[]): Promise<AppendResult> => {
          inFlight++;
          t.is(inFlight, 1);
          await scheduler.schedule(Promise.resolve());
          inFlight--;
          return log.append(id, cursor, events);
        },
        tail: () => START,
        read: log.read.bind(log),
        drop: log.drop.bind(log),
      };
      const writer = new LogWriter(slow, 't', START, 0, () => t.fail('fenced'));
      for (let i = 0; i < count; i++) writer.token({ channel: 'text', text: `t${i}`, tokens: 1 });
      writer.append(END);
      writer.token({ channel: 'text', text: 'late', tokens: 1 });
      await scheduler.waitFor(writer.settled());
      const events = await all(log);
      t.deepEqual(
        events.map((event) => (event.type === 'token' ? event.data.i : event.type)),
        [...Array.from({ length: count }, (_, i) => i), 'end'],
      );
    }),
    { numRuns: 40 },
  );
});

test('a fenced writer says so once and is silent afterwards', (t) => {
  const log = new MemoryTaskLog();
  log.append('t', START, [STARTED]);
  let fenced = 0;
  const writer = new LogWriter(log, 't', START, 0, () => fenced++);
  writer.append(token(0));
  writer.append(token(1));
  t.is(fenced, 1);
  t.is(log.tail('t'), 1 as Cursor);
});

test('counts tokens that have no text of their own yet', (t) => {
  const log = new MemoryTaskLog();
  const writer = new LogWriter(log, 't', START, 0, () => {});
  writer.token({ channel: 'text', text: '', tokens: 1 });
  writer.token({ channel: 'text', text: 'é', tokens: 1 });
  t.is(writer.tokens, 2);
  t.is(log.tail('t'), 1 as Cursor);
});
