import test, { type ExecutionContext } from 'ava';
import { createSyntheticEngine, type SyntheticSettings } from '../../src/engines/synthetic.ts';
import type { TaskRequest } from '../../src/contract/generated/types.ts';
import type { LogEvent } from '../../src/streams/task-log.ts';
import { createRig, settle, type Rig } from './rig.ts';

/** Crashes after so many tokens, vectors or scores; a number for each of its first lives. */
async function run(
  crashes: number[],
  fields: Partial<TaskRequest> = {},
): Promise<{ rig: Rig; events: readonly LogEvent[]; id: string }> {
  const settings: Partial<SyntheticSettings> = { tokens_per_second: 100, first_token_ms: 50 };
  const rig = createRig({
    factory: (host, spec, clock) => {
      const engine = createSyntheticEngine({
        model_id: 'synthetic',
        slots: spec.slots,
        ctx: 8192,
        settings,
        clock,
        host: { ...host, lost: (loss) => (plan(), host.lost(loss)) },
      });
      const { settings: live } = engine as unknown as { settings: SyntheticSettings };
      const plan = (): void => {
        const at_token = crashes.shift();
        live.fail = at_token === undefined ? 'never' : { at_token };
      };
      plan();
      return engine;
    },
  });
  await ticked(rig, () => rig.pool.isReady);
  const id = (await rig.submit({ max_tokens: 12, ...fields })).task_id;
  await ticked(rig, () => ['ended', 'error'].includes(rig.record(id).state));
  return { rig, id, events: await rig.log(id) };
}

async function ticked(rig: Rig, condition: () => boolean): Promise<void> {
  for (let time = 0; !condition(); time++) {
    if (time > 5000) throw new Error(`waited in vain for ${condition.toString()}`);
    await settle();
    // As fast as it can, the engine waits for turns of the real event loop.
    await new Promise((resolve) => setImmediate(resolve));
    rig.clock.advance(10);
  }
}

const textOf = (events: readonly LogEvent[]): string =>
  events.map((event) => (event.type === 'token' ? event.data.t : '')).join('');

const MODES: { name: string; fields: Partial<TaskRequest> }[] = [
  { name: 'replay', fields: {} },
  { name: 'resume', fields: { determinism: 'best_effort' } },
];
for (const { name, fields } of MODES)
  test(`${name}: wherever the engine dies, readers get what an undisturbed run would have given`, async (t) => {
    const undisturbed = await run([], fields);
    t.teardown(undisturbed.rig.close);
    for (const crashes of [[1], [5], [11], [4, 9], [6, 3], [12], [11, 12]]) {
      const disturbed = await run([...crashes], fields);
      t.is(textOf(disturbed.events), textOf(undisturbed.events), `crashes at ${crashes}`);
      t.deepEqual(
        disturbed.events.flatMap((event) => (event.type === 'token' ? [event.data.i] : [])),
        Array.from({ length: 12 }, (_, i) => i),
      );
      t.like(disturbed.events.at(-1), { type: 'end', data: { tokens_out: 12, finish_reason: 'limit' } });
      await disturbed.rig.close();
      t.is(disturbed.rig.clock.pending, 0);
    }
  });

const STOPPED: Partial<TaskRequest> = { determinism: 'best_effort', sampling: { stop: ['t6 t7'] } };

async function sameAsUndisturbed(t: ExecutionContext, crash: number): Promise<void> {
  const undisturbed = await run([], STOPPED);
  const disturbed = await run([crash], STOPPED);
  t.teardown(() => Promise.all([undisturbed.rig.close(), disturbed.rig.close()]));
  t.is(textOf(disturbed.events), textOf(undisturbed.events));
  t.like(disturbed.events.at(-1), { data: { finish_reason: 'stop' } });
}

test('resume: a stop string that comes after the crash still stops', (t) => sameAsUndisturbed(t, 5));

test('resume: a stop string that is cut in two by the crash still stops', (t) => sameAsUndisturbed(t, 7));

test('an engine that always dies at the same place is given up after its continuations', async (t) => {
  const { rig, events, id } = await run([6, 6, 6, 6]);
  t.teardown(rig.close);
  t.is(textOf(events), ' t0 t1 t2 t3 t4 t5');
  t.like(events.at(-1), { type: 'error', data: { code: 'WORKER_RESET', retriable: true } });
  t.is(rig.record(id).context.attempts, 3);
});

for (const workload of ['embedding', 'rerank'] as const)
  test(`${workload}: results that were lost in the middle come once, and are those of an undisturbed run`, async (t) => {
    const inputs = ['a dog', 'a cat', 'a bird', 'a fish', 'a dog and a cat'];
    const fields = { workload, prompt: 'a dog', inputs };
    const resultsOf = (events: readonly LogEvent[]): unknown[] =>
      events.filter(({ type }) => type === workload).map(({ data }) => data);
    const undisturbed = await run([], fields);
    const disturbed = await run([2, 4], fields);
    t.teardown(() => Promise.all([undisturbed.rig.close(), disturbed.rig.close()]));
    t.is(resultsOf(disturbed.events).length, 5);
    t.deepEqual(resultsOf(disturbed.events), resultsOf(undisturbed.events));
    t.is(disturbed.events.at(-1)?.type, 'end');
  });
