import type { IncomingMessage } from 'node:http';
import { failure, TaskchartError } from '../errors.ts';

/**
 * Reads a JSON body.
 * @throws TaskchartError INVALID_PARAMS: 413 above the limit, 400 where it is empty or not JSON. The message never
 * quotes the body, which may hold a prompt.
 */
export async function readJson(request: IncomingMessage, limit_bytes: number): Promise<unknown> {
  const announced = Number(request.headers['content-length'] ?? 0);
  if (announced > limit_bytes) throw tooLarge(request, limit_bytes);
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > limit_bytes) throw tooLarge(request, limit_bytes);
    chunks.push(chunk);
  }
  if (size === 0) throw invalid('body: is empty; send a JSON object');
  const text = (chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks)).toString('utf8');
  try {
    return JSON.parse(text);
  } catch (error) {
    const place = /\(line \d+ column \d+\)/.exec(String(error))?.[0];
    throw invalid(`body: is not valid JSON${place ? ` ${place}` : ''}`);
  }
}

function tooLarge(request: IncomingMessage, limit_bytes: number): TaskchartError {
  // The rest of the body is not worth reading, and without this the client would go on sending it.
  request.unpipe();
  request.resume();
  return new TaskchartError(
    failure('INVALID_PARAMS', `body: must be at most ${limit_bytes} bytes (server.body_limit_bytes)`),
    413,
  );
}

function invalid(message: string): TaskchartError {
  return new TaskchartError(failure('INVALID_PARAMS', message));
}
