import { STATUS_CODES, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { failure, type Failure } from '../errors.ts';
import { CORRELATION_HEADER, correlationIdOf } from './correlation.ts';

/** What Node would answer with an empty body, by the code of its error. */
const UNREADABLE: Readonly<Record<string, { status: number; message: string }>> = {
  HPE_HEADER_OVERFLOW: { status: 431, message: 'headers: are too large for this server' },
  HPE_CHUNK_EXTENSIONS_OVERFLOW: { status: 413, message: 'body: its chunk extensions are too large' },
  ERR_HTTP_REQUEST_TIMEOUT: { status: 408, message: 'request: did not arrive in time' },
};
const NO_HTTP = { status: 400, message: 'request: is not valid HTTP/1.1' };

/**
 * Answers what never becomes a request of the face: with the envelope and a correlation id, like everything else. The
 * server has to be made with `requireHostHeader: false`: what is answered here to a request without one, Node would
 * answer by itself.
 */
export function answerMalformed(
  server: Server,
  handle: (request: IncomingMessage, response: ServerResponse) => void,
): void {
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    if (error.code === 'ECONNRESET' || !socket.writable || isAnswering(socket)) {
      socket.destroy();
      return;
    }
    const { status, message } = UNREADABLE[error.code ?? ''] ?? NO_HTTP;
    // The headers were not read, and with them the caller's id.
    const { headers, body } = envelope(failure('INVALID_PARAMS', message), correlationIdOf(''));
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n${body}`);
  });
  server.on('checkExpectation', (request: IncomingMessage, response: ServerResponse) =>
    refuse(request, response, 417, 'Expect: only 100-continue is understood'),
  );
  server.on('request', (request, response) => {
    if (request.headers.host === undefined && request.httpVersion === '1.1')
      refuse(request, response, 400, 'Host: is required with HTTP/1.1');
    else handle(request, response);
  });
}

function refuse(request: IncomingMessage, response: ServerResponse, status: number, message: string): void {
  const given = request.headers[CORRELATION_HEADER.toLowerCase()];
  const { headers, body } = envelope(
    failure('INVALID_PARAMS', message),
    correlationIdOf(String(given ?? '')),
  );
  response.writeHead(status, headers).end(body);
}

/** The body of such a request is not read, so nothing can follow it on its connection. */
function envelope(cause: Failure, correlation_id: string): { headers: Record<string, string>; body: string } {
  const body = JSON.stringify(cause);
  return {
    headers: {
      [CORRELATION_HEADER]: correlation_id,
      'Content-Type': 'application/json; charset=utf-8',
      'Content-Length': String(Buffer.byteLength(body)),
      Connection: 'close',
    },
    body,
  };
}

/** Whether an answer has begun on this connection: only Node knows, and asks here itself before it writes one. */
function isAnswering(socket: Duplex): boolean {
  const { _httpMessage: response } = socket as { _httpMessage?: ServerResponse | null };
  return response?.headersSent === true;
}
