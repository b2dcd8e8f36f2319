import assert from 'node:assert/strict';
import test from 'ava';
import { Disk } from './kept.ts';
import { Race, URGENT_MS, type RaceOptions } from './race.ts';
import { settle } from './rig.ts';

type Act = (race: Race) => void;

/** A task runs (0), another one waits behind it (1). */
interface Meeting {
  between: [string, string];
  /** What each of the two does. */
  acts: [Act, Act];
  /** What comes before. */
  given?: Act;
  /** Which of the tasks has a short deadline. */
  urgent?: 0 | 1;
}

const cancel =
  (nth: number): Act =>
  (race) =>
    race.take({ do: 'cancel', nth });
const run =
  (what: 'token' | 'finish' | 'fail'): Act =>
  (race) =>
    race.take({ do: what, nth: 0 });
const crash: Act = (race) => race.take({ do: 'crash' });
const close: Act = (race) => {
  race.take({ do: 'close' });
  race.rig.clock.advance(0);
};
const wait =
  (ms: number): Act =>
  (race) =>
    race.take({ do: 'wait', ms });
const deadline = wait(URGENT_MS);
const read: Act = (race) => race.take({ do: 'read', nth: 0 });
const leave: Act = (race) => race.take({ do: 'leave', nth: 0 });
const streaming = run('token');
/** Its slot comes free: the one behind is granted it. */
const grant = run('finish');

const MEETINGS: Meeting[] = [
  { between: ['a cancel', 'another cancel of the same queued task'], acts: [cancel(1), cancel(1)] },
  { between: ['a cancel', 'another cancel of the same running task'], acts: [cancel(0), cancel(0)] },
  { between: ['a cancel', 'the grant of a slot'], acts: [cancel(1), grant] },
  { between: ['a cancel', 'the first token'], acts: [cancel(0), run('token')] },
  { between: ['a cancel', 'the next token'], acts: [cancel(0), run('token')], given: streaming },
  { between: ['a cancel', 'the end'], acts: [cancel(0), run('finish')] },
  { between: ['a cancel', 'the end of a stream'], acts: [cancel(0), run('finish')], given: streaming },
  { between: ['a cancel', 'a failure before the first token'], acts: [cancel(0), run('fail')] },
  {
    between: ['a cancel', 'a failure in the middle of a stream'],
    acts: [cancel(0), run('fail')],
    given: streaming,
  },
  { between: ['a cancel', 'a crash before the first token'], acts: [cancel(0), crash] },
  { between: ['a cancel', 'a crash in the middle of a stream'], acts: [cancel(0), crash], given: streaming },
  { between: ['a cancel of what waits', 'a crash of what runs'], acts: [cancel(1), crash] },
  { between: ['a deadline', 'the end'], acts: [deadline, run('finish')], urgent: 0 },
  { between: ['a deadline', 'the first token'], acts: [deadline, run('token')], urgent: 0 },
  { between: ['a deadline', 'a crash'], acts: [deadline, crash], given: streaming, urgent: 0 },
  { between: ['a deadline', 'a cancel'], acts: [deadline, cancel(1)], urgent: 1 },
  { between: ['a deadline', 'the grant of a slot'], acts: [deadline, grant], urgent: 1 },
  { between: ['a crash', 'the end'], acts: [crash, run('finish')], given: streaming },
  { between: ['a crash', 'the first token'], acts: [crash, run('token')] },
  { between: ['a crash', 'another failure of the same run'], acts: [crash, run('fail')], given: streaming },
  { between: ['the last reader that leaves', 'the end'], acts: [leave, run('finish')], given: read },
  {
    between: ['the end of a reader’s grace', 'a reader that returns'],
    acts: [wait(10_000), read],
    given: (race) => (read(race), leave(race)),
  },
  {
    between: ['the end of a reader’s grace', 'the end'],
    acts: [wait(10_000), run('finish')],
    given: (race) => (read(race), leave(race)),
  },
  {
    between: ['the end of a reader’s grace', 'a crash'],
    acts: [wait(10_000), crash],
    given: (race) => (streaming(race), read(race), leave(race)),
  },
  { between: ['silence that is too long', 'a token'], acts: [wait(30_000), run('token')], given: streaming },
  { between: ['silence that is too long', 'the end'], acts: [wait(30_000), run('finish')], given: streaming },
  { between: ['a close', 'the first token'], acts: [close, run('token')] },
  { between: ['a close', 'the end'], acts: [close, run('finish')], given: streaming },
  { between: ['a close', 'the grant of a slot'], acts: [close, grant] },
  { between: ['a close', 'a cancel of what runs'], acts: [close, cancel(0)], given: streaming },
  { between: ['a close', 'a cancel of what waits'], acts: [close, cancel(1)] },
  { between: ['a close', 'a crash'], acts: [close, crash], given: streaming },
  { between: ['a close', 'a deadline'], acts: [close, deadline], urgent: 1 },
  { between: ['a close', 'a submit'], acts: [close, (race) => race.take({ do: 'submit' })] },
];

const WAYS: { name: string; options: () => Omit<RaceOptions, 'slots'> }[] = [
  { name: 'nothing can go on', options: () => ({}) },
  { name: 'replay', options: () => ({ features: { deterministic: true } }) },
  { name: 'resume', options: () => ({ features: { resume: true } }) },
  { name: 'durable', options: () => ({ features: { resume: true }, disk: new Disk() }) },
];

for (const { between, acts, given, urgent } of MEETINGS)
  test(`${between[0]} and ${between[1]} arrive in the same turn: one of them wins, once, and nothing is left`, async (t) => {
    for (const { name, options } of WAYS)
      for (const [first, second] of [acts, acts.toReversed()] as [Act, Act][])
        for (const pause of [0, 1, 2, 3, 4, 6]) {
          const race = new Race({ slots: 1, ...options() });
          const { rig } = race;
          await rig.ready();
          for (const nth of [0, 1]) {
            race.take({ do: urgent === nth ? 'urgent' : 'submit' });
            await settle();
          }
          given?.(race);
          await settle();
          first(race);
          await settle(pause);
          second(race);
          const what = `${name}, ${pause} turns between`;
          await rig.orchestrator.recovered;
          if (name === 'durable') {
            await settle();
            await race.restart('orderly');
          }
          await race.finish(() => settle(30));
          assert.deepEqual(await race.failures(), [], what);
          await race.check();
          await race.close();
        }
    t.pass();
  });
