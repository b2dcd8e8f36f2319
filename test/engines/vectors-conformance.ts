import type { ExecutionContext, TestFn } from 'ava';
import type { Engine, EngineOutcome } from '../../src/engines/engine.ts';
import {
  type Fixture,
  type FixtureKind,
  type Subject,
  never,
  promptCall,
  record,
  recordingHost,
} from './conformance.ts';

/** The two workloads whose results come whole. */
export type Workload = 'embedding' | 'rerank';

/** What was told, in the order it was: places and vectors, or places and scores. */
export interface RecordedResults {
  outcome: EngineOutcome;
  places: number[];
  results: number[][];
}

/** Embeds the inputs, or ranks them against a query; shouts when something comes after the end. */
export async function recordResults(
  engine: Engine,
  workload: Workload,
  inputs: readonly string[],
  { signal = never, onResult }: { signal?: AbortSignal; onResult?: (count: number) => void } = {},
): Promise<RecordedResults> {
  const places: number[] = [];
  const results: number[][] = [];
  const ended: { outcome?: EngineOutcome } = {};
  const tell = (place: number, result: readonly number[]): void => {
    if (ended.outcome !== undefined) throw new Error('a result came after the outcome');
    if (signal.aborted) throw new Error('a result came after the abort');
    places.push(place);
    results.push([...result]);
    onResult?.(places.length);
  };
  const call = { task_id: 'task', lease: 1 };
  const outcome = await (workload === 'embedding'
    ? engine.embed?.({ ...call, inputs }, tell, signal)
    : engine.rerank?.(
        { ...call, query: 'a little dog', documents: inputs },
        (index, score) => tell(index, [score]),
        signal,
      ));
  if (outcome === undefined) throw new Error(`the engine has no verb for ${workload}`);
  ended.outcome = outcome;
  return { outcome, places, results };
}

export function failureOf(t: ExecutionContext, { outcome }: { outcome: EngineOutcome }) {
  if (outcome.kind !== 'failed') throw new Error(`expected a failure, got ${outcome.kind}`);
  t.is(outcome.failure.message.includes('\n'), false);
  return outcome.failure;
}

const INPUTS = ['the moon', 'a little dog', 'once there was a dog', 'a little dog'];
const MANY = Array.from({ length: 300 }, (_, i) => `text number ${i} is about a dog`);

