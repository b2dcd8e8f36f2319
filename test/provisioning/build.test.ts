import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { systemClock } from '../../src/clock.ts';
import { TaskchartError } from '../../src/errors.ts';
import { Engines, type EngineRequest } from '../../src/provisioning/engines.ts';
import type { EngineProgress } from '../../src/provisioning/step.ts';
import { fakeTools, type FakeTools } from '../helpers/fake-tools.ts';
import { until } from '../helpers/until.ts';

const never = new AbortController().signal;

const CLONES = 'case "$1" in clone) for last; do :; done; mkdir "$last";; -C) echo c0ffee;; esac';
const MAKES = `case "$*" in
  *--build*)
    echo '[ 10%] Building'; echo '[55/100] Linking'
    mkdir -p build/bin
    printf '#!/bin/sh\\necho "version: 0.4.0 (fake)" >&2\\n' > build/bin/llama-server
    chmod +x build/bin/llama-server;;
  *) mkdir -p build;;
esac`;

/** A machine on which everything is there and works. */
function workshop(): FakeTools {
  const tools = fakeTools();
  tools.add('git', CLONES);
  tools.add('cmake', MAKES);
  tools.add('c++');
  tools.add('make');
  return tools;
}

function engines({ env }: FakeTools, policy = { offline: true, allowlist: [] as string[] }): Engines {
  return new Engines({ policy, env, clock: systemClock });
}

function newCache(): string {
  return mkdtempSync(join(tmpdir(), 'taskchart-engines-'));
}

function source(cache_dir: string, more: object = {}, cmake_flags: string[] = []): EngineRequest {
  return { mode: 'source', submodules: false, build: { cmake_flags, cache_dir }, for_gpu: false, ...more };
}

async function refusal(t: ExecutionContext, work: Promise<unknown>): Promise<string> {
  const error = await t.throwsAsync(work, { instanceOf: TaskchartError });
  return error?.message ?? '';
}

test('a plan is the same every time, and nothing is done for it', (t) => {
  const tools = workshop();
  const cache = newCache();
  const request = source(cache, {
    repo: 'https://git.example/llama.cpp.git',
    ref: 'b9999',
    submodules: true,
  });
  const steps = engines(tools).plan(request);
  t.deepEqual(
    steps.map(({ kind }) => kind),
    ['preflight-tools', 'git-clone', 'git-checkout', 'git-checkout', 'cmake-configure', 'cmake-build'],
  );
  t.deepEqual(engines(tools).plan(request), steps);
  t.true(steps.flatMap(({ command = [] }) => command).includes('-DLLAMA_BUILD_SERVER=ON'));
  t.deepEqual(tools.calls(), []);
  t.deepEqual(readdirSync(cache), []);
});

test('ninja is used where it is there, old names of flags still count, and a GPU means CUDA', (t) => {
  const tools = workshop();
  const configure = (request: EngineRequest): string =>
    engines(tools)
      .plan(request)
      .find(({ kind }) => kind === 'cmake-configure')
      ?.command?.join(' ') ?? '';
  t.notRegex(configure(source('/c')), /-G |CUDA/);
  t.regex(configure(source('/c', {}, ['-DLLAMA_CUBLAS=ON'])), /-DGGML_CUDA=ON/);
  t.regex(configure(source('/c', { for_gpu: true })), /-DGGML_CUDA=ON/);
  t.notRegex(configure(source('/c', { for_gpu: true }, ['-DGGML_VULKAN=ON'])), /CUDA/);
  tools.add('ninja');
  t.regex(configure(source('/c')), /-G Ninja/);
});

