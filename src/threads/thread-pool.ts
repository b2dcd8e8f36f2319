import { fileURLToPath } from 'node:url';
import type { Piscina } from 'piscina';
import { failure, TaskchartError } from '../errors.ts';
import type { CountJob } from './tokenize.ts';

export interface ThreadPoolOptions {
  /**
   * Most threads at a time; each holds its own copy of the vocabularies it uses.
   * @default 1
   */
  threads?: number;
  /**
   * Most calls that may wait for a thread; one more is refused.
   * @default 64
   */
  max_waiting?: number;
  /**
   * How long a thread without work stays, in milliseconds.
   * @default 60000
   */
  idle_ms?: number;
}

export interface CountRequest extends CountJob {
  /** Gives the call up; a thread that is busy with it is ended. */
  signal?: AbortSignal;
}

/** Work that would hold up the event loop, done in threads. An idle pool does not keep the process alive. */
export interface ThreadPool {
  /**
   * Counts the tokens an engine would make of a text, BOS and EOS included, from the model file alone.
   * `parse_special` (default true) has to be what the engine does with the text.
   * @returns undefined where an exact count is not possible for this model.
   * @throws TaskchartError ADMISSION_REJECT with too many calls waiting, POOL_UNAVAILABLE once closed, INTERNAL with
   * the reason where the model file cannot be read; an aborted `signal` rejects with its reason.
   */
  countTokens(request: CountRequest): Promise<number | undefined>;

  /** Ends the threads; calls in flight reject. Safe to repeat. */
  close(): Promise<void>;
}

/** Makes a pool; its first thread starts with the first call. */
export function createThreadPool(options: ThreadPoolOptions = {}): ThreadPool {
  const { threads = 1, max_waiting = 64, idle_ms = 60_000 } = options;
  let started: Promise<Piscina<CountJob, number | undefined>> | undefined;
  let in_flight = 0;
  let closed = false;

  async function start(): Promise<Piscina<CountJob, number | undefined>> {
    // Loaded here because a process that never counts should not pay for it at start.
    const { Piscina } = await import('piscina');
    const pool = new Piscina<CountJob, number | undefined>({
      filename: fileURLToPath(new URL('tokenize.ts', import.meta.url)),
      minThreads: 0,
      maxThreads: threads,
      idleTimeout: idle_ms,
    });
    // A thread that dies without work is replaced by the next call; without a listener it would end the process.
    pool.on('error', () => undefined);
    return pool;
  }

  async function run({ signal, ...job }: CountRequest): Promise<number | undefined> {
    started ??= start();
    const pool = await started;
    if (closed) throw closedError();
    signal?.throwIfAborted();
    try {
      return await pool.run(job, signal === undefined ? {} : { signal });
    } catch (error) {
      signal?.throwIfAborted();
      if (closed) throw closedError();
      throw new TaskchartError(failure('INTERNAL', `cannot count tokens: ${messageOf(error)}`));
    }
  }

  return {
    async countTokens(request) {
      if (closed) throw closedError();
      request.signal?.throwIfAborted();
      if (in_flight >= threads + max_waiting) {
        throw new TaskchartError(
          failure('ADMISSION_REJECT', 'too many prompts are waiting to be counted', {
            policy_label: 'tokenizer',
          }),
        );
      }
      in_flight += 1;
      try {
        return await run(request);
      } finally {
        in_flight -= 1;
      }
    },

    async close() {
      closed = true;
      await (await started)?.destroy();
    },
  };
}

function closedError(): TaskchartError {
  return new TaskchartError(failure('POOL_UNAVAILABLE', 'the tokenizer threads are closed'));
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
