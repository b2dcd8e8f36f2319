/**
 * Posts tasks over keep-alive connections, each waiting for its answer before it posts again. Written on sockets:
 * a client library would take more of the machine than the server under test.
 */
import { connect, type Socket } from 'node:net';
import { requestOf } from '../bodies.ts';

export interface LoadQuestion {
  url: string;
  connections: number;
  requests: number;
  /** Bodies that are posted in turn, instead of one of its own for each request. */
  bodies?: string[];
}

export interface LoadAnswer {
  seconds: number;
  /** Answers by status code. */
  statuses: Record<string, number>;
}

const HEAD_END = Buffer.from('\r\n\r\n');

let number = 0;
const sockets = new Map<string, Socket[]>();

process.on('message', (question: LoadQuestion) => {
  void run(question).then((answer) => process.send?.(answer));
});
process.once('disconnect', () => process.exit());

async function run({ url, connections, requests, bodies }: LoadQuestion): Promise<LoadAnswer> {
  const { hostname, port, host } = new URL(url);
  // A server closes connections that were idle for a while, such as during the rounds of others.
  const pool = (sockets.get(url) ?? []).filter((socket) => socket.readable && socket.writable);
  sockets.set(url, pool);
  while (pool.length < connections) pool.push(await open(hostname, Number(port)));
  const statuses: Record<string, number> = {};
  const given = bodies?.map((body) => Buffer.from(requestBytes(host, body)));
  const bytes = Array.from(
    { length: requests },
    (_, turn) => given?.[turn % given.length] ?? requestBytes(host, JSON.stringify(requestOf(number++))),
  );
  const start = performance.now();
  await Promise.all(
    pool.slice(0, connections).map(async (socket) => {
      for (let next = bytes.pop(); next !== undefined; next = bytes.pop()) {
        const status = await exchange(socket, next);
        statuses[status] = (statuses[status] ?? 0) + 1;
      }
    }),
  );
  return { seconds: (performance.now() - start) / 1000, statuses };
}

function requestBytes(host: string, body: string): string {
  return `POST /v1/tasks HTTP/1.1\r\nHost: ${host}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
}

function open(host: string, port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, noDelay: true }, () => resolve(socket));
    socket.once('error', reject);
  });
}

/** @returns the status of the answer, once all of it has arrived */
function exchange(socket: Socket, request: string | Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    let whole: Buffer | undefined;
    let expected = 0;
    const hear = (chunk: Buffer): void => {
      whole = whole ? Buffer.concat([whole, chunk]) : chunk;
      if (expected === 0) {
        const head = whole.indexOf(HEAD_END);
        if (head === -1) return;
        const length = /content-length: (\d+)/i.exec(whole.toString('latin1', 0, head))?.[1];
        if (length === undefined) return reject(new Error('an answer without Content-Length'));
        expected = head + HEAD_END.length + Number(length);
      }
      if (whole.length < expected) return;
      socket.removeListener('data', hear);
      socket.removeListener('close', lost);
      resolve(whole.toString('latin1', 9, 12));
    };
    const lost = (): void => reject(new Error('the server closed a connection'));
    socket.on('data', hear);
    socket.once('close', lost);
    socket.write(request);
  });
}
