import type { Dispatcher } from 'undici';
import { failure } from '../../errors.ts';
import type { EngineOutcome, EngineSink, Usage } from '../engine.ts';
import { aborted, failed, noUsage } from '../outcome.ts';
import { SseScanner } from '../sse-scanner.ts';
import { brokenRun, errorOf, parseOrText, refusal, refusedRun } from './upstream.ts';

/** The fields of llama-server's frames that we read. */
interface Frame {
  content?: string;
  stop?: boolean;
  stop_type?: string;
  tokens_predicted?: number;
  tokens_evaluated?: number;
  prompt_progress?: { processed: number; total: number; cache?: number };
  timings?: { cache_n?: number };
  error?: unknown;
}

/** What became of one request. `broken`: the connection ended it, and the engine may be gone. */
export interface CompletionResult {
  outcome: EngineOutcome;
  broken: boolean;
}

type Mode =
  | { name: 'waiting' }
  | { name: 'streaming' }
  | { name: 'refused'; status: number; retryAfter: unknown; body: Buffer[] }
  | { name: 'settled' };

/**
 * How many of the last tokens the last text is made of: the mark at the end has none, and of those that completed a
 * stop string the text before it came from the first.
 */
function ofText(tokens: number, stop_type: string | undefined): number {
  if (stop_type === 'word') return Math.min(1, tokens);
  return stop_type === 'eos' ? Math.max(0, tokens - 1) : tokens;
}

const REASONS: Readonly<Record<string, 'eos' | 'limit' | 'stop'>> = {
  eos: 'eos',
  word: 'stop',
  limit: 'limit',
};

/**
 * One streamed `POST /completion` of llama-server, as an undici handler: the token path has no stream object
 * and no promise in it.
 */
export class CompletionStream implements Dispatcher.DispatchHandler {
  readonly result: Promise<CompletionResult>;
  readonly usage: Usage = noUsage();
  readonly #resolve: (result: CompletionResult) => void;
  readonly #sink: EngineSink;
  readonly #signal: AbortSignal;
  readonly #scanner = new SseScanner((data) => this.#onData(data));
  #mode: Mode = { name: 'waiting' };
  #controller: Dispatcher.DispatchController | undefined;

  constructor(sink: EngineSink, signal: AbortSignal) {
    const { promise, resolve } = Promise.withResolvers<CompletionResult>();
    this.result = promise;
    this.#resolve = resolve;
    this.#sink = sink;
    this.#signal = signal;
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#signal.aborted) this.#onAbort();
    else this.#signal.addEventListener('abort', this.#onAbort);
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: Record<string, string | string[] | undefined>,
  ): void {
    this.#mode =
      status === 200
        ? { name: 'streaming' }
        : { name: 'refused', status, retryAfter: headers['retry-after'], body: [] };
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#mode.name === 'streaming') this.#scanner.push(chunk);
    else if (this.#mode.name === 'refused') this.#mode.body.push(chunk);
  }

  onResponseEnd(): void {
    if (this.#mode.name === 'refused') {
      const { status, body, retryAfter } = this.#mode;
      const text = Buffer.concat(body).toString();
      const cause = refusal(status, parseOrText(text), retryAfter);
      return this.#settle(refusedRun(status, cause, this.usage));
    }
    this.#scanner.end();
    this.#settle(failed(failure('WORKER_RESET', 'The output was truncated by the engine.'), this.usage));
  }

  onResponseError(_controller: Dispatcher.DispatchController | null, error: Error): void {
    if (this.#mode.name === 'settled') return;
    if (this.#signal.aborted) return this.#settle(aborted(this.usage));
    this.#end({ outcome: brokenRun(error, this.usage.tokens_out > 0, this.usage), broken: true });
  }

  readonly #onAbort = () => {
    this.#controller?.abort(new Error('The run was aborted.'));
  };

  #settle(outcome: EngineOutcome): void {
    if (this.#mode.name !== 'settled') this.#end({ outcome, broken: false });
  }

  #end(result: CompletionResult): void {
    this.#mode = { name: 'settled' };
    this.#signal.removeEventListener('abort', this.#onAbort);
    this.#resolve(result);
  }

  #onData(data: string): void {
    if (this.#mode.name !== 'streaming' || this.#signal.aborted) return;
    // `null` is the end mark of batched prompts, `[DONE]` that of the OpenAI twin; neither says anything here.
    if (data === 'null' || data === '[DONE]') return;
    const frame = parseOrText(data);
    if (typeof frame !== 'object' || frame === null) return this.#garbled();
    this.#onFrame(frame);
  }

  #onFrame(frame: Frame): void {
    if (frame.error !== undefined) {
      const { message = 'unknown error' } = errorOf(frame);
      return this.#settle(
        failed(failure('WORKER_RESET', `The engine failed mid-stream: ${message}`), this.usage),
      );
    }
    if (frame.tokens_evaluated !== undefined && this.usage.tokens_in === 0) {
      this.usage.tokens_in = frame.tokens_evaluated;
      this.usage.tokens_cached = frame.prompt_progress?.cache ?? 0;
      this.#sink.prefilled?.(this.usage.tokens_in, this.usage.tokens_cached);
    }
    // Its content is empty and its token is made up.
    if (frame.prompt_progress !== undefined) {
      return this.#sink.progress?.(frame.prompt_progress.processed, frame.prompt_progress.total);
    }
    // A frame may be missing (half a character) or empty (half a stop string): only the counter is exact.
    const text = frame.content ?? '';
    if (text !== '') {
      const fresh = (frame.tokens_predicted ?? this.usage.tokens_out) - this.usage.tokens_out;
      const tokens = frame.stop === true ? ofText(fresh, frame.stop_type) : fresh;
      this.usage.tokens_out += tokens;
      this.#sink.delta({ channel: 'text', text, tokens });
    }
    if (frame.stop !== true) return;
    this.usage.tokens_cached = frame.timings?.cache_n ?? this.usage.tokens_cached;
    this.#settle({ kind: 'finished', reason: REASONS[frame.stop_type ?? ''] ?? 'limit', usage: this.usage });
  }

  #garbled(): void {
    this.#settle(
      failed(failure('WORKER_RESET', 'The engine sent a frame that is no JSON object.'), this.usage),
    );
    this.#controller?.abort(new Error('garbled stream'));
  }
}
