import type { Dispatcher } from 'undici';
import { type Failure, failure } from '../errors.ts';
import type { EngineOutcome } from './engine.ts';
import { type Upstream, brokenRun, isBusy, parseOrText, refusedRun } from './llamacpp/upstream.ts';
import { aborted, declined, failed } from './outcome.ts';
import { type Complaint, complaintOf, refusalOf, streamFailure } from './remote-failure.ts';
import type { RunOutput } from './run-output.ts';
import { SseScanner } from './sse-scanner.ts';

/** What became of one request. `broken`: the connection ended it, and the engine may be gone. */
export interface RunResult {
  outcome: EngineOutcome;
  broken: boolean;
}

/** How a stream ended, by what was said in it. */
export type Ending =
  | { kind: 'finished'; reason: 'eos' | 'limit' | 'stop' }
  | { kind: 'failed'; failure: Failure; declined?: boolean };

export type Frame = Readonly<Record<string, unknown>>;

/** Reads what one kind of engine says in a stream, and puts it out. */
export interface FrameReader {
  /** @returns how it ended, if nothing that matters can follow */
  frame(frame: Frame): Ending | undefined;
  /**
   * Nothing follows: the engine said so, or its body ended.
   * @param broken the connection broke instead, so that the end of the body proves nothing
   * @returns undefined where the engine has not said how it ended
   */
  end(broken: boolean): Ending | undefined;
}

/** What a refusal may say is short; what is longer is some page. */
const REFUSAL_BYTES = 64 * 1024;

export interface StreamRequest {
  path: string;
  body: object;
  correlation_id?: string | undefined;
  output: RunOutput;
  reader: FrameReader;
  signal: AbortSignal;
}

/** Asks for a stream of server-sent events, and follows it to its end. Never rejects. */
export function runStream(upstream: Upstream, request: StreamRequest): Promise<RunResult> {
  const { correlation_id } = request;
  const stream = new EventStream(request);
  upstream.agent.dispatch(
    {
      origin: upstream.origin,
      path: upstream.path(request.path),
      method: 'POST',
      headers: upstream.headers({
        accept: 'text/event-stream',
        ...(correlation_id === undefined ? {} : { 'x-correlation-id': correlation_id }),
      }),
      body: JSON.stringify(request.body),
      reset: true,
    },
    stream,
  );
  return stream.result;
}

type Mode =
  | { name: 'waiting' }
  | { name: 'streaming' }
  | { name: 'refused'; status: number; type: string; retryAfter: unknown; body: Buffer[]; bytes: number }
  | { name: 'settled' };

/** One streamed answer as an undici handler: the token path has no stream object and no promise in it. */
class EventStream implements Dispatcher.DispatchHandler {
  readonly result: Promise<RunResult>;
  readonly #resolve: (result: RunResult) => void;
  readonly #output: RunOutput;
  readonly #reader: FrameReader;
  readonly #signal: AbortSignal;
  readonly #scanner = new SseScanner((data) => this.#onData(data));
  #mode: Mode = { name: 'waiting' };
  #open = true;
  #controller: Dispatcher.DispatchController | undefined;

  constructor({ output, reader, signal }: StreamRequest) {
    const { promise, resolve } = Promise.withResolvers<RunResult>();
    this.result = promise;
    this.#resolve = resolve;
    this.#output = output;
    this.#reader = reader;
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
    const type = String(headers['content-type'] ?? '');
    this.#mode =
      status === 200 && (type === '' || type.includes('event-stream'))
        ? { name: 'streaming' }
        : { name: 'refused', status, type, retryAfter: headers['retry-after'], body: [], bytes: 0 };
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#mode.name === 'streaming') return this.#scanner.push(chunk);
    if (this.#mode.name !== 'refused') return;
    this.#mode.body.push(chunk);
    this.#mode.bytes += chunk.length;
    if (this.#mode.bytes > REFUSAL_BYTES) this.#refuse(this.#mode);
  }

  onResponseEnd(): void {
    this.#open = false;
    if (this.#mode.name === 'refused') return this.#refuse(this.#mode);
    this.#scanner.end();
    this.#close(this.#reader.end(false), 'The output was truncated by the engine.');
  }

  onResponseError(_controller: Dispatcher.DispatchController | null, error: Error): void {
    this.#open = false;
    if (this.#mode.name === 'settled') return;
    if (this.#signal.aborted) return this.#settle(aborted(this.#output.usage));
    const ending = this.#reader.end(true);
    if (ending !== undefined) return this.#end(ending);
    this.#settle(brokenRun(error, this.#output.started, this.#output.usage), true);
  }

  readonly #onAbort = () => {
    this.#controller?.abort(new Error('The run was aborted.'));
  };

  #onData(data: string): void {
    if (this.#mode.name !== 'streaming' || this.#signal.aborted) return;
    if (data === 'null') return;
    if (data === '[DONE]')
      return this.#close(this.#reader.end(false), 'The engine ended without saying how.');
    const frame = parseOrText(data);
    if (typeof frame !== 'object' || frame === null || Array.isArray(frame)) {
      return this.#end({
        kind: 'failed',
        failure: failure('WORKER_RESET', 'The engine sent a frame that is no JSON object.'),
      });
    }
    const said = 'error' in frame || 'object' in frame ? complaintOf(frame) : undefined;
    const ending = said === undefined ? this.#reader.frame(frame as Frame) : this.#complained(said);
    if (ending !== undefined) this.#end(ending);
  }

  #complained(said: Complaint): Ending {
    const { started } = this.#output;
    const declined = !started && isBusy(said.status ?? 0);
    return { kind: 'failed', failure: streamFailure(said, started), declined };
  }

  /** The engine has nothing more to say; without a word on how it ended, it has not finished. */
  #close(ending: Ending | undefined, otherwise: string): void {
    this.#end(ending ?? { kind: 'failed', failure: failure('WORKER_RESET', otherwise) });
  }

  #end(ending: Ending): void {
    if (this.#mode.name === 'settled') return;
    if (this.#signal.aborted) return this.#settle(aborted(this.#output.usage));
    if (ending.kind === 'failed')
      return this.#settle(ending.declined ? declined(ending.failure) : this.#lost(ending.failure));
    this.#settle({ kind: 'finished', reason: ending.reason, usage: this.#output.usage });
  }

  #refuse({ status, type, body, retryAfter }: Extract<Mode, { name: 'refused' }>): void {
    const answer = parseOrText(Buffer.concat(body).toString());
    if (status !== 200) {
      const cause = refusalOf(status, answer, retryAfter);
      return this.#settle(refusedRun(status, cause, this.#output.usage));
    }
    const said = typeof answer === 'string' ? undefined : complaintOf(answer);
    if (said !== undefined) return this.#end(this.#complained(said));
    const cause = failure(
      'POOL_UNAVAILABLE',
      `The engine answered with ${type.split(';')[0]} instead of a stream.`,
    );
    this.#settle(this.#lost(cause));
  }

  #lost(cause: Failure): EngineOutcome {
    return failed(cause, this.#output.usage);
  }

  #settle(outcome: EngineOutcome, broken = false): void {
    if (this.#mode.name === 'settled') return;
    this.#mode = { name: 'settled' };
    this.#signal.removeEventListener('abort', this.#onAbort);
    this.#resolve({ outcome, broken });
    // Whatever the engine still has to say is not wanted: it may stop.
    if (this.#open) this.#controller?.abort(new Error('The run is over.'));
  }
}
