import { createWriteStream, type WriteStream } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';

/**
 * Appends what an engine's process writes to `<dir>/engines/<replica>.log`. Nothing is created until it writes
 * something, and a log that cannot be written is no reason for the engine to stop.
 */
export function engineOutput(dir: string, replica_id: string): (chunk: Buffer) => void {
  let file: Promise<WriteStream> | undefined;
  return (chunk) => {
    file ??= openLog(join(dir, 'engines'), `${replica_id.replaceAll('/', '-')}.log`);
    file.then((log) => log.write(chunk), warn);
  };
}

async function openLog(folder: string, name: string): Promise<WriteStream> {
  await mkdir(folder, { recursive: true });
  return createWriteStream(join(folder, name), { flags: 'a' }).on('error', warn);
}

function warn(error: Error): void {
  process.emitWarning(`an engine's log cannot be written: ${error.message}`);
}
