import type { Delta } from '../engines/engine.ts';
import { Replay } from './replay.ts';
import { isTerminal, type AppendResult, type Cursor, type NewLogEvent, type TaskLog } from './task-log.ts';

export interface LogWriterOptions {
  /** Somebody else writes this log now, or nobody knows: the run behind the writer should stop. Called once. */
  fenced: () => void;
  /** The run does not say again what `replay` has: it should stop, and its task fail. Called once. */
  diverged?: () => void;
  /**
   * Text that earlier runs have written, of a run that says it all again from the first token: it is held back until
   * there is more than this. Without it, what comes goes on after what is there.
   */
  replay?: string;
}

/**
 * The one writer of a task's log while its lease is out: counts tokens, keeps one append in flight, holds back
 * what arrives meanwhile. Once fenced it is silent for good and says so, so that the run behind it can stop.
 *
 * Once it has diverged it takes nothing more of the run, and no `end` that says the output is complete; `error`, and
 * the `end` of a canceled task, still close the log.
 */
export class LogWriter {
  readonly #log: TaskLog;
  readonly #task_id: string;
  readonly #options: LogWriterOptions;
  #cursor: Cursor | undefined;
  #pending: NewLogEvent[] = [];
  #inFlight: Promise<void> | undefined;
  #tokens: number;
  /** Tokens of the text so far, those that are said again included. */
  #counted: number;
  #replay: Replay | undefined;

  /** @param tokens tokens that earlier runs of the task have written */
  constructor(log: TaskLog, task_id: string, cursor: Cursor, tokens: number, options: LogWriterOptions) {
    const { replay } = options;
    this.#log = log;
    this.#task_id = task_id;
    this.#cursor = cursor;
    this.#tokens = tokens;
    this.#counted = replay === undefined ? tokens : 0;
    this.#options = options;
    if (replay) this.#replay = new Replay(replay);
  }

  /** Tokens written so far, those that are held back included. */
  get tokens(): number {
    return this.#tokens;
  }

  /** Whether something written has not been answered for. */
  get isBusy(): boolean {
    return this.#inFlight !== undefined;
  }

  token({ text, tokens }: Delta): void {
    const fresh = this.#replay ? this.#rest(text) : text;
    if (fresh === undefined) return;
    this.#counted += tokens;
    if (fresh === '') {
      this.#tokens = Math.max(this.#tokens, this.#counted);
      return;
    }
    this.#append({ type: 'token', data: { t: fresh, i: this.#tokens } });
    // Each `i` is used once, also where this run has not yet counted as far as the last one.
    this.#tokens = Math.max(this.#tokens + Math.min(1, tokens), this.#counted);
  }

  /** Any other event: results and metrics count no tokens. */
  append(event: NewLogEvent): void {
    if (this.#replay && isOfRun(event)) {
      if (event.type === 'end') this.finish();
      if (event.type === 'end' || this.#replay?.state === 'diverged') return;
    }
    this.#append(event);
  }

  /**
   * The run says that its output is complete. False where it has not said again all that earlier runs wrote, which is
   * then told as `diverged`: to be asked before a task is taken for finished.
   */
  finish(): boolean {
    if (!this.#replay) return true;
    this.#diverge(this.#replay);
    return false;
  }

  /** Resolves when everything written has been answered for. */
  async settled(): Promise<void> {
    while (this.#inFlight) await this.#inFlight;
  }

  /** What of a text is new; undefined where nothing of the run counts any more. */
  #rest(text: string): string | undefined {
    const replay = this.#replay as Replay;
    const rest = replay.take(text);
    if (replay.state === 'complete') this.#replay = undefined;
    if (rest === undefined) this.#diverge(replay);
    return rest;
  }

  #diverge(replay: Replay): void {
    if (replay.end()) this.#options.diverged?.();
  }

  #append(event: NewLogEvent): void {
    if (this.#cursor === undefined || isTerminal(this.#pending.at(-1))) return;
    if (this.#inFlight) {
      this.#pending.push(event);
      return;
    }
    this.#send([event]);
  }

  #send(events: readonly NewLogEvent[]): void {
    let answer: AppendResult | Promise<AppendResult>;
    try {
      answer = this.#log.append(this.#task_id, this.#cursor as Cursor, events);
    } catch {
      answer = { kind: 'unknown' };
    }
    this.#take(answer, events);
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
      if (result.kind !== 'ok') this.#options.fenced();
    }
  }

  #flush(): void {
    if (this.#cursor === undefined || this.#pending.length === 0) return;
    const events = this.#pending;
    this.#pending = [];
    this.#send(events);
  }
}

/** Whether an event says what the engine did, rather than what became of the task. */
function isOfRun({ type, data }: NewLogEvent): boolean {
  if (type === 'end') return data.canceled !== true;
  return type === 'embedding' || type === 'rerank' || type === 'token';
}
