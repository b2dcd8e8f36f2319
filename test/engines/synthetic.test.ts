import test from 'ava';
import { systemClock } from '../../src/clock.ts';
import { type SyntheticSettings, createSyntheticEngine } from '../../src/engines/synthetic.ts';
import { SimulatedClock } from '../helpers/simulated-clock.ts';
import {
  type FixtureKind,
  type Subject,
  conformance,
  never,
  promptCall,
  record,
  recordingHost,
} from './conformance.ts';
import { failureOf, recordResults, vectorsConformance } from './vectors-conformance.ts';

const FAIL: Record<FixtureKind, SyntheticSettings['fail']> = {
  normal: 'never',
  crashing: { at_token: 2 },
  unloadable: 'load',
};

const subject: Subject = {
  reloads: true,
  start(kind, host) {
    const settings = { fail: FAIL[kind] };
    const engine = createSyntheticEngine({
      model_id: 'made-up',
      slots: 2,
      ctx: 512,
      settings,
      clock: systemClock,
      host,
    });
    return Promise.resolve({ engine, crash: () => undefined, close: () => undefined });
  },
};

conformance(test, subject);
vectorsConformance(test, 'embedding', subject);
vectorsConformance(test, 'rerank', subject);

function simulated(settings: Partial<SyntheticSettings>) {
  const clock = new SimulatedClock();
  const host = recordingHost();
  const engine = createSyntheticEngine({ model_id: 'made-up', slots: 2, ctx: 512, settings, clock, host });
  return { clock, host, engine };
}

test('loading takes its time', async (t) => {
  const { clock, engine } = simulated({ load_ms: 300, memory_bytes: 1024 });
  const loading = engine.load(never);
  clock.advance(299);
  t.deepEqual(await engine.health(never), { live: true, ready: false });
  clock.advance(1);
  const properties = await loading;
  t.is(properties.engine_version, 'synthetic-1');
  t.is(properties.memory_bytes, 1024);
});

test('an abort or an unload ends the loading, and leaves no timer', async (t) => {
  const { clock, engine } = simulated({ load_ms: 300 });
  const abort = new AbortController();
  const loading = engine.load(abort.signal);
  abort.abort();
  await t.throwsAsync(loading, { message: 'Loading was aborted.' });
  const again = engine.load(never);
  void engine.unload();
  await t.throwsAsync(again, { message: 'Unloaded while loading.' });
  t.is(clock.pending, 0);
});

test('tokens come when they are due', async (t) => {
  const { clock, engine } = simulated({ first_token_ms: 100, tokens_per_second: 50 });
  const loading = engine.load(never);
  clock.advance(0);
  await loading;
  const seen: number[] = [];
  const run = record(engine, promptCall('Once', { max_tokens: 4 }), {
    onDelta: () => seen.push(clock.now()),
  });
  clock.advance(1000);
  t.deepEqual(seen, [100, 120, 140, 160]);
  const { outcome, text } = await run;
  t.is(text, ' t0 t1 t2 t3');
  t.deepEqual(outcome, {
    kind: 'finished',
    reason: 'limit',
    usage: { tokens_in: 1, tokens_cached: 0, tokens_out: 4 },
  });
  t.is(clock.pending, 0);
});

test('tokens that fell due together come together', async (t) => {
  const { clock, engine } = simulated({ tokens_per_second: 4000 });
  const loading = engine.load(never);
  clock.advance(0);
  await loading;
  const run = record(engine, promptCall('Once', { max_tokens: 40 }));
  await new Promise(setImmediate);
  clock.advance(10);
  t.is((await run).tokens, 40);
});

test('an abort while waiting for the first token is prompt, and leaves no timer', async (t) => {
  const { clock, engine } = simulated({ first_token_ms: 1000 });
  const loading = engine.load(never);
  clock.advance(0);
  await loading;
  const abort = new AbortController();
  const run = record(engine, promptCall('Once'), { signal: abort.signal });
  clock.advance(10);
  abort.abort();
  t.is((await run).outcome.kind, 'aborted');
  t.is(clock.pending, 0);
});

test('a fast run gives other work its turn', async (t) => {
  const engine = createSyntheticEngine({
    model_id: 'made-up',
    slots: 1,
    ctx: 100_000,
    clock: systemClock,
    host: recordingHost(),
  });
  await engine.load(never);
  const abort = new AbortController();
  setImmediate(() => abort.abort());
  const run = await record(engine, promptCall('Once', { max_tokens: 50_000 }), { signal: abort.signal });
  t.is(run.outcome.kind, 'aborted');
  t.true(run.tokens < 50_000);
});

