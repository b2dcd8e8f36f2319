import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import test from 'ava';
import type { EngineHost, EngineLoss } from '../../src/engines/engine.ts';
import { parseHandoff } from '../../src/engines/handoff.ts';
import { behaving } from '../helpers/fake-llama-program.ts';
import { until } from '../helpers/until.ts';
import {
  conformance,
  errorOf,
  never,
  promptCall,
  record,
  type FixtureKind,
  type Subject,
} from './conformance.ts';
import { FAKE, isAlive, listening, managed, newFolder } from './managed-rig.ts';

const subject: Subject = {
  reloads: true,
  async start(kind: FixtureKind, host: EngineHost) {
    const { engine } = managed(
      kind === 'unloadable'
        ? { exit_at_start: { lines: ['error: the model\ncannot be loaded'], code: 1 } }
        : kind === 'crashing'
          ? { hold_at: 3 }
          : {},
      {},
      host,
    );
    return {
      engine,
      crash: () => void process.kill(engine.pid ?? 0, 'SIGKILL'),
      close: () => undefined,
    };
  },
};

conformance(test, subject);

const files = (folder: string): string[] => (existsSync(folder) ? readdirSync(folder).toSorted() : []);

test('what is up can be found: its PID before the wait, its address once it is healthy, and nothing afterwards', async (t) => {
  const { engine, folder } = managed({ loading: 300 }, { devices: [0, 2], flags: ['-ngl', '7'] });
  const loading = engine.load(never);
  await until(() => files(folder).includes('p-r0.pid'));
  t.deepEqual(files(folder), ['p-r0.pid']);
  t.deepEqual(await engine.health(never), { live: true, ready: false });
  await loading;
  t.deepEqual(files(folder), ['p-r0.json', 'p-r0.pid']);
  const handoff = parseHandoff(readFileSync(join(folder, 'p-r0.json'), 'utf8'));
  t.like(handoff, {
    engine: 'llamacpp',
    engine_version: 'llama.cpp-b1-fake',
    provisioning_mode: 'binary',
    pool_id: 'p',
    replica_id: 'p/r0',
    device_mask: '0,2',
    slots_total: 2,
    slots_free: 2,
  });
  t.is(handoff.model.id, 'm');
  t.deepEqual(handoff.flags.slice(-2), ['--n-gpu-layers', '7']);
  t.true((await fetch(`${handoff.url}/health`)).ok);
  const { pid = 0 } = engine;
  await engine.unload();
  t.deepEqual(files(folder), []);
  t.false(isAlive(pid));
});

test('the server is told slots, context, devices and the flags of one slot', async (t) => {
  const said = listening();
  const { engine } = managed({}, { slots: 1, ctx: 256, devices: [1], threads: 3 }, said.host);
  const { features, ctx_max } = await engine.load(never);
  t.true(features.deterministic);
  t.is(ctx_max, 256);
  await until(() => said.text().includes('listening'));
  t.regex(said.text(), /--parallel 1 --ctx-size 256 --threads 3 --no-cont-batching --no-webui --metrics/);
  t.regex(said.text(), /CUDA_VISIBLE_DEVICES=1\n/);
  await engine.unload();
  const several = managed();
  t.false((await several.engine.load(never)).features.deterministic);
  await several.engine.unload();
});

test('a preferred port is taken where it is free; one that is not is passed over', async (t) => {
  const other = createServer();
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
  const address = other.address();
  const taken = typeof address === 'object' ? (address?.port ?? 0) : 0;
  const portOf = (folder: string): number =>
    Number(new URL(parseHandoff(readFileSync(join(folder, 'p-r0.json'), 'utf8')).url).port);
  const [one, two] = [
    managed({}, { ports: [taken] }),
    managed({}, { ports: [taken], avoid_ports: [taken + 1] }),
  ];
  await Promise.all([one.engine.load(never), two.engine.load(never)]);
  const ports = [portOf(one.folder), portOf(two.folder)];
  t.is(new Set(ports).size, 2);
  t.true(
    ports.every((port) => port > taken && port <= taken + 200),
    ports.join(),
  );
  t.true(portOf(two.folder) > taken + 1);
  await Promise.all([one.engine.unload(), two.engine.unload()]);
  other.close();
});

