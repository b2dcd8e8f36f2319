import test from 'ava';
import fc from 'fast-check';
import { EventStreamReader, type EventFrame } from '../../src/client/event-stream.ts';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const read = (text: string): EventFrame[] => new EventStreamReader().push(bytes(text));

test('a frame has its id, its event and its data', (t) => {
  t.deepEqual(read('id: 7\nevent: token\ndata: {"t":"a"}\n\n'), [
    { id: '7', event: 'token', data: '{"t":"a"}' },
  ]);
});

test('comments, unknown fields and frames without data are passed over', (t) => {
  t.deepEqual(read(': keep-alive\n\nretry: 5\nid: 1\n\nevent: x\n\ndata\nfuture: y\n\n'), [
    { id: undefined, event: 'message', data: '' },
  ]);
});

test('data lines are joined, and one space after the colon is not part of the value', (t) => {
  t.deepEqual(read('data:a\ndata:  b\ndata: c: d\n\n'), [
    { id: undefined, event: 'message', data: 'a\n b\nc: d' },
  ]);
});

test('an id is that of its own frame only', (t) => {
  t.deepEqual(
    read('id: 1\ndata: a\n\ndata: b\n\n').map(({ id }) => id),
    ['1', undefined],
  );
});

test('a frame that the end cuts off is not delivered', (t) => {
  t.deepEqual(read('data: a\n\nid: 2\ndata: b\n'), [{ id: undefined, event: 'message', data: 'a' }]);
});

test('a byte order mark in front is no part of the first field', (t) => {
  t.is(read('\uFEFFdata: a\n\n')[0]?.data, 'a');
});

test('any frames with any line ends, cut into any pieces, are the same frames', (t) => {
  const text = fc
    .string({ unit: 'binary', maxLength: 12 })
    .map((value) => value.replaceAll(/[\r\n\0]/g, '-'));
  const frame = fc.record({
    id: fc.option(text, { nil: undefined }),
    event: fc.option(
      text.filter((value) => value !== ''),
      { nil: undefined },
    ),
    data: fc.array(text, { minLength: 1, maxLength: 3 }),
    eol: fc.constantFrom('\n', '\r', '\r\n'),
    comment: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(frame, { maxLength: 5 }), fc.infiniteStream(fc.nat({ max: 9 })), (frames, sizes) => {
      const all = bytes(
        frames
          .map(({ id, event, data, eol, comment }) =>
            [
              ...(comment ? [': note'] : []),
              ...(id === undefined ? [] : [`id: ${id}`]),
              ...(event === undefined ? [] : [`event: ${event}`]),
              ...data.map((line) => `data: ${line}`),
              '',
              '',
            ].join(eol),
          )
          .join(''),
      );
      const reader = new EventStreamReader();
      const found: EventFrame[] = [];
      for (let at = 0; at < all.length;) {
        const size = sizes.next().value ?? 1;
        found.push(...reader.push(all.subarray(at, at + size)));
        at += size;
      }
      const whole = new TextDecoder('utf-8', { ignoreBOM: true });
      const normal = (value: string): string => whole.decode(bytes(value));
      t.deepEqual(
        found,
        frames.map(({ id, event, data }) => ({
          id: id === undefined ? undefined : normal(id),
          event: event === undefined ? 'message' : normal(event),
          data: data.map(normal).join('\n'),
        })),
      );
    }),
    { numRuns: 300 },
  );
});
