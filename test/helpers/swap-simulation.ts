import type { Priority } from '../../src/contract/generated/types.ts';
import { passedBy, Passes } from '../../src/scheduling/passes.ts';
import type { SwapPlan } from '../../src/scheduling/swap-plan.ts';
import type { SwapDevice, SwapPool, SwapView } from '../../src/scheduling/swap-view.ts';

/** A model of a simulation; times in milliseconds. */
export interface SimulatedModel {
  id: string;
  memory_bytes: Readonly<Record<string, number>>;
  load_ms: number;
  unload_ms: number;
  slots: number;
  pinned?: boolean;
  idle_ttl_ms?: number;
}

export interface TraceTask {
  /** Milliseconds from the start of the trace. */
  at_ms: number;
  pool_id: string;
  priority: Priority;
  /** Milliseconds that it holds a slot. */
  run_ms: number;
}

export interface SimulatedTask extends TraceTask {
  /** Place in the order of arrival. */
  sequence: number;
  /** Undefined where it was refused. */
  granted_at: number | undefined;
  /** The first and the last lease of a younger task of a competing pool while its own pool was not loaded. */
  first_passed_at: number | undefined;
  last_passed_at: number | undefined;
}

export interface Outcome {
  /** In the order of arrival. */
  tasks: SimulatedTask[];
  loads: number;
  /** When the last event was, in milliseconds from the start. */
  ended_at: number;
}

/** What a planner says. */
export type Answer = Pick<SwapPlan, 'steps' | 'look_again_in_ms' | 'last_calls'>;

export interface Simulation {
  devices: readonly SwapDevice[];
  models: readonly SimulatedModel[];
  trace: readonly TraceTask[];
  plan: (view: SwapView) => Answer;
  /** Tasks that may wait in a pool; who finds so many is refused. @default Infinity */
  queue_capacity?: number;
  /** Only the task that has waited longest of all may be given a slot. */
  inOrderOfArrival?: boolean;
  /** Told of every lease; pools are as they were just before it. */
  onLease?: (task: SimulatedTask, waiting: readonly SimulatedTask[], pools: readonly SwapPool[]) => void;
}

/** A simulation with more of them goes round in circles. */
const MOST_TURNS_PER_TASK = 1000;

interface Pool {
  readonly model: SimulatedModel;
  /** As the planner sees it, but for what is counted when it is asked. */
  state: SwapPool['state'];
  since: number;
  idle_since: number | undefined;
  readonly memory_bytes: SwapPool['memory_bytes'];
  readonly can_load: true;
  oldest: SwapPool['oldest'];
  /** In the order of arrival. */
  readonly waiting: SimulatedTask[];
  readonly running: SimulatedTask[];
  readonly passes: Passes;
}

/**
 * Replays a trace against a planner as an executor would: after every change it asks, begins the steps, grants what may
 * be granted, and asks again if it granted anything. A pool that is told to unload gives no new leases, lets the running
 * ones end, and is gone after `unload_ms`.
 */
export function simulate(simulation: Simulation): Outcome {
  const { devices, plan, queue_capacity = Infinity, inOrderOfArrival = false, onLease } = simulation;
  const all = simulation.models.map(newPool);
  const pools = new Map(all.map((pool) => [pool.model.id, pool]));
  const poolOf = (id: string): Pool => pools.get(id) as Pool;
  const tasks = inOrder(simulation.trace);
  const events = new Events();
  const outcome: Outcome = { tasks, loads: 0, ended_at: 0 };
  let now = 0;
  let alarm = 0;
  let turns = 0;
  /** By pool: only tasks before this one in the order of arrival are given leases. */
  let lastCalls = new Map<string, number>();

  for (const task of tasks) events.at(task.at_ms, () => arrive(poolOf(task.pool_id), task));
  for (let next = events.next(); next !== undefined; next = events.next()) {
    now = next;
    if (++turns > MOST_TURNS_PER_TASK * tasks.length)
      throw new Error('the simulation does not come to its end');
    while (events.next() === now) events.take().run();
    ask();
    while (grant()) ask();
  }
  outcome.ended_at = now;
  return outcome;

  function arrive(pool: Pool, task: SimulatedTask): void {
    if (pool.waiting.length >= queue_capacity) return;
    pool.waiting.push(task);
    pool.oldest = oldestOf(pool);
    pool.idle_since = undefined;
  }

  function ask(): void {
    const answer = plan({ now, devices, pools: all.map((pool) => viewOf(pool, now)) });
    lastCalls = new Map(answer.last_calls.map(({ pool_id, before_sequence }) => [pool_id, before_sequence]));
    for (const step of answer.steps) {
      const pool = poolOf(step.pool_id);
      enter(pool, step.do === 'load' ? 'loading' : 'unloading');
      if (step.do === 'unload') unloadWhenFree(pool);
      else {
        outcome.loads++;
        events.at(now + pool.model.load_ms, () => loaded(pool));
      }
    }
    const mine = ++alarm;
    const { look_again_in_ms } = answer;
    if (look_again_in_ms !== undefined)
      events.at(
        now + look_again_in_ms,
        () => {},
        () => alarm === mine,
      );
  }

  function grant(): boolean {
    let isGranted = false;
    for (let task = next(); task; task = next()) {
      lease(poolOf(task.pool_id), task);
      isGranted = true;
    }
    return isGranted;
  }

  function next(): SimulatedTask | undefined {
    if (inOrderOfArrival) {
      const oldest = all
        .flatMap(({ waiting }) => waiting[0] ?? [])
        .toSorted((a, b) => a.sequence - b.sequence)[0];
      return oldest && hasSlot(poolOf(oldest.pool_id)) ? oldest : undefined;
    }
    for (const pool of all) {
      if (!hasSlot(pool)) continue;
      const before = lastCalls.get(pool.model.id) ?? Infinity;
      const may = pool.waiting.filter(({ sequence }) => sequence < before);
      const task = may.find(({ priority }) => priority === 'interactive') ?? may[0];
      if (task) return task;
    }
    return undefined;
  }

  function lease(pool: Pool, task: SimulatedTask): void {
    const { sequence } = task;
    onLease?.(
      task,
      all.flatMap(({ waiting }) => waiting),
      all.map((one) => viewOf(one, now)),
    );
    for (const passed of passedBy(all, pool, sequence)) {
      passed.passes.note(now, sequence);
      for (const one of passed.waiting) {
        if (one.sequence >= sequence) break;
        one.first_passed_at ??= now;
        one.last_passed_at = now;
      }
    }
    pool.waiting.splice(pool.waiting.indexOf(task), 1);
    pool.oldest = oldestOf(pool);
    pool.running.push(task);
    task.granted_at = now;
    events.at(now + task.run_ms, () => ended(pool, task));
  }

  function ended(pool: Pool, task: SimulatedTask): void {
    pool.running.splice(pool.running.indexOf(task), 1);
    if (pool.running.length > 0) return;
    if (pool.waiting.length === 0) pool.idle_since = now;
    if (pool.state === 'unloading') unloadWhenFree(pool);
  }

  function loaded(pool: Pool): void {
    enter(pool, 'loaded');
    pool.idle_since = pool.waiting.length === 0 ? now : undefined;
  }

  function unloadWhenFree(pool: Pool): void {
    if (pool.running.length === 0) events.at(now + pool.model.unload_ms, () => enter(pool, 'cold'));
  }

  function enter(pool: Pool, state: Pool['state']): void {
    pool.state = state;
    pool.since = now;
  }
}

