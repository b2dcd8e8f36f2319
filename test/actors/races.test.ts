import assert from 'node:assert/strict';
import fc from 'fast-check';
import test from 'ava';
import { MemoryTaskLog } from '../../src/streams/memory-log.ts';
import type { AppendResult, Cursor, LogBatch, NewLogEvent, TaskLog } from '../../src/streams/task-log.ts';
import { Disk } from './kept.ts';
import { ending, features, Race, steps, stepsWithoutCrash } from './race.ts';
import { settle } from './rig.ts';

// What failed is worth more than which example it was.
fc.configureGlobal({ includeErrorInReport: true });

const slots = fc.integer({ min: 1, max: 3 });

/** How far the event loop gets between two steps: from not at all to wherever it can. */
const turns = fc.constantFrom(0, 1, 2, 3, 5, 20);

async function brought(race: Race, turn: () => Promise<unknown>): Promise<void> {
  await race.finish(turn);
  assert.deepEqual(await race.failures(), []);
  await race.check();
  await race.close(turn);
}

test('whatever cancels, ends, deadlines, readers, crashes and duplicates meet, each task ends once and nothing is left', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      slots,
      features,
      fc.array(fc.tuple(steps, turns), { minLength: 5, maxLength: 40 }),
      ending,
      fc.array(fc.tuple(steps, turns), { maxLength: 5 }),
      async (slots, features, before, last, after) => {
        const race = new Race({ slots, features });
        await race.rig.ready();
        for (const [step, pause] of before) {
          race.take(step);
          await settle(pause);
        }
        if (last) race.take(last);
        for (const [step, pause] of after) {
          race.take(step);
          await settle(pause);
        }
        await brought(race, () => settle(30));
      },
    ),
    { numRuns: 300 },
  );
  t.pass();
});

/** A log that lives elsewhere: each answer comes when the scheduler says so. */
class DistantLog implements TaskLog {
  readonly isDurable = false;
  readonly #log = new MemoryTaskLog();
  readonly #scheduler: fc.Scheduler;

  constructor(scheduler: fc.Scheduler) {
    this.#scheduler = scheduler;
  }

  async append(task_id: string, cursor: Cursor, events: readonly NewLogEvent[]): Promise<AppendResult> {
    await this.#scheduler.schedule(Promise.resolve(), 'append');
    const result = this.#log.append(task_id, cursor, events);
    await this.#scheduler.schedule(Promise.resolve(), 'appended');
    return result;
  }

  async tail(task_id: string): Promise<Cursor> {
    await this.#scheduler.schedule(Promise.resolve(), 'tail');
    return this.#log.tail(task_id);
  }

  isClosed(task_id: string): boolean {
    return this.#log.isClosed(task_id);
  }

  read(task_id: string, after: number | undefined, signal: AbortSignal): AsyncIterable<LogBatch> {
    return this.#log.read(task_id, after, signal);
  }

  drop(task_id: string): void {
    this.#log.drop(task_id);
  }

  close(): Promise<void> {
    return this.#log.close();
  }
}

test('the same holds for a log that answers late and in any order', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      slots,
      features,
      fc.scheduler(),
      fc.array(fc.tuple(steps, fc.nat(3)), { minLength: 5, maxLength: 25 }),
      ending,
      async (slots, features, scheduler, before, last) => {
        const race = new Race({ slots, features, log: new DistantLog(scheduler) });
        await race.rig.ready();
        const answer = async (count: number): Promise<void> => {
          await settle(5);
          for (let given = 0; given < count && scheduler.count() > 0; given++) await scheduler.waitOne();
        };
        for (const [step, answers] of before) {
          race.take(step);
          await answer(answers);
        }
        if (last) race.take(last);
        const checking = brought(race, () => answer(20));
        const over = Symbol('over');
        const checked = checking.then(
          () => over,
          () => over,
        );
        while ((await Promise.race([checked, answer(20)])) !== over)
          await new Promise((resolve) => setImmediate(resolve));
        await checking;
      },
    ),
    { numRuns: 150 },
  );
  t.pass();
});

const processes = fc.array(
  fc.tuple(
    fc.array(fc.tuple(stepsWithoutCrash, turns), { minLength: 3, maxLength: 15 }),
    fc.constantFrom('orderly' as const, 'sudden' as const),
  ),
  { minLength: 1, maxLength: 3 },
);

test('over any number of processes each task ends once, streams go on where they were, and budgets add up', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      slots,
      fc.constantFrom({ deterministic: true }, { resume: true }),
      processes,
      fc.array(fc.tuple(stepsWithoutCrash, turns), { maxLength: 10 }),
      async (slots, features, lives, last) => {
        const race = new Race({ slots, features, disk: new Disk() });
        await race.rig.ready();
        for (const [steps, how] of lives) {
          for (const [step, pause] of steps) {
            race.take(step);
            await settle(pause);
          }
          await race.restart(how);
        }
        for (const [step, pause] of last) {
          race.take(step);
          await settle(pause);
        }
        await race.finish(() => settle(30));
        assert.deepEqual(await race.failures(), []);
        await race.check();
        race.checkBudgets();
        await race.close();
      },
    ),
    { numRuns: 150 },
  );
  t.pass();
});
