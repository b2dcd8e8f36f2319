import assert from 'node:assert/strict';
import fc from 'fast-check';
import { MemoryTaskLog } from '../../src/streams/memory-log.ts';
import type { TaskLog } from '../../src/streams/task-log.ts';
import type { TaskRequest } from '../../src/contract/generated/types.ts';
import { failure, TaskchartError } from '../../src/errors.ts';
import { SimulatedClock } from '../helpers/simulated-clock.ts';
import { EPOCH, type Disk } from './kept.ts';
import { createRig, type Rig } from './rig.ts';
import type { ScriptedEngine } from './scripted-engine.ts';

/** One thing that happens; `nth` picks a task, a run or a reader among those there are. */
export type Step =
  | { do: 'submit' | 'urgent' | 'batch' | 'twins' | 'crash' | 'close' | 'drain' }
  | { do: 'cancel' | 'cancel twice' | 'repost' | 'token' | 'finish' | 'fail' | 'break'; nth: number }
  | { do: 'read' | 'leave'; nth: number }
  | { do: 'wait'; ms: number }
  | { do: 'hold on' | 'let go' | 'unload' | 'reload' };

const nth = fc.nat(6);

function stepsOf(crashes: Step[]): fc.Arbitrary<Step> {
  return fc.oneof(
    {
      weight: 7,
      arbitrary: fc.constantFrom<Step>(
        { do: 'submit' },
        { do: 'submit' },
        { do: 'batch' },
        { do: 'urgent' },
        { do: 'twins' },
      ),
    },
    {
      weight: 13,
      arbitrary: fc.record({
        do: fc.constantFrom(
          'cancel',
          'cancel twice',
          'repost',
          'token',
          'token',
          'finish',
          'fail',
          'break',
          'read',
          'leave',
        ),
        nth,
      }),
    },
    {
      weight: 3,
      // A metrics period, a deadline, the grace of a reader.
      arbitrary: fc.record({ do: fc.constant('wait'), ms: fc.constantFrom(1, 1000, 2000, 10_000) }),
    },
    { weight: 2, arbitrary: fc.constantFrom<Step>({ do: 'hold on' }, { do: 'let go' }) },
    { weight: 1, arbitrary: fc.constantFrom<Step>({ do: 'unload' }, { do: 'reload' }) },
    ...crashes.map((step) => ({ weight: 1, arbitrary: fc.constant(step) })),
  );
}

export const steps = stepsOf([{ do: 'crash' }]);
/** Where no engine dies, budgets have to add up. */
export const stepsWithoutCrash = stepsOf([]);

/** The last thing to happen, if anything has to: what comes after it is refused. */
export const ending: fc.Arbitrary<Step | undefined> = fc.constantFrom(
  { do: 'close' },
  { do: 'drain' },
  undefined,
);

/** How an engine goes on where a run was lost, if it can. */
export const features: fc.Arbitrary<ScriptedEngine['features']> = fc.constantFrom(
  {},
  { deterministic: true },
  { resume: true },
);

export const URGENT_MS = 2000;
const MAX_TOKENS = 8;
const BUDGET = 1_000_000;

export interface RaceOptions {
  slots: number;
  log?: TaskLog;
  /** Both store and log are there, and outlive a process. */
  disk?: Disk;
  features?: ScriptedEngine['features'];
}

export class Race {
  rig: Rig;
  /** Every id that was answered with 202. */
  readonly ids: string[] = [];
  /** Length of a task's log when a cancel of it had resolved. */
  readonly silent = new Map<string, number>();
  readonly #options: RaceOptions;
  #log: TaskLog;
  readonly #pending: Promise<unknown>[] = [];
  #readers: (() => void)[] = [];
  #lastId = 0;
  #processes = 0;

  constructor(options: RaceOptions) {
    this.#options = options;
    this.#log = options.log ?? new MemoryTaskLog();
    this.rig = this.#start(EPOCH);
  }

