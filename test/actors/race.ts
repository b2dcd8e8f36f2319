import assert from 'node:assert/strict';
import fc from 'fast-check';
import { MemoryTaskLog } from '../../src/streams/memory-log.ts';
import type { TaskLog } from '../../src/streams/task-log.ts';
import type { TaskRequest } from '../../src/contract/generated/types.ts';
import { failure } from '../../src/errors.ts';
import { createRig, type Rig } from './rig.ts';

/** One thing that happens; `nth` picks a task or a run among those there are. */
export type Step =
  | { do: 'submit' | 'batch' | 'twins' | 'crash' | 'close' | 'drain' }
  | { do: 'cancel' | 'cancel twice' | 'repost' | 'token' | 'finish' | 'fail' | 'break'; nth: number }
  | { do: 'wait'; ms: number }
  | { do: 'hold on' | 'let go' };

const nth = fc.nat(6);

export const steps: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom<Step>({ do: 'submit' }, { do: 'batch' }, { do: 'twins' }) },
  {
    weight: 12,
    arbitrary: fc.record({
      do: fc.constantFrom('cancel', 'cancel twice', 'repost', 'token', 'token', 'finish', 'fail', 'break'),
      nth,
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('wait'), ms: fc.constantFrom(1, 1000, 2500) }) },
  { weight: 2, arbitrary: fc.constantFrom<Step>({ do: 'hold on' }, { do: 'let go' }) },
  { weight: 1, arbitrary: fc.constant<Step>({ do: 'crash' }) },
);

/** The last thing to happen, if anything has to: what comes after it is refused. */
export const ending: fc.Arbitrary<Step | undefined> = fc.constantFrom(
  { do: 'close' },
  { do: 'drain' },
  undefined,
);

export class Race {
  readonly rig: Rig;
  /** Every id that was answered with 202. */
  readonly ids: string[] = [];
  /** Length of a task's log when a cancel of it had resolved. */
  readonly silent = new Map<string, number>();
  readonly #log: TaskLog;
  readonly #pending: Promise<unknown>[] = [];
  #lastId = 0;

  constructor(slots: number, log: TaskLog) {
    this.#log = log;
    this.rig = createRig({ slots, ports: { log } });
  }

  take(step: Step): void {
    const { engine, orchestrator, clock, pool } = this.rig;
    switch (step.do) {
      case 'submit':
        return this.#submit({ task_id: this.#newId() });
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
      case 'token':
        return this.#pick(engine.live, step.nth)?.token();
      case 'finish':
        return this.#pick(engine.live, step.nth)?.finish();
      case 'fail':
        return this.#pick(engine.live, step.nth)?.fail();
      case 'break':
        return this.#pick(engine.live, step.nth)?.fail(failure('INVALID_PARAMS', 'scripted'));
      case 'crash':
        return engine.crash();
      case 'wait':
        return clock.advance(step.ms);
      case 'hold on':
        engine.letsGo = false;
        return;
      case 'let go':
        engine.letsGo = true;
        for (const run of engine.live) if (run.isAborted) run.finish();
        return;
      case 'close':
        this.#pending.push(orchestrator.close(0));
        return;
      case 'drain':
        return pool.drain(1000);
    }
  }

  /** Brings everything to its end, whatever was going on. */
  async finish(turn: () => Promise<unknown>): Promise<void> {
    const { engine, orchestrator, clock, pool } = this.rig;
    const answers = { all: false };
    this.take({ do: 'let go' });
    const over = (): boolean =>
      this.ids.every((id) => ['ended', 'error'].includes(this.rig.record(id).state)) &&
      orchestrator.tasks.inFlight === 0 &&
      pool.leases === 0;
    for (let round = 0; round < 500 && !(answers.all && over()); round++) {
      for (const run of engine.live) run.finish();
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
    assert.deepEqual(rig.engine.shouts, []);
    assert.equal(rig.pool.leases, 0, 'leases');
    assert.equal(rig.orchestrator.tasks.inFlight, 0, 'flights');
    assert.equal(rig.pool.queue_depth, 0, 'queue');
    const ids = [...new Set(this.ids)];
    for (const id of ids) await this.#checkLog(id);
    const told = (type: string): string[] =>
      rig.observations.flatMap((seen) => (seen.type === type && 'record' in seen ? [seen.record.id] : []));
    assert.deepEqual(told('task.admitted').toSorted(), ids.toSorted(), 'admitted once');
    assert.deepEqual(told('task.closed').toSorted(), ids.toSorted(), 'closed once');
    assert.ok(!rig.observations.some(({ type }) => type === 'child.crashed'));
    // Where each grant has to ask a distant log first, the answers decide who starts first.
    if (this.#log instanceof MemoryTaskLog) this.#checkOrder(told('task.admitted'));
  }

  async #checkLog(id: string): Promise<void> {
    const events = await this.rig.log(id);
    const text = events.map(({ type }) => type).join(' ');
    assert.deepEqual(
      events.map((event) => event.id),
      events.map((_, index) => index),
      text,
    );
    assert.equal(events[0]?.type, 'started', text);
    assert.equal(events.filter(({ type }) => type === 'started').length, 1, text);
    assert.equal(events.filter(({ type }) => type === 'end' || type === 'error').length, 1, text);
    assert.equal(events.at(-1)?.type, this.rig.record(id).state === 'ended' ? 'end' : 'error', text);
    const indices = events.flatMap((event) => (event.type === 'token' ? [event.data.i] : []));
    assert.deepEqual(
      indices,
      indices.map((_, index) => index),
      text,
    );
    const length = this.silent.get(id);
    if (length !== undefined)
      assert.equal(events.length, length, `${id} was appended to after its cancel: ${text}`);
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
    this.#pending.push(
      this.rig.submit(fields).then(
        ({ task_id }) => void this.ids.push(task_id),
        (error: { code?: string }) => {
          if (error.code !== 'POOL_UNREADY') throw error;
        },
      ),
    );
    void this.#pending.at(-1)?.catch(() => undefined);
  }

  #cancel(nth: number): void {
    const id = this.#pick(this.ids, nth);
    if (id === undefined) return;
    this.#pending.push(
      this.rig.orchestrator.cancel(id).then(async () => {
        if (!this.silent.has(id)) this.silent.set(id, await this.#log.tail(id));
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
