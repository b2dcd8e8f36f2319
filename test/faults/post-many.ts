import { connect } from 'node:net';
import type { TaskRequest } from '../../src/contract/generated/types.ts';

const CONNECTIONS = 8;
/** Requests on their way at a time, on one connection. */
const PIPELINED = 32;

/**
 * Posts requests with ids as fast as the daemon takes them, on few connections. Ends when all are answered, or when
 * the daemon is gone.
 * @param accepted told of each 202 as it comes
 */
export async function postMany(
  url: string,
  requests: readonly TaskRequest[],
  accepted: (task_id: string) => void,
): Promise<void> {
  const left = requests.toReversed();
  await Promise.all(
    Array.from({ length: CONNECTIONS }, async () => {
      for (let some = take(left); some.length > 0; some = take(left))
        if (!(await exchange(url, some, accepted))) return;
    }),
  );
}

function take(left: TaskRequest[]): TaskRequest[] {
  return left.splice(-PIPELINED * 8).toReversed();
}

/** @returns whether all were answered */
async function exchange(
  url: string,
  requests: readonly TaskRequest[],
  accepted: (task_id: string) => void,
): Promise<boolean> {
  const { hostname, port, host } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port), noDelay: true });
  let sent = 0;
  let answers = 0;
  let text = '';
  const send = (): void => {
    const bodies = requests.slice(sent, answers + PIPELINED).map((request) => JSON.stringify(request));
    sent += bodies.length;
    socket.write(
      bodies
        .map(
          (body) =>
            `POST /v1/tasks HTTP/1.1\r\nHost: ${host}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
        )
        .join(''),
    );
  };
  socket.setEncoding('latin1').on('data', (part: string) => {
    text += part;
    // Each answer has the id once in its body, and in a form that nothing else has.
    for (const [, status, task_id] of text.matchAll(/HTTP\/1\.1 (\d+)[^{]*\{"task_id":"([^"]+)"[^}]*\}\}/g)) {
      answers++;
      if (status === '202') accepted(task_id as string);
    }
    text = text.slice(text.lastIndexOf('HTTP/1.1')).replace(/^HTTP\/1\.1 \d+[^{]*\{[^}]*\}\}/, '');
    if (answers === requests.length) socket.end();
    else if (sent - answers < PIPELINED / 2) send();
  });
  socket.on('error', () => undefined);
  socket.on('connect', send);
  await new Promise((resolve) => socket.once('close', resolve));
  return answers === requests.length;
}