test('an engine is built once, with progress, and found again by whoever needs the same', async (t) => {
  const tools = workshop();
  const cache = newCache();
  const told: EngineProgress[] = [];
  const [first, second] = await Promise.all([
    engines(tools).ensure(source(cache), never, (progress) => told.push(progress)),
    engines(tools).ensure(source(cache), never),
  ]);
  t.deepEqual(first, second);
  t.like(first, { mode: 'source', version: '0.4.0 (fake)' });
  t.is(tools.calls().filter((call) => call.includes('--build')).length, 1);
  const phases = new Set(told.map(({ phase }) => phase));
  if (!phases.has('waiting')) {
    t.deepEqual([...phases], ['cloning', 'configuring', 'building', 'prepared']);
    t.is(told.find(({ phase, fraction }) => phase === 'building' && fraction)?.fraction, 0.1);
  }
  const before = tools.calls().length;
  t.deepEqual(await engines(tools).ensure(source(cache), never), first);
  t.is(tools.calls().length, before);

  const other = await engines(tools).ensure(source(cache, {}, ['-DGGML_NATIVE=OFF']), never);
  t.notDeepEqual(other, first);
  const list = await engines(tools).list(cache);
  t.is(list.length, 2);
  t.like(list[0], { engine: 'llamacpp', version: '0.4.0 (fake)', build_ref: 'c0ffee' });
  t.regex(list[0]?.digest ?? '', /^sha256:[0-9a-f]{64}$/);
});

test('what is removed is built again', async (t) => {
  const tools = workshop();
  const cache = newCache();
  await engines(tools).ensure(source(cache), never);
  const [entry] = await engines(tools).list(cache);
  t.like(await engines(tools).remove(cache, entry?.id ?? ''), { entry: { id: entry?.id } });
  t.false(existsSync(join(cache, 'llamacpp', entry?.id ?? '')));
  t.is(await engines(tools).remove(cache, entry?.id ?? ''), undefined);
  await engines(tools).ensure(source(cache), never);
  t.is(tools.calls().filter((call) => call.includes('--build')).length, 2);
});

test('a machine without the tools is told all that is missing, at once', async (t) => {
  const bare = fakeTools();
  t.regex(
    await refusal(t, engines(bare).ensure(source(newCache()), never)),
    /git, cmake, a C\+\+ compiler \(g\+\+ or clang\+\+\) and make or ninja are missing on PATH; install/,
  );
  bare.add('git');
  bare.add('cmake');
  bare.add('g++');
  t.regex(await refusal(t, engines(bare).ensure(source(newCache()), never)), /: make or ninja is missing/);
});

test('CUDA without a toolkit fails before anything is fetched', async (t) => {
  const tools = workshop();
  const message = await refusal(t, engines(tools).ensure(source(newCache(), { for_gpu: true }), never));
  t.regex(message, /no nvcc on PATH, in \/usr\/local\/cuda\* or in \/opt\/cuda; install the CUDA toolkit/);
  t.deepEqual(tools.calls(), []);
});

test('a host compiler that CUDA does not like is replaced once', async (t) => {
  const tools = workshop();
  tools.add('nvcc');
  tools.add('g++-12');
  tools.add(
    'cmake',
    `case "$*" in *--build*|*CUDA_HOST_COMPILER=*) ;; *)
      echo '#error -- unsupported GNU version! gcc versions later than 13 are not supported!'; exit 1;; esac
    ${MAKES}`,
  );
  const told: EngineProgress[] = [];
  await engines(tools).ensure(source(newCache(), { for_gpu: true }), never, (how) => told.push(how));
  const configured = tools.calls().filter((call) => call.includes('-S src'));
  t.is(configured.length, 2);
  t.regex(configured[1] ?? '', /-DCMAKE_CUDA_COMPILER=\S+nvcc -DCMAKE_CUDA_HOST_COMPILER=\S+g\+\+-12$/);
  t.true(told.some(({ note }) => note?.includes('g++-12')));
});