test('a run that resumes behind the crash goes through', async (t) => {
  const host = recordingHost();
  const settings = { fail: { at_token: 3 } };
  const engine = createSyntheticEngine({
    model_id: 'made-up',
    slots: 1,
    ctx: 512,
    settings,
    clock: systemClock,
    host,
  });
  await engine.load(never);
  const crashed = await record(engine, promptCall('Once', { max_tokens: 6 }));
  t.is(crashed.text, ' t0 t1 t2');
  t.is(host.losses.length, 1);
  await engine.load(never);
  const resume = { text: crashed.text, tokens_out: 3 };
  t.is((await record(engine, promptCall('Once', { max_tokens: 3, resume }))).text, ' t3 t4 t5');
});

test('it keeps to its slots, and says what it cannot do', async (t) => {
  const { clock, engine } = simulated({ first_token_ms: 1000 });
  const loading = engine.load(never);
  clock.advance(0);
  await loading;
  const running = [record(engine, promptCall('a')), record(engine, promptCall('b'))];
  const third = await record(engine, promptCall('c'));
  t.is(third.outcome.kind === 'failed' && third.outcome.failure.code, 'REPLICA_EXHAUSTED');
  await engine.unload();
  await Promise.all(running);
  const again = engine.load(never);
  clock.advance(0);
  await again;
  const constrained = await record(
    engine,
    promptCall('d', { output: { kind: 'grammar', gbnf: 'root ::= "a"' } }),
  );
  t.is(constrained.outcome.kind === 'failed' && constrained.outcome.failure.code, 'INVALID_PARAMS');
});

test('a stop string ends the output before it', async (t) => {
  const engine = createSyntheticEngine({
    model_id: 'm',
    slots: 1,
    ctx: 512,
    clock: systemClock,
    host: recordingHost(),
  });
  await engine.load(never);
  const run = await record(engine, promptCall('Once', { sampling: { stop: ['2 t3'] } }));
  t.is(run.text, ' t0 t1 t');
  t.is(run.tokens, 3);
  t.is(run.outcome.kind === 'finished' && run.outcome.reason, 'stop');
});

test('vectors and scores come when they are due', async (t) => {
  const { clock, engine } = simulated({ first_token_ms: 100, tokens_per_second: 50 });
  const loading = engine.load(never);
  clock.advance(0);
  await loading;
  for (const workload of ['embedding', 'rerank'] as const) {
    const start = clock.now();
    const seen: number[] = [];
    const onResult = () => seen.push(clock.now() - start);
    const run = recordResults(engine, workload, ['a', 'dog', 'little dog'], { onResult });
    clock.advance(1000);
    t.deepEqual(seen, [100, 120, 140]);
    t.is((await run).outcome.kind, 'finished');
  }
  t.is(clock.pending, 0);
});

test('a vector has 16 numbers, and a score is the share of the words', async (t) => {
  const { clock, engine } = simulated({});
  const loading = engine.load(never);
  clock.advance(0);
  await loading;
  const { results } = await recordResults(engine, 'embedding', ['a dog', 'A dog']);
  t.deepEqual(
    results.map((vector) => vector.length),
    [16, 16],
  );
  t.notDeepEqual(results[0], results[1]);
  const ranking = await recordResults(engine, 'rerank', ['moon', 'A dog!', 'the little dog has a bone']);
  t.deepEqual(ranking.places, [2, 1, 0]);
  t.deepEqual(ranking.results.flat(), [1, 2 / 3, 0]);
  t.regex(failureOf(t, await recordResults(engine, 'embedding', ['a', ''])).message, /`inputs\[1\]` has no/u);
});

test('vectors take slots as text does', async (t) => {
  const { clock, engine } = simulated({ first_token_ms: 1000 });
  const loading = engine.load(never);
  clock.advance(0);
  await loading;
  const running = [recordResults(engine, 'embedding', ['a']), record(engine, promptCall('b'))];
  t.is(failureOf(t, await recordResults(engine, 'rerank', ['c'])).code, 'REPLICA_EXHAUSTED');
  await engine.unload();
  await Promise.all(running);
});
