import type { Clock } from '../clock.ts';
import {
  expectedTokens,
  predictStart,
  type OutputWish,
  type QueueLoad,
  type Rates,
} from '../scheduling/estimate.ts';
import type { Priority, TaskQueue, WorkAhead } from '../scheduling/queue.ts';
import type { TaskRecord } from './task-record.ts';

/** What a forecast looks at: a pool as it is now. */
export interface ForecastView {
  readonly isReady: boolean;
  readonly slots_total: number;
  readonly slots_free: number;
  /** Milliseconds until it is expected to be loaded, where others have a say in it; asked for only while it is not. */
  readonly untilLoaded: number | undefined;
  /** Milliseconds until its first engine is expected to be ready. @param load_ms what a load takes */
  untilReady(load_ms: number): number;
  /** Milliseconds that each run is still expected to take. */
  remaining(now: number): readonly number[];
}

/** Stands in for a load time until the first load has been measured, in milliseconds. */
const UNMEASURED_LOAD_MS = 1000;

export interface Estimate {
  queue_position: number;
  predicted_start_ms: number;
}

/** When tasks of a pool will start, from what the pool has measured of itself. */
export class Forecast {
  readonly #clock: Clock;
  readonly #rates: Rates;
  readonly #queue: TaskQueue<TaskRecord>;
  readonly #view: ForecastView;

  constructor(clock: Clock, rates: Rates, queue: TaskQueue<TaskRecord>, view: ForecastView) {
    this.#clock = clock;
    this.#rates = rates;
    this.#queue = queue;
    this.#view = view;
  }

  newcomer(priority: Priority): Estimate {
    return {
      queue_position: this.#queue.positionOfNewcomer(priority),
      predicted_start_ms: this.#start(this.#queue.workAheadOfNewcomer(priority)),
    };
  }

  /** Undefined for a task that does not wait here. */
  of(record: TaskRecord): Estimate | undefined {
    const queue_position = this.#queue.positionOf(record);
    if (queue_position === undefined) return undefined;
    return { queue_position, predicted_start_ms: this.#start(this.#queue.workAhead(record)) };
  }

  /** Tokens that a task is expected to write. */
  tokensOf(wish: OutputWish): number {
    return expectedTokens(this.#rates, wish);
  }

  /** How full the queue is, and how fast places become free. */
  load(): QueueLoad {
    return {
      waiting: this.#queue.length,
      capacity: this.#queue.capacity,
      slots_total: this.#view.slots_total,
      rates: this.#rates,
      next_slot_ms: this.#start({ tasks: 0, tokens: 0 }),
    };
  }

  /** @returns milliseconds from now until a task with so much ahead of it gets a slot */
  #start(ahead: WorkAhead): number {
    const { isReady, slots_total, slots_free } = this.#view;
    const now = this.#clock.now();
    return predictStart({
      rates: this.#rates,
      ahead,
      slots_total,
      slots_free: isReady ? slots_free : slots_total,
      until_ready_ms: isReady
        ? 0
        : (this.#view.untilLoaded ?? this.#view.untilReady(this.#rates.load_ms ?? UNMEASURED_LOAD_MS)),
      running: () => this.#view.remaining(now),
    });
  }
}
