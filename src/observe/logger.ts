import { pino, type Logger } from 'pino';
import { Lines } from './lines.ts';
import { redact } from './redact.ts';

export interface LoggerOptions {
  /** @default 'info' */
  level: string;
  /** `auto`: pretty on a terminal, JSON lines elsewhere. */
  format: 'json' | 'pretty' | 'auto';
}

/** ISO 8601 with milliseconds; formatting a whole date for each line is the dearest part of writing it. */
function timestamp(): string {
  const now = Date.now();
  const second = Math.floor(now / 1000);
  if (second !== formatted.second)
    formatted = { second, text: new Date(second * 1000).toISOString().slice(0, -4) };
  return `,"time":"${formatted.text}${String(now % 1000).padStart(3, '0')}Z"`;
}

let formatted = { second: -1, text: '' };

/**
 * Logs to stdout: JSON lines, one an event, with `actor`, `action`, `target` and a sentence in `human`. Nothing that may
 * hold a credential or a prompt is handed to it: filtering each line by name costs more than writing it. Only errors are
 * read through, because nobody knows what is in them.
 */
export async function createLogger({
  level,
  format,
}: LoggerOptions): Promise<{ logger: Logger; flush: () => void }> {
  const options = { level, base: null, timestamp, serializers: { err: withoutCredentials } };
  if (format === 'json' || (format === 'auto' && !process.stdout.isTTY)) {
    const lines = new Lines();
    return { logger: writeWhole(pino(options, lines)), flush: () => lines.flush() };
  }
  const { default: pretty } = await import('pino-pretty');
  const logger = pino(
    // pino-pretty takes the name of the message from here, whatever it is told itself.
    { ...options, messageKey: 'human' },
    pretty({
      colorize: process.stdout.isTTY === true,
      ignore: 'actor,action,target',
      hideObject: level !== 'debug' && level !== 'trace',
      translateTime: 'SYS:HH:MM:ss.l',
      sync: true,
    }),
  );
  return { logger: writeWhole(logger), flush() {} };
}

/** Messages of failures come from anywhere. */
function withoutCredentials(error: unknown): unknown {
  if (!(error instanceof Error)) return redact(String(error));
  const { type, message, stack } = pino.stdSerializers.err(error);
  return { type, message: redact(message), stack: redact(stack) };
}

type AsJson = (
  this: Logger,
  fields: object,
  message: string | undefined,
  level: number,
  time: string,
) => string;

/**
 * pino joins a line from some sixty pieces, and making one text of them costs more than all the rest of it. Where the
 * fields are plain, the engine's own stringify makes the same line at once: 3 µs instead of 12.
 */
function writeWhole(logger: Logger): Logger {
  const lines = logger as unknown as Record<symbol, AsJson>;
  const inPieces = lines[pino.symbols.asJsonSym] as AsJson;
  lines[pino.symbols.asJsonSym] = function (fields, message, level, time) {
    // Where there is an error pino takes its message for the line's, unread; the line has a sentence of its own.
    if ('err' in fields && 'human' in fields) return inPieces.call(this, fields, undefined, level, time);
    if (message !== undefined || !('human' in fields))
      return inPieces.call(this, fields, message, level, time);
    return `{"level":${level}${time},${JSON.stringify(fields).slice(1)}\n`;
  };
  return logger;
}