/** What every adapter that lists the workload has to do. */
export function vectorsConformance(test: TestFn, workload: Workload, subject: Subject): void {
  type Loaded = { engine: Engine; fixture: Fixture; host: ReturnType<typeof recordingHost> };
  const open = new Set<Fixture>();
  const load = async (kind: FixtureKind): Promise<Loaded> => {
    const host = recordingHost();
    const fixture = await subject.start(kind, host);
    open.add(fixture);
    await fixture.engine.load(never);
    return { engine: fixture.engine, fixture, host };
  };
  // What a test leaves behind in an engine must not show in the next one, so most of them share it.
  let shared: Promise<Loaded> | undefined;
  const loaded = () => (shared ??= load('normal'));
  test.after.always(async () => {
    for (const { engine, close } of open) {
      await engine.unload();
      await close();
    }
  });

  test.serial(
    `${workload}: each input has its result, equal ones the same, in the order promised`,
    async (t) => {
      const { engine } = await loaded();
      const { outcome, places, results } = await recordResults(engine, workload, INPUTS);
      t.like(outcome, { kind: 'finished', reason: 'eos' });
      t.true(outcome.usage.tokens_in > 0);
      t.is(outcome.usage.tokens_out, 0);
      t.true(results.flat().every((number) => Number.isFinite(number)));
      const of = (place: number) => results[places.indexOf(place)];
      t.deepEqual(of(1), of(3));
      t.notDeepEqual(of(0), of(1));
      if (workload === 'embedding') {
        t.deepEqual(places, [0, 1, 2, 3]);
        for (const vector of results) t.true(Math.abs(Math.hypot(...vector) - 1) < 1e-6);
      } else {
        t.deepEqual(places.toSorted(), [0, 1, 2, 3]);
        t.deepEqual(
          results.flat(),
          results.flat().toSorted((one, other) => other - one),
        );
        t.true(places.indexOf(1) < places.indexOf(3));
      }
      const none = await recordResults(engine, workload, []);
      t.like(none, { outcome: { kind: 'finished' }, places: [] });
    },
  );

  test.serial(`${workload}: the same call gives the same numbers, alone or beside others`, async (t) => {
    const { engine } = await loaded();
    const alone = await recordResults(engine, workload, INPUTS);
    t.deepEqual(await recordResults(engine, workload, INPUTS), alone);
    const [beside] = await Promise.all([
      recordResults(engine, workload, INPUTS),
      recordResults(engine, workload, MANY.slice(0, 20)),
    ]);
    t.deepEqual(beside, alone);
    await recordResults(engine, workload, ['a dog and '.repeat(30)]);
    t.deepEqual(await recordResults(engine, workload, INPUTS), alone);
  });

  test.serial(`${workload}: an abort settles once, is the last word, and frees the slot`, async (t) => {
    const { engine } = await loaded();
    const early = await recordResults(engine, workload, INPUTS, { signal: AbortSignal.abort() });
    t.like(early, { outcome: { kind: 'aborted' }, places: [] });
    const abort = new AbortController();
    setImmediate(() => abort.abort());
    const run = await recordResults(engine, workload, MANY, { signal: abort.signal });
    t.is(run.outcome.kind, 'aborted');
    t.true(run.places.length < MANY.length);
    const both = await Promise.all([1, 2].map(() => recordResults(engine, workload, INPUTS)));
    for (const after of both) t.is(after.outcome.kind, 'finished');
  });

  test.serial(`${workload}: an input that does not fit is named, and nothing is delivered`, async (t) => {
    const { engine } = await loaded();
    const { ctx_max } = await engine.load(never);
    const long = await recordResults(engine, workload, ['a dog', 'a dog and '.repeat(ctx_max)]);
    t.is(failureOf(t, long).code, 'INVALID_PARAMS');
    t.regex(failureOf(t, long).message, new RegExp(`inputs\\[1\\].*${ctx_max}`, 'u'));
    t.deepEqual(long.places, []);
    t.is((await recordResults(engine, workload, INPUTS)).outcome.kind, 'finished');
  });

  test.serial(`${workload}: what is not listed is refused`, async (t) => {
    const { engine } = await loaded();
    const { workloads } = await engine.load(never);
    t.true(workloads.includes(workload));
    const calls = {
      completion: () => record(engine, promptCall('Once')),
      embedding: () => recordResults(engine, 'embedding', INPUTS),
      rerank: () => recordResults(engine, 'rerank', INPUTS),
    };
    for (const [name, call] of Object.entries(calls)) {
      if (workloads.includes(name as Workload)) t.is((await call()).outcome.kind, 'finished');
      else t.is(failureOf(t, await call()).code, 'INVALID_PARAMS');
    }
  });

  test.serial(`${workload}: a crash fails every call, and is told once`, async (t) => {
    const { engine, fixture, host } = await load('crashing');
    const runs = [1, 2].map(() => recordResults(engine, workload, MANY));
    setImmediate(() => void fixture.crash());
    for (const run of await Promise.all(runs)) {
      t.true(failureOf(t, run).retriable);
      t.true(['WORKER_RESET', 'POOL_UNAVAILABLE'].includes(failureOf(t, run).code));
    }
    t.true(['crash', 'oom', 'unreachable'].includes((await host.firstLoss).cause));
    t.is(host.losses.length, 1);
  });

  test.serial(`${workload}: an engine that is not loaded says so, and an unload aborts`, async (t) => {
    const { engine, host } = await loaded();
    const [run] = await Promise.all([
      recordResults(engine, workload, MANY),
      new Promise(setImmediate).then(() => engine.unload()),
    ]);
    t.is(run.outcome.kind, 'aborted');
    t.is(failureOf(t, await recordResults(engine, workload, INPUTS)).code, 'POOL_UNAVAILABLE');
    t.deepEqual(host.losses, []);
  });
}