  get #engine(): ScriptedEngine | undefined {
    return this.rig.engines.get('scripted');
  }

  take(step: Step): void {
    const { orchestrator, clock, pool } = this.rig;
    const engine = this.#engine;
    const live = engine?.live ?? [];
    switch (step.do) {
      case 'submit':
        return this.#submit({ task_id: this.#newId() });
      case 'urgent':
        return this.#submit({ task_id: this.#newId(), deadline_ms: URGENT_MS });
      case 'batch':
        return this.#submit({ task_id: this.#newId(), priority: 'batch' });
      case 'twins': {
        const task_id = this.#newId();
        this.#submit({ task_id });
        return this.#submit({ task_id });
      }
      case 'repost': {
        const record = orchestrator.record(this.#pick(this.ids, step.nth) ?? '');
        if (record) this.#submit(record.request);
        return;
      }
      case 'cancel':
        return this.#cancel(step.nth);
      case 'cancel twice':
        this.#cancel(step.nth);
        return this.#cancel(step.nth);
      case 'read': {
        const record = orchestrator.record(this.#pick(this.ids, step.nth) ?? '');
        if (record) this.#readers.push(orchestrator.attachReader(record));
        return;
      }
      case 'leave':
        return this.#pick(this.#readers, step.nth)?.();
      case 'token':
        return this.#pick(live, step.nth)?.token();
      case 'finish':
        return this.#pick(live, step.nth)?.finish();
      case 'fail':
        return this.#pick(live, step.nth)?.fail();
      case 'break':
        return this.#pick(live, step.nth)?.fail(failure('INVALID_PARAMS', 'scripted'));
      case 'crash':
        return engine?.crash();
      case 'wait':
        return clock.advance(step.ms);
      case 'hold on':
      case 'let go':
        if (engine) engine.letsGo = step.do === 'let go';
        return;
      case 'close':
        this.#pending.push(orchestrator.close(0));
        return;
      case 'drain':
        return pool.engines.drain(1000);
      case 'unload':
        return pool.engines.unload('swap');
      case 'reload':
        return this.#reload();
    }
  }

  /** Another model behind the same name; refused where the pool cannot now. */
  #reload(): void {
    try {
      this.rig.pool.engines.reload(`weights ${this.#lastId++}`, 1000).catch(() => undefined);
    } catch (error) {
      assert.ok(error instanceof TaskchartError);
    }
  }

  /** Another process takes over what is on disk: after an orderly end of this one, or a sudden one. */
  async restart(how: 'orderly' | 'sudden'): Promise<void> {
    const { clock } = this.rig;
    this.take({ do: 'let go' });
    if (how === 'orderly') {
      await this.rig.close();
      this.#checkClosed();
    }
    this.#readers = [];
    this.rig = this.#start(clock.wall() + 100);
    await this.rig.orchestrator.recovered;
    await this.rig.ready();
  }

  /** Brings everything to its end, whatever was going on. */
  async finish(turn: () => Promise<unknown>): Promise<void> {
    const { orchestrator, clock, pool } = this.rig;
    const answers = { all: false };
    this.take({ do: 'let go' });
    const over = (): boolean =>
      this.ids.every((id) => ['ended', 'error'].includes(this.rig.record(id).state)) &&
      orchestrator.tasks.inFlight === 0 &&
      pool.leases === 0;
    for (let round = 0; round < 500 && !(answers.all && over()); round++) {
      for (const run of this.#engine?.live ?? []) run.finish();
      clock.advance(500);
      await turn();
      if (round === 0) void Promise.allSettled(this.#pending).then(() => (answers.all = true));
    }
    if (!answers.all) throw new Error('something was never answered');
    // A task is over before a distant log has taken its last event.
    for (let round = 0; round < 5; round++) await turn();
  }

  async check(): Promise<void> {
    const { rig } = this;
    assert.deepEqual(this.#engine?.shouts ?? [], []);
    assert.equal(rig.pool.leases, 0, 'leases');
    assert.equal(rig.orchestrator.tasks.inFlight, 0, 'flights');
    assert.equal(rig.pool.queue_depth, 0, 'queue');
    const ids = [...new Set(this.ids)];
    for (const id of ids) await this.#checkLog(id);
    assert.ok(!rig.observations.some(({ type }) => type === 'child.crashed'));
    this.#checkSessions(ids);
    const told = (type: string): string[] =>
      rig.observations.flatMap((seen) => (seen.type === type && 'record' in seen ? [seen.record.id] : []));
    const closed = told('task.closed');
    assert.equal(new Set(closed).size, closed.length, 'closed twice');
    if (this.#processes > 1) return;
    assert.deepEqual(told('task.admitted').toSorted(), ids.toSorted(), 'admitted once');
    assert.deepEqual(closed.toSorted(), ids.toSorted(), 'closed once');
    // Where each grant has to ask a distant log first, the answers decide who starts first.
    if (this.#log instanceof MemoryTaskLog) this.#checkOrder(told('task.admitted'));
  }

  /** Budgets add up: where no engine was lost, which would forgive what was spent. */
  checkBudgets(): void {
    for (const [session_id, ids] of this.#bySession([...new Set(this.ids)])) {
      const spent = ids.reduce(
        (sum, id) => sum + Math.min(MAX_TOKENS, this.rig.record(id).context.usage.tokens_out),
        0,
      );
      const { turns, tokens_budget_remaining } = this.rig.orchestrator.sessions.info(session_id);
      assert.equal(BUDGET - (tokens_budget_remaining ?? 0), spent, 'spent');
      assert.equal(turns, ids.length, 'turns');
    }
  }

  /** Nothing is left of the process. */
  async close(turn: () => Promise<unknown> = async () => undefined): Promise<void> {
    const progress = { isClosed: false };
    const closing = this.rig.close().finally(() => (progress.isClosed = true));
    while (!progress.isClosed) {
      await turn();
      await new Promise((resolve) => setImmediate(resolve));
    }
    await closing;
    this.#checkClosed();
  }

  #checkClosed(): void {
    for (const leave of this.#readers) leave();
    assert.equal(this.rig.clock.pending, 0, 'timers');
    assert.equal(this.rig.orchestrator.state, 'closed');
  }

  #start(epoch: number): Rig {
    const { slots, disk, features = {} } = this.#options;
    const ports = disk ? disk.open() : { log: this.#log };
    this.#log = ports.log;
    this.#processes++;
    return createRig({
      slots,
      ports,
      clock: new SimulatedClock(epoch),
      engine: (engine) => (engine.features = features),
      spec: { model_ref: 'weights' },
      settings: {
        sessions: {
          ttl_ms: 100_000_000,
          max_turns: null,
          budgets: { tokens: BUDGET, time_ms: null, cost: null },
          cost_per_output_token: 0,
        },
      },
    });
  }

  async #checkLog(id: string): Promise<void> {
    const events = await this.rig.log(id);
    const text = `${id}: ${events.map(({ type }) => type).join(' ')}`;
    assert.deepEqual(
      events.map((event) => event.id),
      events.map((_, index) => index),
      text,
    );
    assert.equal(events[0]?.type, 'started', text);
    assert.equal(events.filter(({ type }) => type === 'started').length, 1, text);
    assert.equal(events.filter(({ type }) => type === 'end' || type === 'error').length, 1, text);
    assert.equal(events.at(-1)?.type, this.rig.record(id).state === 'ended' ? 'end' : 'error', text);
    const tokens = events.flatMap((event) => (event.type === 'token' ? [event.data] : []));
    assert.deepEqual(
      tokens.map(({ i }) => i),
      tokens.map((_, index) => index),
      text,
    );
    assert.equal(tokens.map(({ t }) => t).join(''), tokens.map((_, i) => ` s${i}`).join(''), text);
    assert.equal(this.rig.record(id).context.usage.tokens_out, tokens.length, text);
    const length = this.silent.get(id);
    if (length !== undefined)
      assert.equal(events.length, length, `${id} was appended to after its cancel: ${text}`);
  }

  #checkSessions(ids: string[]): void {
    // A closed process has forgotten them.
    if (this.rig.orchestrator.state === 'closed') return;
    for (const [session_id] of this.#bySession(ids)) {
      const { data } = this.rig.orchestrator.sessions.factOf(session_id);
      assert.equal((data as { running: number } | undefined)?.running, 0, 'a reservation is left');
    }
  }

  #bySession(ids: string[]): Map<string, string[]> {
    return Map.groupBy(ids, (id) => this.rig.record(id).session_id);
  }

  /** Within a class, first grants come in the order of admission. */
  #checkOrder(admitted: string[]): void {
    const granted = new Set<string>();
    for (const seen of this.rig.observations)
      if (seen.type === 'task.moved' && seen.to === 'placed') granted.add(seen.record.id);
    for (const priority of ['interactive', 'batch'])
      assert.deepEqual(
        [...granted].filter((id) => this.rig.record(id).priority === priority),
        admitted.filter((id) => granted.has(id) && this.rig.record(id).priority === priority),
      );
  }

  #newId(): string {
    return `0198c0de-0000-7000-8000-${String(++this.#lastId).padStart(12, '0')}`;
  }

  #submit(fields: Partial<TaskRequest>): void {
    const session_id = `0198c0de-0000-7000-8000-00000000000${(this.#lastId % 3) + 10 === 10 ? 'a' : 'b'}`;
    const { rig } = this;
    this.#pending.push(
      rig.submit({ session_id, max_tokens: MAX_TOKENS, ...fields }).then(
        ({ task_id }) => void this.ids.push(task_id),
        (error: { code?: string; status?: number }) => {
          // One that is over has no texts any more, so that it cannot be posted again from its record. A process that
          // has ended suddenly cannot know what it has stored.
          const isCut = rig !== this.rig && error.code === 'INTERNAL';
          const isRefused = error.code === 'POOL_UNREADY' || error.code === 'DEADLINE_UNMET';
          if (!isRefused && error.status !== 409 && !isCut) throw error;
        },
      ),
    );
    void this.#pending.at(-1)?.catch(() => undefined);
  }

  #cancel(nth: number): void {
    const id = this.#pick(this.ids, nth);
    if (id === undefined) return;
    const log = this.#log;
    this.#pending.push(
      this.rig.orchestrator.cancel(id).then(async () => {
        if (!this.silent.has(id) && this.#log === log) this.silent.set(id, await log.tail(id));
      }),
    );
  }

  #pick<T>(from: readonly T[], nth: number): T | undefined {
    return from.length === 0 ? undefined : from[nth % from.length];
  }

  /** Failures of what was asked for on the way. */
  async failures(): Promise<unknown[]> {
    const answers = await Promise.allSettled(this.#pending);
    return answers.flatMap((answer) => (answer.status === 'rejected' ? [answer.reason] : []));
  }
}