function newPool(model: SimulatedModel): Pool {
  return {
    model,
    state: 'cold',
    since: 0,
    idle_since: undefined,
    memory_bytes: model.memory_bytes,
    can_load: true,
    oldest: undefined,
    waiting: [],
    running: [],
    passes: new Passes(),
  };
}

function inOrder(trace: readonly TraceTask[]): SimulatedTask[] {
  return trace
    .toSorted((a, b) => a.at_ms - b.at_ms)
    .map((task, sequence) => ({
      ...task,
      sequence,
      granted_at: undefined,
      first_passed_at: undefined,
      last_passed_at: undefined,
    }));
}

function oldestOf({ waiting: [task] }: Pool): SwapPool['oldest'] {
  return task && { sequence: task.sequence, accepted_at: task.at_ms };
}

function hasSlot({ state, running, model }: Pool): boolean {
  return state === 'loaded' && running.length < model.slots;
}

function viewOf(pool: Pool, now: number): SwapPool {
  const { model, state, since, waiting, running, passes, oldest, idle_since } = pool;
  return {
    id: model.id,
    state,
    since,
    memory_bytes: model.memory_bytes,
    load_ms: model.load_ms,
    unload_ms: model.unload_ms,
    waiting: waiting.length,
    oldest,
    waiting_work_ms: waiting.reduce((sum, { run_ms }) => sum + run_ms, 0) / model.slots,
    leases: running.length,
    running_ms: running.reduce(
      (most, { granted_at = now, run_ms }) => Math.max(most, granted_at + run_ms - now),
      0,
    ),
    passed_over_since: passes.since(oldest),
    idle_since,
    pinned: model.pinned ?? false,
    can_load: true,
    idle_ttl_ms: model.idle_ttl_ms,
  };
}

interface Event {
  at: number;
  sequence: number;
  run: () => void;
  isDue: () => boolean;
}

/** What happens when: by time, then in the order in which it was arranged. */
class Events {
  readonly #heap: Event[] = [];
  #sequence = 0;

  at(at: number, run: () => void, isDue: () => boolean = () => true): void {
    const heap = this.#heap;
    let place = heap.push({ at, sequence: this.#sequence++, run, isDue }) - 1;
    while (place > 0) {
      const above = (place - 1) >> 1;
      if (!isBefore(heap[place], heap[above])) break;
      swap(heap, place, above);
      place = above;
    }
  }

  /** When the next one is. */
  next(): number | undefined {
    while (this.#heap[0] && !this.#heap[0].isDue()) this.take();
    return this.#heap[0]?.at;
  }

  take(): Event {
    const heap = this.#heap;
    swap(heap, 0, heap.length - 1);
    const event = heap.pop() as Event;
    let place = 0;
    for (;;) {
      let below = 2 * place + 1;
      if (isBefore(heap[below + 1], heap[below])) below++;
      if (!isBefore(heap[below], heap[place])) break;
      swap(heap, place, below);
      place = below;
    }
    return event;
  }
}

function isBefore(one: Event | undefined, other: Event | undefined): boolean {
  if (!one || !other) return false;
  return one.at < other.at || (one.at === other.at && one.sequence < other.sequence);
}

function swap(heap: Event[], one: number, other: number): void {
  [heap[one], heap[other]] = [heap[other] as Event, heap[one] as Event];
}
