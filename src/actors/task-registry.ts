import type { Clock } from '../clock.ts';
import type { TaskState } from '../machines/task.ts';
import type { TaskRecord } from './task-record.ts';

export interface TaskRegistryOptions {
  clock: Clock;
  /** Finished tasks that stay readable, in number. */
  retained_tasks: number;
  /** How long a finished task stays readable, in milliseconds; 0 is for ever. */
  retained_ms: number;
  /** How long an Idempotency-Key stands for its task, in milliseconds. */
  idempotency_ttl_ms: number;
  /** A finished task has left: its log and what the store has of it can go. */
  forgotten: (record: TaskRecord) => void;
  /** A key that a task was posted again with stands for nothing any more. */
  expired: (idempotency_key: string) => void;
}

export interface TaskFilter {
  state?: TaskState | undefined;
  pool_id?: string | undefined;
  session_id?: string | undefined;
}

/** Every task that can be asked for: unfinished ones, and finished ones until their retention ends. */
export class TaskRegistry {
  readonly #options: TaskRegistryOptions;
  /** In the order of their admission. */
  readonly #records = new Map<string, TaskRecord>();
  /** Finished ones in the order of their end, with the monotonic time of it. */
  readonly #over = new Map<TaskRecord, number>();
  /** In the order of their first use. */
  readonly #keys = new Map<string, { task_id: string; used_at: number; isLater: boolean }>();
  #timer: unknown;
  #sequence = 0;

  constructor(options: TaskRegistryOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#records.size;
  }

  /** Of the next admission. */
  nextSequence(): number {
    return ++this.#sequence;
  }

  get(task_id: string): TaskRecord | undefined {
    return this.#records.get(task_id);
  }

  values(): IterableIterator<TaskRecord> {
    return this.#records.values();
  }

  /** The task that this key came with, while it stands for it. */
  byKey(key: string): TaskRecord | undefined {
    this.#dropKeys();
    const entry = this.#keys.get(key);
    // A restart may have taken keys in out of their order, and then those that are over do not all come first.
    return entry && entry.used_at > this.#oldestKey ? this.#records.get(entry.task_id) : undefined;
  }

  add(record: TaskRecord): void {
    this.#records.set(record.id, record);
    this.#sequence = Math.max(this.#sequence, record.sequence);
    const { idempotency_key } = record;
    if (idempotency_key === undefined) return;
    this.#use(idempotency_key, {
      task_id: record.id,
      used_at: record.context.times.admitted,
      isLater: false,
    });
  }

  /** A task was posted again with another key, which stands for it as well from now on. */
  addKey(idempotency_key: string, task_id: string, used_at: number): void {
    this.#use(idempotency_key, { task_id, used_at, isLater: true });
  }

  #use(idempotency_key: string, entry: { task_id: string; used_at: number; isLater: boolean }): void {
    if (this.#keys.get(idempotency_key)?.isLater && !entry.isLater) this.#options.expired(idempotency_key);
    // A key that is used again after its time is the newest again, also in the order of a store.
    this.#keys.delete(idempotency_key);
    this.#keys.set(idempotency_key, entry);
  }

  /** Starts the retention of a task that is over. */
  retire(record: TaskRecord, ended_at: number = this.#options.clock.now()): void {
    this.#over.set(record, ended_at);
    this.#trim();
  }

  /** @returns whether it was there and finished; others stay */
  forget(record: TaskRecord): boolean {
    if (!this.#over.delete(record)) return false;
    this.#records.delete(record.id);
    this.#options.forgotten(record);
    return true;
  }

  /**
   * Newest first.
   * @param before sequence of the last task of the page before
   * @returns at most `limit` tasks, and whether there are more
   */
  page(filter: TaskFilter, limit: number, before = Infinity): { tasks: TaskRecord[]; isMore: boolean } {
    const tasks: TaskRecord[] = [];
    for (const record of [...this.#records.values()].toReversed()) {
      if (record.sequence >= before || !fits(record, filter)) continue;
      if (tasks.length === limit) return { tasks, isMore: true };
      tasks.push(record);
    }
    return { tasks, isMore: false };
  }

  close(): void {
    this.#options.clock.clearTimeout(this.#timer);
  }

  #trim(): void {
    const { retained_tasks, retained_ms, clock } = this.#options;
    const oldest_kept = retained_ms === 0 ? -Infinity : clock.now() - retained_ms;
    for (const [record, ended_at] of this.#over) {
      if (this.#over.size <= retained_tasks && ended_at > oldest_kept) {
        if (retained_ms > 0) this.#wake(ended_at + retained_ms - clock.now());
        return;
      }
      this.forget(record);
    }
  }

  /** One timer for all, set for the oldest; it may leave earlier for other reasons, which only wakes this in vain. */
  #wake(ms: number): void {
    this.#timer ??= this.#options.clock.setTimeout(
      () => {
        this.#timer = undefined;
        this.#trim();
      },
      Math.min(ms, LONGEST_TIMER_MS),
    );
  }

  get #oldestKey(): number {
    return this.#options.clock.now() - this.#options.idempotency_ttl_ms;
  }

  #dropKeys(): void {
    const oldest_kept = this.#oldestKey;
    for (const [key, { used_at, isLater }] of this.#keys) {
      if (used_at > oldest_kept) return;
      this.#keys.delete(key);
      if (isLater) this.#options.expired(key);
    }
  }
}

const LONGEST_TIMER_MS = 2 ** 31 - 1;

function fits(record: TaskRecord, { state, pool_id, session_id }: TaskFilter): boolean {
  return (
    (state === undefined || record.state === state) &&
    (pool_id === undefined || record.pool_id === pool_id) &&
    (session_id === undefined || record.session_id === session_id)
  );
}
