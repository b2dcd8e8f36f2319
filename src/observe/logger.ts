import { pino, type Logger } from 'pino';

export interface LoggerOptions {
  /** @default 'info' */
  level: string;
  /** `auto`: pretty on a terminal, JSON lines elsewhere. */
  format: 'json' | 'pretty' | 'auto';
}

/**
 * Logs to stdout. Nothing that may hold a credential or a prompt is handed to it: filtering each line by name costs more
 * than writing it. Lines are JSON, one an event, with `actor`, `action`, `target` and a
 * sentence in `human`.
 */
export async function createLogger({
  level,
  format,
}: LoggerOptions): Promise<{ logger: Logger; flush: () => void }> {
  const options = { level, base: null, timestamp: pino.stdTimeFunctions.isoTime };
  if (format === 'json' || (format === 'auto' && !process.stdout.isTTY)) {
    // Written in the background: a synchronous line costs an admission more than all its checks.
    const destination = pino.destination({ dest: 1, sync: false });
    return { logger: pino(options, destination), flush: () => destination.flushSync() };
  }
  const { default: pretty } = await import('pino-pretty');
  const logger = pino(
    options,
    pretty({
      colorize: process.stdout.isTTY === true,
      ignore: 'actor,action,target,human',
      hideObject: level !== 'debug' && level !== 'trace',
      messageKey: 'human',
      translateTime: 'SYS:HH:MM:ss.l',
      sync: true,
    }),
  );
  return { logger, flush() {} };
}
