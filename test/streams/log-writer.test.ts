import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { LogWriter, type LogWriterOptions } from '../../src/streams/log-writer.ts';
import { MemoryTaskLog } from '../../src/streams/memory-log.ts';
import type { AppendResult, Cursor, LogEvent, NewLogEvent, TaskLog } from '../../src/streams/task-log.ts';
import { all, END, START, STARTED, token } from './events.ts';

test('a writer over a slow log keeps one append in flight, in order, and drops what follows its end', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.nat(20), fc.scheduler(), async (count, scheduler) => {
      const log = new MemoryTaskLog();
      let inFlight = 0;
      const slow: TaskLog = {
        isDurable: false,
        close: () => log.close(),
        append: async (id: string, cursor: Cursor, events: readonly NewLogEvent[]): Promise<AppendResult> => {
          inFlight++;
          t.is(inFlight, 1);
          await scheduler.schedule(Promise.resolve());
          inFlight--;
          return log.append(id, cursor, events);
        },
        tail: () => START,
        isClosed: log.isClosed.bind(log),
        read: log.read.bind(log),
        drop: log.drop.bind(log),
      };
      const writer = new LogWriter(slow, 't', START, 0, { fenced: () => t.fail('fenced') });
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
  const writer = new LogWriter(log, 't', START, 0, { fenced: () => fenced++ });
  writer.append(token(0));
  writer.append(token(1));
  t.is(fenced, 1);
  t.is(log.tail('t'), 1 as Cursor);
});

test('counts tokens that have no text of their own yet', (t) => {
  const log = new MemoryTaskLog();
  const writer = new LogWriter(log, 't', START, 0, { fenced: () => {} });
  writer.token({ channel: 'text', text: '', tokens: 1 });
  writer.token({ channel: 'text', text: 'é', tokens: 1 });
  t.is(writer.tokens, 2);
  t.is(log.tail('t'), 1 as Cursor);
});

test('results are written as they come, and count no tokens', async (t) => {
  const log = new MemoryTaskLog();
  const writer = new LogWriter(log, 't', START, 0, { fenced: () => t.fail('fenced') });
  writer.append({ type: 'embedding', data: { i: 0, vector: [0.5] } });
  writer.append({ type: 'rerank', data: { i: 0, index: 3, score: 0.9 } });
  writer.append(END);
  t.deepEqual(
    (await all(log)).map(({ type }) => type),
    ['embedding', 'rerank', 'end'],
  );
  t.is(writer.tokens, 0);
});

const CANCELED: NewLogEvent = { type: 'end', data: { ...END.data, canceled: true } as never };
const FAILED: NewLogEvent = {
  type: 'error',
  data: { code: 'WORKER_RESET', message: 'lost', retriable: true },
};

/** A writer that goes on with a log of these pieces, one token each, by saying it all again. */
function replaying(
  t: ExecutionContext,
  pieces: readonly string[],
  options: Partial<LogWriterOptions> = {},
): { log: MemoryTaskLog; writer: LogWriter } {
  const log = new MemoryTaskLog();
  log.append('t', START, [
    STARTED,
    ...pieces.map((piece, i): NewLogEvent => ({ type: 'token', data: { t: piece, i } })),
  ]);
  const writer = new LogWriter(log, 't', log.tail('t'), pieces.length, {
    fenced: () => t.fail('fenced'),
    diverged: () => t.fail('diverged'),
    replay: pieces.join(''),
    ...options,
  });
  return { log, writer };
}

const say = (writer: LogWriter, text: string, tokens = 1): void =>
  writer.token({ channel: 'text', text, tokens });

/** Text and `i` of each token. */
async function tokensOf(log: MemoryTaskLog): Promise<[string, number][]> {
  return (await all(log)).flatMap((event: LogEvent) =>
    event.type === 'token' ? [[event.data.t, event.data.i] as [string, number]] : [],
  );
}

test('a run that says it all again is written from where the log ends', async (t) => {
  const { log, writer } = replaying(t, ['one', ' two']);
  say(writer, 'one');
  t.is(writer.tokens, 2);
  say(writer, ' two');
  t.is(writer.tokens, 2);
  say(writer, ' three');
  t.is(writer.tokens, 3);
  t.true(writer.finish());
  writer.append(END);
  t.deepEqual(await tokensOf(log), [
    ['one', 0],
    [' two', 1],
    [' three', 2],
  ]);
});

test('of a piece that goes beyond the known text, the rest is written', async (t) => {
  const { log, writer } = replaying(t, ['one', ' two']);
  say(writer, 'one two three', 3);
  t.is(writer.tokens, 3);
  say(writer, ' four five', 2);
  t.is(writer.tokens, 5);
  say(writer, ' six');
  writer.append(END);
  t.deepEqual((await tokensOf(log)).slice(2), [
    [' three', 2],
    [' four five', 3],
    [' six', 5],
  ]);
});

