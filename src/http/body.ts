import { isAscii, isUtf8, transcode } from 'node:buffer';
import type { IncomingMessage } from 'node:http';
import { failure, TaskchartError } from '../errors.ts';
import { spread } from './gather.ts';

/** A body up to this many bytes is read in the turn of the event loop in which it is complete, whatever else is. */
export const SMALL_BYTES = 64 * 1024;

/**
 * Reads a JSON body, or takes what the host that this face is mounted in has made of it.
 * @throws TaskchartError INVALID_PARAMS: 413 above the limit, 400 where it is empty or not JSON. The message never
 * quotes the body, which may hold a prompt.
 */
export async function readJson(request: IncomingMessage, limit_bytes: number): Promise<unknown> {
  const { body } = request as { body?: unknown };
  if (body !== undefined) return body;
  const { chunks, size } = await readChunks(request, limit_bytes);
  if (size === 0) throw invalid('body: is empty; send a JSON object');
  const text = size <= SMALL_BYTES ? joined(chunks).toString('utf8') : await decodeLarge(chunks);
  try {
    return JSON.parse(text);
  } catch (error) {
    const place = /\(line \d+ column \d+\)/.exec(String(error))?.[0];
    throw invalid(`body: is not valid JSON${place ? ` ${place}` : ''}`);
  }
}

/** Decodes in a turn of its own, and leaves another to whoever parses. */
async function decodeLarge(chunks: readonly Buffer[]): Promise<string> {
  await spread();
  const text = decode(joined(chunks));
  await spread();
  return text;
}

/** What `toString` makes of UTF-8, at a fifth of its time where the text is not ASCII. */
function decode(bytes: Buffer): string {
  if (isAscii(bytes)) return bytes.toString('latin1');
  return isUtf8(bytes) ? transcode(bytes, 'utf8', 'utf16le').toString('utf16le') : bytes.toString('utf8');
}

function joined(chunks: readonly Buffer[]): Buffer {
  return chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks);
}

/** By events: an iterator over the request costs as much as the rest of a small admission. */
function readChunks(
  request: IncomingMessage,
  limit_bytes: number,
): Promise<{ chunks: Buffer[]; size: number }> {
  return new Promise((resolve, reject) => {
    if (Number(request.headers['content-length'] ?? 0) > limit_bytes) {
      reject(tooLarge(request, limit_bytes));
      return;
    }
    const chunks: Buffer[] = [];
    let size = 0;
    request.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size > limit_bytes) reject(tooLarge(request, limit_bytes));
      else chunks.push(chunk);
    });
    request.once('end', () => resolve({ chunks, size }));
    request.once('error', () => reject(invalid('body: ended before it was complete')));
  });
}

function tooLarge(request: IncomingMessage, limit_bytes: number): TaskchartError {
  // The rest of the body is not worth reading, and without this the client would go on sending it.
  request.removeAllListeners('data');
  request.resume();
  return new TaskchartError(
    failure('INVALID_PARAMS', `body: must be at most ${limit_bytes} bytes (server.body_limit_bytes)`),
    413,
  );
}

function invalid(message: string): TaskchartError {
  return new TaskchartError(failure('INVALID_PARAMS', message));
}
