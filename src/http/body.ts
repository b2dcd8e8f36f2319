import type { IncomingMessage } from 'node:http';
import { failure, TaskchartError } from '../errors.ts';

/**
 * Reads a JSON body.
 * @throws TaskchartError INVALID_PARAMS: 413 above the limit, 400 where it is empty or not JSON. The message never
 * quotes the body, which may hold a prompt.
 */
export async function readJson(request: IncomingMessage, limit_bytes: number): Promise<unknown> {
  const bytes = await readBytes(request, limit_bytes);
  if (bytes.length === 0) throw invalid('body: is empty; send a JSON object');
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch (error) {
    const place = /\(line \d+ column \d+\)/.exec(String(error))?.[0];
    throw invalid(`body: is not valid JSON${place ? ` ${place}` : ''}`);
  }
}

/** By events: an iterator over the request costs as much as the rest of a small admission. */
function readBytes(request: IncomingMessage, limit_bytes: number): Promise<Buffer> {
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
    request.once('end', () => resolve(chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks)));
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