test('tokens that had no text when the run was lost are counted once', async (t) => {
  const log = new MemoryTaskLog();
  log.append('t', START, [STARTED, { type: 'token', data: { t: 'a', i: 0 } }]);
  const writer = new LogWriter(log, 't', log.tail('t'), 2, { fenced: () => {}, replay: 'a' });
  say(writer, 'a');
  say(writer, '');
  t.is(writer.tokens, 2);
  say(writer, 'é');
  writer.append(END);
  t.deepEqual((await tokensOf(log)).at(-1), ['é', 2]);
  t.is(writer.tokens, 3);
});

test('a run that says something else is told once, and none of it is written', async (t) => {
  for (const wrong of ['ONE', 'one too', 'one twx and more']) {
    let diverged = 0;
    const { log, writer } = replaying(t, ['one', ' two'], { diverged: () => diverged++ });
    say(writer, wrong, 2);
    say(writer, ' two');
    say(writer, 'one two three', 3);
    writer.append(END);
    t.false(writer.finish());
    t.is(diverged, 1);
    t.is(log.tail('t'), 3 as Cursor);
    t.is(writer.tokens, 2);
  }
});

test('a run that ends before the known text does is told, and its end is not written', async (t) => {
  for (const end of [
    (writer: LogWriter) => void writer.finish(),
    (writer: LogWriter) => writer.append(END),
  ]) {
    let diverged = 0;
    const { log, writer } = replaying(t, ['one', ' two'], { diverged: () => diverged++ });
    say(writer, 'one');
    end(writer);
    say(writer, ' two');
    t.is(diverged, 1);
    t.is(log.tail('t'), 3 as Cursor);
  }
});

test('a task that fails because its run diverged has its error in the log', async (t) => {
  const { log, writer } = replaying(t, ['one'], { diverged: () => writer.append(FAILED) });
  say(writer, 'two');
  say(writer, 'three');
  t.deepEqual(
    (await all(log)).map(({ type }) => type),
    ['started', 'token', 'error'],
  );
});

test('metrics, a cancel and a failure are written while a run says it all again', async (t) => {
  for (const end of [CANCELED, FAILED]) {
    const { log, writer } = replaying(t, ['one', ' two']);
    writer.append({ type: 'metrics', data: { queue_depth: 0, on_time_probability: 1, resumed: true } });
    say(writer, 'one');
    writer.append(end);
    t.deepEqual(
      (await all(log)).map(({ type }) => type),
      ['started', 'token', 'token', 'metrics', end.type],
    );
  }
});

test('a log without text has nothing to say again', async (t) => {
  const { log, writer } = replaying(t, []);
  say(writer, 'one');
  t.true(writer.finish());
  writer.append(END);
  t.deepEqual(await tokensOf(log), [['one', 0]]);
});

test('however often a run is lost, and however its text is cut, the log says the text once', async (t) => {
  const pieces = fc.array(fc.string({ unit: 'grapheme', maxLength: 4 }), { maxLength: 12 });
  const cuts = fc.array(fc.record({ sizes: fc.array(fc.integer({ min: 1, max: 4 })), lost: fc.nat(12) }), {
    maxLength: 4,
  });
  await fc.assert(
    fc.asyncProperty(pieces, cuts, async (tokens, runs) => {
      const log = new MemoryTaskLog();
      log.append('t', START, [STARTED]);
      let written = '';
      let count = 0;
      for (const { sizes, lost } of [...runs, { sizes: [], lost: Infinity }]) {
        const writer = new LogWriter(log, 't', log.tail('t'), count, {
          fenced: () => t.fail('fenced'),
          diverged: () => t.fail('diverged'),
          replay: written,
        });
        for (let at = 0, cut = 0; at < tokens.length && cut < lost; cut++) {
          const some = tokens.slice(at, at + (sizes[cut] ?? 1));
          at += some.length;
          say(writer, some.join(''), some.length);
        }
        count = writer.tokens;
        if (lost === Infinity) {
          t.true(writer.finish());
          writer.append(END);
        } else {
          log.append('t', log.tail('t'), [FRESH]);
          written = textOf(await soFar(log));
        }
      }
      const said = await tokensOf(log);
      t.is(said.map(([text]) => text).join(''), tokens.join(''));
      t.is(count, tokens.length);
      t.true(said.every(([, i], place) => place === 0 || i > (said[place - 1]?.[1] as number)));
      t.true(said.every(([, i]) => i < count));
    }),
    { numRuns: 300 },
  );
});

const FRESH: NewLogEvent = { type: 'metrics', data: { queue_depth: 0, on_time_probability: 1 } };

async function soFar(log: MemoryTaskLog): Promise<readonly LogEvent[]> {
  for await (const { events } of log.read('t', undefined, new AbortController().signal)) return events;
  return [];
}

function textOf(events: readonly LogEvent[]): string {
  return events.map((event) => (event.type === 'token' ? event.data.t : '')).join('');
}
