import type { StoredTask } from '../../src/actors/task-facts.ts';
import type { TaskRequest } from '../../src/contract/generated/types.ts';
import { MemoryStore } from '../../src/store/memory-store.ts';
import type { Fact, Store } from '../../src/store/store.ts';
import { MemoryTaskLog } from '../../src/streams/memory-log.ts';
import { eventsSoFar } from '../../src/streams/read-log.ts';
import type { Cursor, LogEvent, NewLogEvent, LogTime, TaskLog } from '../../src/streams/task-log.ts';
import { request } from '../helpers/server.ts';
import { SimulatedClock } from '../helpers/simulated-clock.ts';
import { until } from '../helpers/until.ts';
import { createRig, settle, type Rig, type RigOptions } from './rig.ts';

/** What outlives a process, in memory: each process opens it for itself, and what it writes after its end is lost. */
export class Disk {
  readonly #store = new MemoryStore();
  readonly #log = new MemoryTaskLog();

  /** Cuts off whoever had it before. */
  open(): { store: Store; log: TaskLog } {
    this.#cut.abort();
    const cut = (this.#cut = new AbortController());
    const { signal } = cut;
    return {
      store: {
        isDurable: true,
        commit: (commit) => (signal.aborted ? 'unknown' : this.#store.commit(commit)),
        fold: () => this.#store.fold(),
        close: async () => undefined,
      },
      log: {
        isDurable: true,
        append: (id, cursor, events) =>
          signal.aborted ? { kind: 'fenced' } : this.#log.append(id, cursor, events),
        tail: (id) => this.#log.tail(id),
        isClosed: (id) => this.#log.isClosed(id),
        read: (id, after, reader) => this.#log.read(id, after, AbortSignal.any([reader, signal])),
        times: () => this.times,
        drop: (id) => (signal.aborted ? undefined : this.#log.drop(id)),
        close: async () => cut.abort(),
      },
    };
  }

  #cut = new AbortController();
  /** When what every log has was written. */
  times: readonly LogTime[] = [];

  /** Writes as an earlier process would have. */
  put(facts: readonly Fact[]): void {
    this.#store.commit({ facts });
  }

  append(task_id: string, ...events: NewLogEvent[]): void {
    this.#log.append(task_id, this.#log.tail(task_id) as Cursor, events);
  }

  /** What any later process would read. */
  events(task_id: string): Promise<readonly LogEvent[]> {
    return eventsSoFar(this.#log, task_id);
  }

  async facts(): Promise<Map<string, unknown>> {
    const facts = new Map<string, unknown>();
    for await (const batch of this.#store.fold()) for (const { key, data } of batch) facts.set(key, data);
    return facts;
  }
}

/** Where the clock of the next process begins. */
export const EPOCH = 1_700_000_000_000;
/** How long nobody ran. */
export const DOWN_MS = 10_000;

export const idOf = (n: number): string => `0198c0de-0000-7000-8000-${String(n).padStart(12, '0')}`;

export const STARTED: NewLogEvent = {
  type: 'started',
  data: {
    queue_position: 0,
    predicted_start_ms: 0,
    engine: 'synthetic',
    pool_id: 'scripted',
    seed: 1,
    correlation_id: 'c',
  },
};
export const METRICS: NewLogEvent = { type: 'metrics', data: { queue_depth: 0, on_time_probability: 1 } };
export const token = (i: number): NewLogEvent => ({ type: 'token', data: { t: ` s${i}`, i } });
export const END: NewLogEvent = {
  type: 'end',
  data: { tokens_out: 2, decode_ms: 300, decode_time_ms: 300, finish_reason: 'eos', tokens_in: 4 },
};

/** A task as an earlier process has stored it. */
export function stored(
  n: number,
  fields: Partial<StoredTask> = {},
  posted: Partial<TaskRequest> = {},
): StoredTask {
  return {
    id: idOf(n),
    sequence: n,
    session_id: `s${n}`,
    pool_id: 'scripted',
    correlation_id: 'c',
    seed: 1,
    admitted_wall_ms: EPOCH - DOWN_MS,
    queue_position: 3,
    predicted_start_ms: 420,
    request: { ...request, task_id: idOf(n), ...posted },
    ...fields,
  };
}

export function put(disk: Disk, ...tasks: StoredTask[]): void {
  disk.put(tasks.map((data) => ({ key: `task/${data.id}`, data })));
}

export function restart(disk: Disk, options: RigOptions = {}): Rig {
  return createRig({
    ...options,
    clock: options.clock ?? new SimulatedClock(EPOCH),
    ports: { ...disk.open(), ...options.ports },
  });
}

export async function over(rig: Rig, n: number): Promise<readonly LogEvent[]> {
  await until(() => ['ended', 'error'].includes(rig.record(idOf(n)).state));
  await settle();
  return rig.log(idOf(n));
}
