import { decodeTime } from '../machines/task-protocol.ts';
import type { Store } from '../store/store.ts';
import type { TaskLog } from '../streams/task-log.ts';
import type { Sessions } from './sessions.ts';
import { endFact } from './task-facts.ts';
import type { TaskRecord } from './task-record.ts';
import type { TaskRegistry } from './task-registry.ts';
import type { Transcripts } from './transcripts.ts';

export interface EndingsOptions {
  log: TaskLog;
  store: Store;
  registry: TaskRegistry;
  sessions: Sessions;
  transcripts: Transcripts;
}

/** What is left to do once a task is over: its session is charged, and the store hears of it. */
export class Endings {
  readonly #options: EndingsOptions;
  /** Of tasks whose end is not stored yet. */
  readonly #waiting = new Map<string, Promise<unknown>>();

  constructor(options: EndingsOptions) {
    this.#options = options;
  }

  over(record: TaskRecord): void {
    const { store, log } = this.#options;
    const isKeptBoth = store.isDurable && log.isDurable;
    const keeping = isKeptBoth ? this.#keepOnceWritten(record) : this.#keep(record);
    if (!store.isDurable || !(keeping instanceof Promise)) return;
    this.#waiting.set(record.id, keeping);
    const forget = (): void => {
      if (this.#waiting.get(record.id) === keeping) this.#waiting.delete(record.id);
    };
    keeping.then(forget, forget);
  }

  /** Resolves when the end of a task that is over is stored, or cannot be. */
  async stored(task_id: string): Promise<void> {
    await Promise.allSettled([this.#waiting.get(task_id)]);
  }

  /** Resolves when the ends of the tasks so far have been stored, or cannot be. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#waiting.values());
  }

  /**
   * A store that says that a task is over has nothing left to run it again from: before that, its end has to be in
   * its log for good, which is when readers see it.
   */
  async #keepOnceWritten(record: TaskRecord): Promise<void> {
    const isThere = await this.#untilLast(record);
    // A log that was stopped before its end leaves the task to the next process.
    if (isThere || this.#isForgotten(record)) await this.#keep(record);
  }

  /** @returns whether the last event of its log can be read */
  async #untilLast({ id }: TaskRecord): Promise<boolean> {
    const { log } = this.#options;
    const never = new AbortController().signal;
    const tail = await log.tail(id);
    for await (const { isLast } of log.read(id, tail - 2, never)) if (isLast) return true;
    return false;
  }

  /** Its session is charged with it: another task's admission stores what the session has spent by then, too. */
  #keep(record: TaskRecord): unknown {
    const { store, sessions, transcripts } = this.#options;
    const { times, usage } = record.context;
    sessions.settle(record.session_id, record.id, {
      tokens_out: usage.tokens_out,
      decode_ms: decodeTime(times),
    });
    const task = this.#isForgotten(record) ? [] : [transcripts.noted(endFact(record))];
    const session = sessions.isLimited ? [sessions.factOf(record.session_id)] : [];
    const facts = [...task, ...session];
    return facts.length === 0 ? undefined : store.commit({ facts });
  }

  #isForgotten(record: TaskRecord): boolean {
    return this.#options.registry.get(record.id) !== record;
  }
}
