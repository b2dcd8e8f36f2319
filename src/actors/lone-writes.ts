import { eventsSoFar, outputOf } from '../streams/read-log.ts';
import type { AppendResult, Cursor, NewLogEvent, TaskLog } from '../streams/task-log.ts';

const START = 0 as Cursor;
const UNKNOWN: AppendResult = { kind: 'unknown' };

/** How often an event is written that gets no answer. */
const MOST_TRIES = 3;

/**
 * Events of tasks that no run writes for: those that wait, and those whose run was lost. A log elsewhere is given them
 * one at a time for each task, and again where it did not answer.
 */
export class LoneWrites {
  readonly #log: TaskLog;
  readonly #unanswered = new Map<string, Promise<void>>();

  constructor(log: TaskLog) {
    this.#log = log;
  }

  /** Where the next event of a task goes, once everything written before has been answered for. */
  tail(task_id: string): Cursor | Promise<Cursor> {
    const before = this.#unanswered.get(task_id);
    return before ? before.then(() => this.#log.tail(task_id)) : this.#log.tail(task_id);
  }

  write(task_id: string, event: NewLogEvent): void {
    // Nobody else can have written to a log that begins here: asking for its end would cost a look at the disk.
    const tail = event.type === 'started' ? START : this.tail(task_id);
    if (tail instanceof Promise)
      return this.hold(
        task_id,
        tail.then((cursor) => this.#insist(task_id, cursor, event, this.#append(task_id, cursor, event))),
      );
    const answer = this.#append(task_id, tail, event);
    if (answer instanceof Promise || answer.kind === 'unknown')
      this.hold(task_id, this.#insist(task_id, tail, event, answer));
  }

  /**
   * Ends a log whose run got no answer: its readers would wait for an end that may never have arrived. A log that says
   * more than the run did goes on elsewhere, and is left alone.
   * @param tokens that the task has written as far as its run knows
   */
  seal(task_id: string, tokens: number, terminal: NewLogEvent): void {
    this.hold(task_id, this.#seal(task_id, tokens, terminal));
  }

  /** What follows for this task waits for an answer that somebody else has asked for. */
  hold(task_id: string, answer: Promise<unknown>): void {
    const forget = (): void => {
      if (this.#unanswered.get(task_id) === answered) this.#unanswered.delete(task_id);
    };
    const answered = answer.then(forget, forget);
    this.#unanswered.set(task_id, answered);
  }

  /** Resolves when nothing written for this task waits for its answer. */
  async settled(task_id: string): Promise<void> {
    for (let answer; (answer = this.#unanswered.get(task_id));) await answer;
  }

  async #seal(task_id: string, tokens: number, terminal: NewLogEvent): Promise<void> {
    const cursor = await this.#log.tail(task_id);
    const written = outputOf(await eventsSoFar(this.#log, task_id));
    if (written.terminal || written.tokens > tokens) return;
    await this.#insist(task_id, cursor, terminal, this.#append(task_id, cursor, terminal));
  }

  async #insist(
    task_id: string,
    cursor: Cursor,
    event: NewLogEvent,
    first: AppendResult | Promise<AppendResult>,
  ): Promise<void> {
    let answer = await first;
    for (let tries = 1; answer.kind === 'unknown' && tries < MOST_TRIES; tries++) {
      // There is no other writer: a tail that has moved says that the event is there.
      if ((await this.#log.tail(task_id)) !== cursor) return;
      answer = await this.#append(task_id, cursor, event);
    }
  }

  #append(task_id: string, cursor: Cursor, event: NewLogEvent): AppendResult | Promise<AppendResult> {
    try {
      const answer = this.#log.append(task_id, cursor, [event]);
      return answer instanceof Promise ? answer.catch(() => UNKNOWN) : answer;
    } catch {
      return UNKNOWN;
    }
  }
}
