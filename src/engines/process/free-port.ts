import { createServer } from 'node:net';

/** How far from the last preferred port to look for a free one. */
const SCAN = 200;

/** Ports of engines of this process, also of those that do not listen yet. */
const held = new Set<number>();

/** A port of this machine's loopback that nobody else in this process is given. */
export interface Port {
  readonly number: number;
  release(): void;
}

/**
 * Takes the first preferred port that is free, else one of the 200 after the last of them, else any.
 * @param avoid ports that somebody is about to listen on
 */
export async function takePort(preferred: readonly number[], avoid: ReadonlySet<number>): Promise<Port> {
  const last = preferred.at(-1);
  const scanned = last === undefined ? [] : Array.from({ length: SCAN }, (_, i) => last + 1 + i);
  for (const number of [...preferred, ...scanned]) {
    if (number > 65_535 || held.has(number) || avoid.has(number)) continue;
    held.add(number);
    if ((await listen(number)) !== undefined) return hold(number);
    held.delete(number);
  }
  for (;;) {
    const number = await listen(0);
    if (number === undefined) throw new Error('There is no free port.');
    if (held.has(number) || avoid.has(number)) continue;
    held.add(number);
    return hold(number);
  }
}

function hold(number: number): Port {
  return { number, release: () => void held.delete(number) };
}

/** @returns the port that could be listened on, undefined where somebody else does */
function listen(port: number): Promise<number | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.on('error', () => resolve(undefined));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => {
      const address = server.address();
      const number = typeof address === 'object' ? address?.port : undefined;
      server.close(() => resolve(number));
    });
  });
}
