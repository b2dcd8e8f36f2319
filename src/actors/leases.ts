import type { Clock } from '../clock.ts';
import type { EngineOutcome } from '../engines/engine.ts';
import { failure } from '../errors.ts';
import { noteFirstToken, noteRun, serviceTime, type Rates } from '../scheduling/estimate.ts';
import type { LogWriter } from '../streams/log-writer.ts';
import { inWordsOf, workOf } from './engine-call.ts';
import type { Replica } from './replica.ts';
import type { TaskRecord } from './task-record.ts';
import type { Past, Tasks } from './tasks.ts';

interface Lease {
  record: TaskRecord;
  replica: Replica;
  /** Monotonic milliseconds. */
  granted_at: number;
  /** When the engine last gave a sign of life. Monotonic milliseconds. */
  heard_at: number;
  first_token_at: number | undefined;
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
  readonly #onReplica = new Map<Replica, number>();
  #last = 0;

  constructor(options: LeasesOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#held.size;
  }

  /** Slots of one replica that are taken. */
  on(replica: Replica): number {
    return this.#onReplica.get(replica) ?? 0;
  }

  /** Milliseconds that each run is still expected to take. */
  remaining(now: number): number[] {
    const remaining: number[] = [];
    for (const { record, granted_at } of this.#held.values())
      remaining.push(
        Math.max(0, serviceTime(this.#options.rates, record.expected_tokens) - (now - granted_at)),
      );
    return remaining;
  }

  /** For how long the engine of a run has given no sign of life, in milliseconds. */
  quietFor(lease: number): number {
    const held = this.#held.get(lease);
    return held ? this.#options.clock.now() - held.heard_at : 0;
  }

  holds(lease: number): boolean {
    return this.#held.has(lease);
  }

  /** Takes a slot for the task and sends it there. */
  grant(record: TaskRecord, replica: Replica): void {
    const lease = ++this.#last;
    const now = this.#options.clock.now();
    this.#held.set(lease, { record, replica, granted_at: now, heard_at: now, first_token_at: undefined });
    this.#count(replica, 1);
    this.#options.granted();
    this.#options.tasks.place(record, lease, replica.id);
  }

  /** Starts the run; what it yields goes to the writer, how it ends to the task. */
  run(record: TaskRecord, lease: number, writer: LogWriter, past: Past | undefined): void {
    const held = this.#held.get(lease);
    if (!held) return;
    const before = past?.mode === 'resume' ? writer.tokens : 0;
    void this.#start(record, lease, held, writer, past).then(async (outcome) => {
      // One that stops short of what earlier runs have written is told as diverged, which ends the task.
      if (outcome.kind === 'finished') writer.finish();
      await writer.settled();
      this.#close(lease, held, outcome, { before, written: writer.tokens });
    });
  }

  #start(
    record: TaskRecord,
    lease: number,
    held: Lease,
    writer: LogWriter,
    past: Past | undefined,
  ): Promise<EngineOutcome> {
    const { tasks, clock, rates } = this.#options;
    const heard = (): void => {
      held.heard_at = clock.now();
      if (held.first_token_at !== undefined) return;
      held.first_token_at = held.heard_at;
      noteFirstToken(rates, held.heard_at - held.granted_at);
      tasks.send(record, { type: 'engine.streamed', at: held.heard_at });
    };
    const work = workOf(record, lease, past);
    switch (work.kind) {
      case 'complete':
        return Promise.resolve({
          kind: 'finished',
          reason: 'limit',
          usage: { ...record.context.usage, tokens_out: 0 },
        });
      case 'embedding': {
        return held.replica.embed(work.call, (i, vector) => {
          if (i >= (past?.results ?? 0)) writer.append({ type: 'embedding', data: { i, vector } });
          heard();
        });
      }
      case 'rerank': {
        let i = 0;
        return held.replica.rerank(work.call, (index, score) => {
          if (i >= (past?.results ?? 0)) writer.append({ type: 'rerank', data: { i, index, score } });
          i++;
          heard();
        });
      }
      case 'completion':
        return held.replica.run(work.call, {
          delta(delta) {
            // The task waits for the next process, which will go on from what is written now.
            if (record.context.lease === undefined) return;
            writer.token(delta);
            heard();
          },
          prefilled: (tokens_in, tokens_cached) => tasks.prefilled(record, lease, tokens_in, tokens_cached),
          progress: () => {
            held.heard_at = clock.now();
          },
        });
    }
  }

  /**
   * Asks the engine to let go; safe to repeat, and for a lease that is over. An engine that has been silent for longer
   * than a task may wait has to show that it still decodes.
   */
  abort(lease: number): void {
    const held = this.#held.get(lease);
    if (!held) return;
    held.replica.abort(lease);
    const { first_token_ms, idle_ms } = held.record.context.rules;
    const limit_ms = held.first_token_at === undefined ? first_token_ms : idle_ms;
    if (this.quietFor(lease) >= limit_ms) held.replica.suspect();
  }

  /** Gives back a slot that was never used. */
  release(lease: number): void {
    const held = this.#held.get(lease);
    if (!held) return;
    this.#forget(lease, held);
    this.#options.closed();
  }

  #forget(lease: number, { replica }: Lease): void {
    if (this.#held.delete(lease)) this.#count(replica, -1);
  }

  #count(replica: Replica, change: number): void {
    const count = this.on(replica) + change;
    if (count > 0) this.#onReplica.set(replica, count);
    else this.#onReplica.delete(replica);
  }

  /** Cancels every task that holds a slot. */
  revoke(): void {
    const at = this.#options.clock.now();
    for (const { record } of this.#held.values())
      this.#options.tasks.send(record, { type: 'task.cancel', at, reason: 'drain' });
  }

  /** Puts every task that holds a slot back among those that wait, for the next process. */
  suspend(): void {
    for (const [lease, { record }] of this.#held) {
      // Its log has not said yet where the run would begin; nothing was started.
      if (record.context.lease === undefined) this.release(lease);
      else this.#options.tasks.send(record, { type: 'task.suspend' });
    }
  }

  /**
   * @param tokens.before those that the run has gone on from, and does not count
   * @param tokens.written those of all runs that readers were given
   */
  #close(
    lease: number,
    held: Lease,
    outcome: EngineOutcome,
    tokens: { before: number; written: number },
  ): void {
    const { tasks, clock, rates, pool_id } = this.#options;
    const at = clock.now();
    this.#forget(lease, held);
    if (outcome.kind === 'finished') {
      // One that found nothing left to do says nothing of how long outputs are.
      const isEmpty = tokens.before > 0 && held.first_token_at === undefined;
      if (held.record.request.workload === 'completion' && !isEmpty)
        noteRun(rates, outcome.usage.tokens_out, held.first_token_at, at);
      const usage = { ...outcome.usage, tokens_out: tokens.before + outcome.usage.tokens_out };
      tasks.send(held.record, { type: 'engine.finished', at, reason: outcome.reason, usage });
    } else {
      // A run that was lost while it said everything again has counted less than readers have.
      const usage = { ...outcome.usage, tokens_out: tokens.written };
      // An abort that the task did not ask for: its replica was stopped under it.
      const cause =
        outcome.kind === 'failed'
          ? outcome.failure
          : failure('WORKER_RESET', 'the engine was stopped', { pool_id });
      const type = outcome.kind === 'failed' && outcome.declined ? 'engine.declined' : 'engine.failed';
      tasks.send(held.record, { type, at, failure: inWordsOf(held.record.request, cause), usage });
    }
    this.#options.closed();
  }
}
