import test from 'ava';
import * as fc from 'fast-check';
import { SseScanner } from '../../src/engines/sse-scanner.ts';
import { StopStrings } from '../../src/engines/stop-strings.ts';

function scan(chunks: readonly Buffer[]): string[] {
  const found: string[] = [];
  const scanner = new SseScanner((data) => found.push(data));
  for (const chunk of chunks) scanner.push(chunk);
  scanner.end();
  return found;
}

/** Cuts at the given places, modulo what is left. */
function cut(bytes: Buffer, sizes: readonly number[]): Buffer[] {
  const chunks: Buffer[] = [];
  let at = 0;
  for (const size of sizes) {
    chunks.push(bytes.subarray(at, at + size));
    at += size;
  }
  return [...chunks, bytes.subarray(at)];
}

test('the scanner knows every form of a data line, and skips the rest', (t) => {
  const wire =
    ': ping\n\ndata: one\n\ndata:two\r\n\r\nevent: x\ndata: three\ndata: four\nid: 7\n\n\n:\n\ndata: last';
  t.deepEqual(scan([Buffer.from(wire)]), ['one', 'two', 'three\nfour', 'last']);
});

test('where the bytes are cut makes no difference', (t) => {
  const event = fc.tuple(
    fc.string({ unit: 'binary', minLength: 1 }),
    fc.constantFrom('\n', '\r\n'),
    fc.boolean(),
  );
  fc.assert(
    fc.property(fc.array(event), fc.array(fc.nat({ max: 9 })), (events, sizes) => {
      const wire = events.map(([text, newline, ping]) => {
        const line = `data: ${JSON.stringify(text)}${newline}${newline}`;
        return ping ? `:${newline}${newline}${line}` : line;
      });
      const found = scan(cut(Buffer.from(wire.join('')), sizes));
      const sent = events.map(([text]) => Buffer.from(JSON.stringify(text)).toString());
      t.deepEqual(found, sent);
    }),
  );
});

test('nothing of a stop string gets out, and nothing before it is lost', (t) => {
  const text = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 30 });
  const stop = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 2, maxLength: 4 });
  fc.assert(
    fc.property(
      text,
      fc.array(stop, { minLength: 1, maxLength: 3 }),
      fc.array(fc.integer({ min: 1, max: 3 })),
      (whole, stops, sizes) => {
        const filter = new StopStrings(stops);
        let out = '';
        let stopped = false;
        for (const piece of cut(Buffer.from(whole), sizes)) {
          const step = filter.push(piece.toString());
          out += step.text;
          stopped = step.stopped;
          if (stopped) break;
        }
        out += filter.flush();
        t.is(
          stopped,
          stops.some((candidate) => whole.includes(candidate)),
        );
        t.true(whole.startsWith(out));
        t.false(stops.some((candidate) => out.includes(candidate)));
        if (!stopped) t.is(out, whole);
      },
    ),
  );
});
