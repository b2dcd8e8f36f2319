import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** A request as the program got it. */
export interface Received {
  method: string;
  url: string;
  headers: IncomingMessage['headers'];
  body: unknown;
}

export interface Wire {
  readonly url: string;
  readonly received: Received[];
  close(): Promise<void>;
}

export type Answer = (response: ServerResponse, request: Received) => void;

/** A small program that speaks the wire over a real socket: request number n is answered by answer n, or by the last. */
export async function startWire(...answers: Answer[]): Promise<Wire> {
  const received: Received[] = [];
  const server = createServer((request, response) => {
    let text = '';
    request.setEncoding('utf8').on('data', (part: string) => (text += part));
    request.on('end', () => {
      const entry = {
        method: request.method ?? '',
        url: request.url ?? '',
        headers: request.headers,
        body: text === '' ? undefined : (JSON.parse(text) as unknown),
      };
      const answer = answers[Math.min(received.length, answers.length - 1)];
      received.push(entry);
      answer?.(response, entry);
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    received,
    async close() {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}

export function json(status: number, body: unknown, headers: Record<string, string> = {}): Answer {
  return (response) =>
    response.writeHead(status, { 'Content-Type': 'application/json', ...headers }).end(JSON.stringify(body));
}

export const empty: Answer = (response) => response.writeHead(204).end();

/** Server-sent events as they are; the connection ends properly behind them. */
export function stream(...frames: string[]): Answer {
  return (response) => response.writeHead(200, { 'Content-Type': 'text/event-stream' }).end(frames.join(''));
}

export function frame(id: number | undefined, event: string, data: unknown): string {
  return `${id === undefined ? '' : `id: ${id}\n`}event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
}
