import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { systemClock } from '../../src/clock.ts';
import type { EngineHost } from '../../src/engines/engine.ts';
import { createManagedLlamaEngine, type ManagedLlamaOptions } from '../../src/engines/llamacpp/managed.ts';
import { PROGRAM_ENV, realLlamaServer } from '../helpers/real-llama-server.ts';
import { runInSlices } from '../helpers/slices.ts';
import {
  conformance,
  errorOf,
  never,
  promptCall,
  record,
  recordingHost,
  type FixtureKind,
} from './conformance.ts';
import { isAlive, listening, newFolder } from './managed-rig.ts';

const STORYTELLER = fileURLToPath(new URL('../../models/storyteller/storyteller.gguf', import.meta.url));

/** A build of llama.cpp, where there is none yet, on a small machine that does other things as well. */
const BUILD_MS = 60 * 60_000;

let program = '';

test.before('there is a llama-server, or it is built', async (t) => {
  t.timeout(BUILD_MS);
  program = await realLlamaServer();
});

function real(host: EngineHost = recordingHost(), options: Partial<ManagedLlamaOptions> = {}) {
  const folder = newFolder();
  const engine = createManagedLlamaEngine({
    program,
    mode: 'source',
    model_path: STORYTELLER,
    model_id: 'storyteller',
    slots: 2,
    ctx: 256,
    threads: 1,
    env: PROGRAM_ENV,
    folder,
    pool_id: 'p',
    replica_id: 'p/r0',
    ports: [],
    avoid_ports: [],
    clock: systemClock,
    host,
    ...options,
  });
  return { engine, folder };
}

conformance(test, {
  reloads: true,
  async start(kind: FixtureKind, host: EngineHost) {
    const { engine } = real(
      host,
      // Threads that wait for each other on too few cores: a run that can be caught in its middle.
      { normal: {}, crashing: { threads: 16 }, unloadable: { flags: ['--no-such-flag'] } }[kind],
    );
    return { engine, crash: () => void process.kill(engine.pid ?? 0, 'SIGKILL'), close: () => undefined };
  },
});

test('a real server is started, tells a story, and is gone without a trace', async (t) => {
  t.timeout(60_000);
  const { engine, folder } = real();
  const { features, slots_total, ctx_max, engine_version } = await engine.load(never);
  t.like({ slots_total, ctx_max }, { slots_total: 2, ctx_max: 256 });
  t.false(features.deterministic);
  t.regex(engine_version, /^llama\.cpp-b1-/);
  t.true(await engine.probe?.(never));
  const run = await record(engine, promptCall('Once upon a time', { max_tokens: 40 }));
  t.is(run.outcome.kind, 'finished');
  t.true(run.text.length > 40);
  t.deepEqual(readdirSync(folder).toSorted(), ['p-r0.json', 'p-r0.pid']);
  const { pid = 0 } = engine;
  await engine.unload();
  t.false(isAlive(pid));
  t.deepEqual(readdirSync(folder), []);
});

test('kill -9 in the middle of a stream is a crash by that signal', async (t) => {
  t.timeout(60_000);
  const said = listening();
  const { engine, folder } = real(said.host, { ctx: 1024 });
  await engine.load(never);
  const pid = engine.pid as number;
  process.kill(pid, 'SIGSTOP');
  let deltas = 0;
  const running = record(engine, promptCall('Once upon a time', { max_tokens: 1000 }), {
    onDelta: (count) => (deltas = count),
  });
  await runInSlices(pid, () => deltas >= 3);
  process.kill(pid, 'SIGKILL');
  const run = await running;
  t.is(run.outcome.kind === 'failed' && run.outcome.failure.code, 'WORKER_RESET');
  t.like(await said.firstLoss, { cause: 'crash', signal: 'SIGKILL' });
  t.deepEqual(readdirSync(folder), []);
  await engine.unload();
});

test('with one slot a real server says the same whatever it has said before', async (t) => {
  t.timeout(60_000);
  const { engine } = real(recordingHost(), { slots: 1 });
  t.true((await engine.load(never)).features.deterministic);
  const sampling = { temperature: 0.9, top_p: 0.95 };
  const call = promptCall('Once upon a time there was', { max_tokens: 60, seed: 11, sampling });
  const first = await record(engine, call);
  await record(engine, promptCall('Once upon a time there was a bear who', { max_tokens: 30 }));
  t.is((await record(engine, call)).text, first.text);
  await engine.unload();
});

test('a model that cannot be loaded is told by the line that says why', async (t) => {
  t.timeout(60_000);
  const { engine } = real(recordingHost(), { flags: ['--no-such-flag'] });
  const { message } = errorOf(t, await t.throwsAsync(engine.load(never)));
  t.regex(message, /exited with code 1.*--no-such-flag/);
});