test('a port that somebody takes between the look and the start costs one more try', async (t) => {
  const { engine } = managed(
    { exit_at_start: { lines: ["couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 1"], code: 1 } },
    {},
  );
  const thrown = errorOf(t, await t.throwsAsync(engine.load(never)));
  t.regex(thrown.message, /exited with code 1: couldn't bind HTTP server socket/);
});

for (const [title, lines, code, cause] of [
  [
    'an error',
    ['loading', 'E srv load_model: failed to load model', 'cleaning up'],
    1,
    /code 1: E srv load_model: failed/,
  ],
  [
    'no device memory',
    ['ggml_cuda: cudaMalloc failed: out of memory', 'bye'],
    1,
    /out of device memory.*cudaMalloc/,
  ],
  ['an exit without an error', ['done'], 0, /code 0: done/],
] as const)
  test(`a start that ends with ${title} says so in one line, and leaves nothing`, async (t) => {
    const { engine, folder } = managed({ exit_at_start: { lines, code } });
    const error = errorOf(t, await t.throwsAsync(engine.load(never)));
    t.regex(error.message, cause);
    t.is(error.code, 'POOL_UNAVAILABLE');
    t.deepEqual(files(folder), []);
  });

test('a program that is not there, and a model that is none, are named', async (t) => {
  const missing = managed({}, { program: '/nowhere/llama-server' });
  t.regex(
    errorOf(t, await t.throwsAsync(missing.engine.load(never))).message,
    /^\/nowhere\/llama-server cannot be started \(ENOENT\)\.$/,
  );
  const wrong = managed({}, { model_path: FAKE });
  t.is(
    errorOf(t, await t.throwsAsync(wrong.engine.load(never))).message,
    'The file llama-server is not a GGUF model.',
  );
});

test('a load that is given up leaves no process behind, also where the server does not listen', async (t) => {
  const said = listening();
  const { engine, folder } = managed({ hangs: true }, {}, said.host);
  const abort = new AbortController();
  const loading = engine.load(abort.signal);
  await until(() => said.text().includes('args:') && files(folder).includes('p-r0.pid'));
  const { pid } = JSON.parse(readFileSync(join(folder, 'p-r0.pid'), 'utf8')) as { pid: number };
  t.true(isAlive(pid));
  abort.abort();
  t.is(errorOf(t, await t.throwsAsync(loading)).message, 'Loading was aborted.');
  t.false(isAlive(pid));
  t.deepEqual(files(folder), []);
});

test('a server that takes no notice of SIGTERM is killed after five seconds', async (t) => {
  t.timeout(30_000);
  const { engine } = managed({ ignores_sigterm: true });
  await engine.load(never);
  const { pid = 0 } = engine;
  const before = performance.now();
  await engine.unload();
  t.false(isAlive(pid));
  t.true(performance.now() - before >= 4900);
});

const ends: [string, Parameters<typeof managed>[0], Partial<EngineLoss>, RegExp][] = [
  [
    'a signal',
    { die: { at: 3, lines: ['bye'], signal: 'SIGKILL' } },
    { cause: 'crash', signal: 'SIGKILL' },
    /was ended by SIGKILL: bye/,
  ],
  [
    'an exit code',
    { die: { at: 3, lines: ['GGML_ASSERT(x) failed'], code: 134 } },
    { cause: 'crash', exit_code: 134 },
    /code 134: GGML_ASSERT/,
  ],
  [
    'a fault of the device',
    { die: { at: 3, lines: ['CUDA error: an illegal memory access was encountered', 'at x.cu'], code: 1 } },
    { cause: 'cuda', exit_code: 1 },
    /device fault: CUDA error: an illegal/,
  ],
  [
    'no device memory',
    { die: { at: 3, lines: ['CUDA error: out of memory', 'current device: 0'], code: 1 } },
    { cause: 'vram_oom', exit_code: 1 },
    /out of device memory: CUDA error/,
  ],
  [
    'code 0, which is no crash',
    { die: { at: 3, lines: ['leaving'], code: 0 } },
    { cause: 'exit', exit_code: 0 },
    /code 0/,
  ],
];
for (const [title, behaviour, loss, message] of ends)
  test(`a server that ends in the middle of a stream by ${title} is told as such, once its runs have failed`, async (t) => {
    const said = listening();
    const { engine, folder } = managed(behaviour, {}, said.host);
    await engine.load(never);
    const run = await record(engine, promptCall('Once', { max_tokens: 50 }));
    t.is(run.outcome.kind === 'failed' && run.outcome.failure.code, 'WORKER_RESET');
    const told = await said.firstLoss;
    t.like(told, loss);
    t.regex(told.message, message);
    t.deepEqual(files(folder), []);
    t.is(said.losses.length, 1);
    await engine.unload();
  });

test('what a daemon that was killed has left behind is ended by the next one, and what only looks like it is not', async (t) => {
  const folder = newFolder();
  // An owner who dies without a word, as `kill -9` has it.
  const owner = spawn(process.execPath, ['--input-type=module', '--eval', orphaning(folder)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = (await once(owner.stdout, 'data')) as [Buffer];
  const orphan = Number(line.toString());
  owner.kill('SIGKILL');
  await once(owner, 'exit');
  t.true(isAlive(orphan));
  const note = JSON.parse(readFileSync(join(folder, 'p-r0.pid'), 'utf8')) as object;

  const elsewhere = newFolder();
  writeFileSync(join(elsewhere, 'p-r0.pid'), JSON.stringify({ ...note, started: '1' }));
  const other = managed({}, { folder: elsewhere });
  await other.engine.load(never);
  t.true(isAlive(orphan));
  await other.engine.unload();

  const next = managed({}, { folder });
  await next.engine.load(never);
  t.false(isAlive(orphan));
  await next.engine.unload();
  t.deepEqual(files(folder), []);
});

function orphaning(folder: string): string {
  const rig = new URL('managed-rig.ts', import.meta.url).href;
  return `
    const { managed } = await import(${JSON.stringify(rig)});
    const { engine } = managed({}, { folder: ${JSON.stringify(folder)} });
    await engine.load(new AbortController().signal);
    console.log(engine.pid);
    setInterval(() => {}, 60_000);`;
}

test('an engine of an owner who ends is gone with it', async (t) => {
  const owner = spawn(
    process.execPath,
    ['--input-type=module', '--eval', `${orphaning(newFolder())}\nprocess.exit(0)`],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const [line] = (await once(owner.stdout, 'data')) as [Buffer];
  await once(owner, 'exit');
  await until(() => !isAlive(Number(line.toString())));
  t.pass();
});

test('one token is decoded by a server that works, and none by one that is deaf', async (t) => {
  const { engine } = managed();
  t.false(await engine.probe?.(never));
  await engine.load(never);
  t.true(await engine.probe?.(never));
  await engine.unload();
  const deaf = managed({ deaf: true }, { env: behaving({ deaf: true }) });
  await deaf.engine.load(never);
  t.deepEqual(await deaf.engine.health(never), { live: true, ready: true });
  const patience = new AbortController();
  const answer = deaf.engine.probe?.(patience.signal);
  patience.abort();
  t.false(await answer);
  await deaf.engine.unload();
});

test('a folder that cannot be written fails the load in words, and leaves no process', async (t) => {
  const said = listening();
  const { engine } = managed({}, { folder: join(FAKE, 'engines') }, said.host);
  const error = errorOf(t, await t.throwsAsync(engine.load(never)));
  t.is(error.code, 'POOL_UNAVAILABLE');
  t.regex(error.message, /ENOTDIR/);
  t.false((await engine.health(never)).live);
  t.deepEqual(said.losses, []);
});
