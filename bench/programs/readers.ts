/**
 * Opens many event streams at once, on sockets, and reads them: to their ends, or until each has had its first event
 * and then without end. Counts events by a text that each has once.
 */
import { connect } from 'node:net';

export interface ReadQuestion {
  url: string;
  /** One stream each. */
  paths: string[];
  /** What each counted event has once. */
  mark: string;
  /** `end`: until the body is over; `first`: the streams stay open. */
  until: 'end' | 'first';
  /** Streams that may be without their first event at a time. */
  opening: number;
}

export interface ReadAnswer {
  seconds: number;
  events: number;
}

/** The chunk that ends a chunked body. */
const BODY_END = Buffer.from('0\r\n\r\n');

process.on('message', (question: ReadQuestion) => {
  void read(question).then((answer) => process.send?.(answer));
});
process.once('disconnect', () => process.exit());

async function read({ url, paths, mark, until, opening }: ReadQuestion): Promise<ReadAnswer> {
  const start = performance.now();
  const left = paths.toReversed();
  let events = 0;
  const take = async (): Promise<void> => {
    for (let path = left.pop(); path !== undefined; path = left.pop()) {
      const seen = await stream(new URL(url), path, Buffer.from(mark), until);
      events += seen;
    }
  };
  await Promise.all(Array.from({ length: Math.min(opening, paths.length) }, take));
  return { seconds: (performance.now() - start) / 1000, events };
}

/** @returns events until then */
function stream(
  { hostname, port, host }: URL,
  path: string,
  mark: Buffer,
  until: 'end' | 'first',
): Promise<number> {
  return new Promise((resolve, reject) => {
    let events = 0;
    let rest: Buffer | undefined;
    const socket = connect({ host: hostname, port: Number(port), noDelay: true }, () =>
      socket.write(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\nAccept: text/event-stream\r\n\r\n`),
    );
    socket.on('data', (chunk) => {
      const bytes = rest ? Buffer.concat([rest, chunk as Buffer]) : (chunk as Buffer);
      let from = 0;
      for (let at = bytes.indexOf(mark); at !== -1; at = bytes.indexOf(mark, from)) {
        events++;
        from = at + mark.length;
      }
      rest = bytes.subarray(Math.max(from, bytes.length - mark.length + 1));
      if (until === 'first' && events > 0) return resolve(events);
      if (bytes.length < BODY_END.length || !bytes.subarray(-BODY_END.length).equals(BODY_END)) return;
      socket.destroy();
      resolve(events);
    });
    socket.once('error', reject);
    socket.once('close', () => reject(new Error(`the stream ${path} broke`)));
  });
}
