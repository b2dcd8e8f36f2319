import { createWriteStream, type WriteStream } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { redact } from './redact.ts';

/** How long the begin of a line waits for its rest, in milliseconds. */
const REST_OF_LINE_MS = 100;

/** A line that is longer is written in pieces. */
const LONGEST_LINE_BYTES = 16_384;

/**
 * Appends what an engine's process writes to `<dir>/engines/<replica>.log`, without the credentials in it. Nothing is
 * created until it writes something, and a log that cannot be written is no reason for the engine to stop.
 */
export function engineOutput(dir: string, replica_id: string): (chunk: Buffer) => void {
  let file: Promise<WriteStream> | undefined;
  let rest = '';
  let timer: NodeJS.Timeout | undefined;
  // Byte for byte: a chunk may begin and end within a character.
  const write = (text: string): void => {
    file ??= openLog(join(dir, 'engines'), `${replica_id.replaceAll('/', '-')}.log`);
    file.then((log) => log.write(Buffer.from(redact(text), 'latin1')), warn);
  };
  return (chunk) => {
    clearTimeout(timer);
    const text = rest + chunk.toString('latin1');
    const end = text.length > LONGEST_LINE_BYTES ? text.length : text.lastIndexOf('\n') + 1;
    rest = text.slice(end);
    if (end > 0) write(text.slice(0, end));
    if (rest === '') return;
    // A credential must not get through in two halves, and the last words of an engine that dies must.
    timer = setTimeout(() => {
      write(rest);
      rest = '';
    }, REST_OF_LINE_MS);
    timer.unref();
  };
}

async function openLog(folder: string, name: string): Promise<WriteStream> {
  await mkdir(folder, { recursive: true });
  return createWriteStream(join(folder, name), { flags: 'a' }).on('error', warn);
}

function warn(error: Error): void {
  process.emitWarning(`an engine's log cannot be written: ${error.message}`);
}
