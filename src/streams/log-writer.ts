import type { Delta } from '../engines/engine.ts';
import { isTerminal, type AppendResult, type Cursor, type NewLogEvent, type TaskLog } from './task-log.ts';

/**
 * The one writer of a task's log while its lease is out: counts tokens, keeps one append in flight, holds back
 * what arrives meanwhile. Once fenced it is silent for good and says so, so that the run behind it can stop.
 */
export class LogWriter {
  readonly #log: TaskLog;
  readonly #task_id: string;
  readonly #onFenced: () => void;
  #cursor: Cursor | undefined;
  #pending: NewLogEvent[] = [];
  #inFlight: Promise<void> | undefined;
  #tokens: number;

  /** @param tokens tokens that earlier runs of the task have written */
  constructor(log: TaskLog, task_id: string, cursor: Cursor, tokens: number, onFenced: () => void) {
    this.#log = log;
    this.#task_id = task_id;
    this.#cursor = cursor;
    this.#tokens = tokens;
    this.#onFenced = onFenced;
  }

  /** Tokens written so far, those that are held back included. */
  get tokens(): number {
    return this.#tokens;
  }

  /** Whether something written has not been answered for. */
  get isBusy(): boolean {
    return this.#inFlight !== undefined;
  }

  token(delta: Delta): void {
    if (delta.text !== '') this.append({ type: 'token', data: { t: delta.text, i: this.#tokens } });
    this.#tokens += delta.tokens;
  }

  append(event: NewLogEvent): void {
    if (this.#cursor === undefined || isTerminal(this.#pending.at(-1))) return;
    if (this.#inFlight) {
      this.#pending.push(event);
      return;
    }
    this.#take(this.#append([event]), [event]);
  }

  /** Resolves when everything written has been answered for. */
  async settled(): Promise<void> {
    while (this.#inFlight) await this.#inFlight;
  }

  #append(events: readonly NewLogEvent[]): AppendResult | Promise<AppendResult> {
    try {
      return this.#log.append(this.#task_id, this.#cursor as Cursor, events);
    } catch {
      return { kind: 'unknown' };
    }
  }

  #take(result: AppendResult | Promise<AppendResult>, events: readonly NewLogEvent[]): void {
    if (result instanceof Promise) {
      this.#inFlight = result
        .catch((): AppendResult => ({ kind: 'unknown' }))
        .then((answer) => {
          this.#inFlight = undefined;
          this.#take(answer, events);
          this.#flush();
        });
      return;
    }
    // Without an answer nobody knows what the log holds: writing on could put tokens twice, so the run is given up.
    if (result.kind === 'ok' && !isTerminal(events.at(-1))) this.#cursor = result.cursor;
    else {
      this.#cursor = undefined;
      this.#pending = [];
      if (result.kind !== 'ok') this.#onFenced();
    }
  }

  #flush(): void {
    if (this.#cursor === undefined || this.#pending.length === 0) return;
    const events = this.#pending;
    this.#pending = [];
    this.#take(this.#append(events), events);
  }
}
