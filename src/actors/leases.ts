import type { Clock } from '../clock.ts';
import type { EngineOutcome } from '../engines/engine.ts';
import { failure } from '../errors.ts';
import { smooth, type Rates } from '../scheduling/estimate.ts';
import type { LogWriter } from '../streams/log-writer.ts';
import { engineCallOf } from './engine-call.ts';
import type { Replica } from './replica.ts';
import type { TaskRecord } from './task-record.ts';
import type { Tasks } from './tasks.ts';

interface Lease {
  record: TaskRecord;
  replica: Replica;
  /** Monotonic milliseconds. */
  granted_at: number;
}

export interface LeasesOptions {
  pool_id: string;
  clock: Clock;
  tasks: Tasks;
  /** What runs measure is written here. */
  rates: Rates;
  granted: () => void;
  closed: () => void;
}

/**
 * The slots of a pool that are taken, and the runs on them. A slot stays leased until its engine has let go, also
 * after the task is over: a canceled run that still decodes is still there.
 */
export class Leases {
  readonly #options: LeasesOptions;
  readonly #held = new Map<number, Lease>();
  #last = 0;

  constructor(options: LeasesOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#held.size;
  }

  /** Milliseconds for which each slot has been held. */
  heldFor(now: number): number[] {
    const held: number[] = [];
    for (const { granted_at } of this.#held.values()) held.push(now - granted_at);
    return held;
  }

  /** Takes a slot for the task and sends it there. */
  grant(record: TaskRecord, replica: Replica): void {
    const lease = ++this.#last;
    this.#held.set(lease, { record, replica, granted_at: this.#options.clock.now() });
    this.#options.granted();
    this.#options.tasks.place(record, lease, replica.id);
  }

  /** Starts the run; what it yields goes to the writer, how it ends to the task. */
  run(record: TaskRecord, lease: number, writer: LogWriter): void {
    const held = this.#held.get(lease);
    if (!held) return;
    const { tasks, clock, rates } = this.#options;
    let isFirst = true;
    const sink = {
      delta: (delta: Parameters<LogWriter['token']>[0]): void => {
        writer.token(delta);
        if (!isFirst) return;
        isFirst = false;
        const at = clock.now();
        rates.first_token_ms = smooth(rates.first_token_ms, at - held.granted_at);
        tasks.send(record, { type: 'engine.streamed', at });
      },
    };
    void held.replica.run(engineCallOf(record, lease), sink).then(async (outcome) => {
      await writer.settled();
      this.#close(lease, held, outcome);
    });
  }

  /** Asks the engine to let go; safe to repeat, and for a lease that is over. */
  abort(lease: number): void {
    this.#held.get(lease)?.replica.abort(lease);
  }

  /** Gives back a slot that was never used. */
  release(lease: number): void {
    if (this.#held.delete(lease)) this.#options.closed();
  }

  /** Cancels every task that holds a slot. */
  revoke(): void {
    const at = this.#options.clock.now();
    for (const { record } of this.#held.values())
      this.#options.tasks.send(record, { type: 'task.cancel', at, reason: 'drain' });
  }

  #close(lease: number, held: Lease, outcome: EngineOutcome): void {
    const { tasks, clock, rates, pool_id } = this.#options;
    const at = clock.now();
    const { usage } = outcome;
    this.#held.delete(lease);
    if (outcome.kind === 'finished') {
      rates.service_ms = smooth(rates.service_ms, at - held.granted_at);
      tasks.send(held.record, { type: 'engine.finished', at, reason: outcome.reason, usage });
    } else {
      // An abort that the task did not ask for: its replica was stopped under it.
      const cause =
        outcome.kind === 'failed'
          ? outcome.failure
          : failure('WORKER_RESET', 'the engine was stopped', { pool_id });
      tasks.send(held.record, { type: 'engine.failed', at, failure: cause, usage });
    }
    this.#options.closed();
  }
}
