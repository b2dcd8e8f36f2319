import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Piscina } from 'piscina';
import { failure, TaskchartError } from '../errors.ts';
import type { CountJob, TokenCount } from './tokenize.ts';

export type { TokenCount };

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
  /**
   * How long one call may keep a thread, in milliseconds; the thread is then ended and the call fails. A megabyte
   * takes a fraction of a second: only a file that cannot be read takes this long.
   * @default 60000
   */
  limit_ms?: number;
}

export interface CountRequest extends CountJob {
  /** Gives the call up at once; a thread that is busy with it finishes and nobody hears of the result. */
  signal?: AbortSignal;
}

/** Work that would hold up the event loop, done in threads. An idle pool does not keep the process alive. */
export interface ThreadPool {
  /**
   * Counts the tokens an engine would make of a text, BOS and EOS included, from the model's files alone.
   * `parse_special` (default true) has to be what the engine does with the text.
   * @returns undefined where an exact count is not possible for this model or this text.
   * @throws TaskchartError ADMISSION_REJECT with too many calls waiting (`policy_label` `tokenizer`, and
   * `retry_after_ms`), POOL_UNAVAILABLE once closed, INTERNAL with the reason where the file cannot be read or
   * `limit_ms` is over; an aborted `signal` rejects with its reason.
   */
  countTokens(request: CountRequest): Promise<number | undefined>;

  /** The same, with the name of the tokenizer that counted. @throws TaskchartError as {@link countTokens} does */
  tokenize(request: CountRequest): Promise<TokenCount>;

  /** Ends the threads; calls in flight reject. Safe to repeat. */
  close(): Promise<void>;
}

/** A call, from when it is accepted until its caller has an answer. */
interface Call {
  job: CountJob;
  settle: (outcome: { answer: TokenCount } | { error: unknown }) => void;
}

const RETRY_MS = { least: 250, most: 30_000 };
/** How much the newest call moves the mean that a retry hint is made of. */
const NEWEST = 0.2;

/** Makes a pool; its first thread starts with the first call. */
export function createThreadPool(options: ThreadPoolOptions = {}): ThreadPool {
  return new CountingPool(options);
}

class CountingPool implements ThreadPool {
  readonly #options: Required<ThreadPoolOptions>;
  readonly #waiting = new Set<Call>();
  readonly #running = new Set<Call>();
  #piscina: Promise<Piscina<CountJob, TokenCount>> | undefined;
  #mean_ms = 0;
  #closed = false;

  constructor({ threads = 1, max_waiting = 64, idle_ms = 60_000, limit_ms = 60_000 }: ThreadPoolOptions) {
    this.#options = { threads, max_waiting, idle_ms, limit_ms };
  }

  async countTokens(request: CountRequest): Promise<number | undefined> {
    const answer = await this.tokenize(request);
    return answer.exact ? answer.count : undefined;
  }

  async tokenize({ signal, ...job }: CountRequest): Promise<TokenCount> {
    if (this.#closed) throw closedError();
    signal?.throwIfAborted();
    const { threads, max_waiting } = this.#options;
    if (this.#running.size >= threads && this.#waiting.size >= max_waiting) throw this.#refusal();
    const { promise, resolve, reject } = Promise.withResolvers<TokenCount>();
    const leave = (): void => call.settle({ error: signal?.reason });
    const call: Call = {
      job,
      settle: (outcome) => {
        this.#waiting.delete(call);
        signal?.removeEventListener('abort', leave);
        if ('answer' in outcome) resolve(outcome.answer);
        else reject(outcome.error as Error);
      },
    };
    signal?.addEventListener('abort', leave);
    this.#waiting.add(call);
    this.#startNext();
    return promise;
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const call of [...this.#waiting, ...this.#running]) call.settle({ error: closedError() });
    await (await this.#piscina)?.destroy();
  }

  /**
   * Calls wait here and not in front of a thread: whoever leaves while it waits costs nothing, and a text is copied
   * to a thread when its turn has come.
   */
  #startNext(): void {
    const [call] = this.#waiting;
    if (call === undefined || this.#running.size >= this.#options.threads) return;
    this.#waiting.delete(call);
    this.#running.add(call);
    void this.#run(call).finally(() => {
      this.#running.delete(call);
      this.#startNext();
    });
  }

  /** Ends when the thread has ended the work, whether or not the caller is still there. */
  async #run(call: Call): Promise<void> {
    const limit = new AbortController();
    const { limit_ms } = this.#options;
    // A thread that is ended has to load its vocabularies again, so a caller that leaves is no reason to end it.
    const timer = setTimeout(() => limit.abort(), limit_ms);
    try {
      this.#piscina ??= startPiscina(this.#options);
      const piscina = await this.#piscina;
      const start = performance.now();
      const answer = await piscina.run(call.job, { signal: limit.signal });
      this.#mean_ms += (performance.now() - start - this.#mean_ms) * NEWEST;
      call.settle({ answer });
    } catch (error) {
      const reason = limit.signal.aborted ? `it took longer than ${limit_ms} ms` : messageOf(error);
      call.settle({
        error: this.#closed
          ? closedError()
          : new TaskchartError(failure('INTERNAL', `cannot count tokens: ${reason}`)),
      });
    } finally {
      clearTimeout(timer);
    }
  }

  #refusal(): TaskchartError {
    const { threads } = this.#options;
    const until_free_ms = (this.#mean_ms * (this.#waiting.size + threads)) / threads;
    const retry_after_ms = Math.min(RETRY_MS.most, Math.max(RETRY_MS.least, Math.ceil(until_free_ms)));
    return new TaskchartError(
      failure('ADMISSION_REJECT', 'too many prompts are waiting to be counted', {
        policy_label: 'tokenizer',
        retry_after_ms,
      }),
    );
  }
}

async function startPiscina({
  threads,
  idle_ms,
}: Required<ThreadPoolOptions>): Promise<Piscina<CountJob, TokenCount>> {
  // Loaded here because a process that never counts should not pay for it at start.
  const { Piscina } = await import('piscina');
  const piscina = new Piscina<CountJob, TokenCount>({
    filename: fileURLToPath(new URL(`tokenize${extname(import.meta.url)}`, import.meta.url)),
    minThreads: 0,
    maxThreads: threads,
    idleTimeout: idle_ms,
  });
  // A thread that dies without work is replaced by the next call; without a listener it would end the process.
  piscina.on('error', () => undefined);
  return piscina;
}

function closedError(): TaskchartError {
  return new TaskchartError(failure('POOL_UNAVAILABLE', 'the tokenizer threads are closed'));
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