test('a build that fails says by which line, and where the rest is; the next try begins with the clone that is there', async (t) => {
  const tools = workshop();
  const cache = newCache();
  tools.add(
    'cmake',
    `case "$*" in *--build*) echo 'x.cpp:3: error: no such thing'; echo 'ninja: stopped'; exit 1;; esac`,
  );
  const message = await refusal(t, engines(tools).ensure(source(cache), never));
  t.regex(
    message,
    /v\d.* could not be built: cmake --build ended with code 1: x\.cpp:3: error: no such thing; all of it is in /,
  );
  t.regex(readFileSync(/in (\S+build\.log)/.exec(message)?.[1] ?? '', 'utf8'), /ninja: stopped/);
  tools.add('cmake', MAKES);
  await engines(tools).ensure(source(cache), never);
  t.is(tools.calls().filter((call) => call.startsWith('git clone')).length, 1);
});

test('a build that nobody waits for any more is given up, with every process of it', async (t) => {
  const tools = workshop();
  tools.add(
    'cmake',
    `case "$*" in *--build*) sleep 600 & echo $! > sleeper; wait;; *) mkdir -p build;; esac`,
  );
  const cache = newCache();
  const abort = new AbortController();
  const building = engines(tools).ensure(source(cache), abort.signal);
  const sleeper = (): string | undefined =>
    readdirSync(join(cache, 'llamacpp'), { recursive: true, encoding: 'utf8' }).find((path) =>
      path.endsWith('sleeper'),
    );
  await until(() => existsSync(join(cache, 'llamacpp')) && sleeper() !== undefined);
  const file = join(cache, 'llamacpp', sleeper() ?? '');
  await until(() => readFileSync(file, 'utf8').trim() !== '');
  const pid = Number(readFileSync(file, 'utf8'));
  abort.abort(new Error('enough'));
  await t.throwsAsync(building, { message: 'enough' });
  await until(() => {
    try {
      return readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ');
    } catch {
      return true;
    }
  });
  t.pass();
});

test('an index that another version has written is refused as a whole', async (t) => {
  const cache = newCache();
  writeFileSync(join(cache, 'index.json'), JSON.stringify({ schema: 2, engines: [] }));
  const message = await refusal(t, engines(workshop()).ensure(source(cache), never));
  t.regex(message, /has the schema version 2, this version reads 1; move the folder away/);
  writeFileSync(join(cache, 'index.json'), '{"schema": 1, "engines": [{}]}');
  await t.throwsAsync(engines(workshop()).list(cache), { message: /is damaged; remove it/ });
});

test('a repository is asked only where the policy allows it', async (t) => {
  const tools = workshop();
  const request = source(newCache(), { repo: 'https://git.example/llama.cpp', ref: 'v1' });
  t.regex(await refusal(t, engines(tools).ensure(request, never)), /policy\.offline forbids .* git\.example/);
  const listed = engines(tools, { offline: false, allowlist: ['huggingface.co'] });
  t.regex(await refusal(t, listed.ensure(request, never)), /policy\.allowlist does not have git\.example/);
  await engines(tools, { offline: false, allowlist: ['git.example'] }).ensure(request, never);
  t.true(tools.calls().some((call) => call.includes('checkout --quiet v1')));
});

test('a program that is installed is found on PATH, or by its path, and has to say what it is', async (t) => {
  const tools = fakeTools();
  t.regex(
    await refusal(t, engines(tools).ensure({ mode: 'binary' }, never)),
    /no llama-server on PATH; install/,
  );
  t.regex(
    await refusal(t, engines(tools).ensure({ mode: 'binary', path: '/nowhere/x' }, never)),
    /^\/nowhere\/x is no program/,
  );
  tools.add('llama-server', 'echo "version: 7 (abc)" >&2');
  t.like(await engines(tools).ensure({ mode: 'binary' }, never), { mode: 'binary', version: '7 (abc)' });
  tools.add('llama-server', 'echo "error: no libcuda.so"; exit 127');
  t.regex(
    await refusal(t, engines(tools).ensure({ mode: 'binary' }, never)),
    /does not tell its version.*no libcuda/,
  );
});
