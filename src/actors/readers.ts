import { createActor } from 'xstate';
import type { Clock } from '../clock.ts';
import { readershipMachine, type ReadershipActor } from '../machines/readership.ts';
import { link } from './supervision.ts';

export interface ReadersOptions {
  clock: Clock;
  /** How long the last reader of a task may be gone, in milliseconds. */
  grace_ms: number;
  /** Nobody has come back in time. */
  deserted: (task_id: string) => void;
}

/** Who follows which task. A task that nobody has ever read is none of its business. */
export class Readers {
  readonly #options: ReadersOptions;
  readonly #counts = new Map<string, number>();
  readonly #awaited = new Map<string, ReadershipActor>();

  constructor(options: ReadersOptions) {
    this.#options = options;
  }

  /** @returns to be called once when the reader leaves */
  attach(task_id: string): () => void {
    this.#counts.set(task_id, (this.#counts.get(task_id) ?? 0) + 1);
    this.#awaited.get(task_id)?.send({ type: 'reader.attached' });
    let isThere = true;
    return () => {
      if (!isThere) return;
      isThere = false;
      this.#leave(task_id);
    };
  }

  /** The task is over: whoever is still connected only takes what is left in its log. */
  close(task_id: string): void {
    this.#counts.delete(task_id);
    this.#awaited.get(task_id)?.send({ type: 'task.closed' });
  }

  /** Nobody is waited for any more, nor counted: connections that end now end with the server. */
  stop(): void {
    this.#counts.clear();
    for (const actor of this.#awaited.values()) actor.stop();
    this.#awaited.clear();
  }

  #leave(task_id: string): void {
    const left = (this.#counts.get(task_id) ?? 0) - 1;
    if (left > 0) return void this.#counts.set(task_id, left);
    if (!this.#counts.delete(task_id)) return;
    const { clock, grace_ms, deserted } = this.#options;
    const actor = createActor(readershipMachine, { id: `readers of ${task_id}`, clock, input: { grace_ms } });
    const forget = (): void => {
      if (this.#awaited.get(task_id) === actor) this.#awaited.delete(task_id);
    };
    actor.on('task.deserted', () => deserted(task_id));
    link(actor, { completed: forget, crashed: forget });
    this.#awaited.set(task_id, actor);
    actor.start();
  }
}
