import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { systemClock } from '../../src/clock.ts';
import { createOrchestrator, type OrchestratorOptions } from '../../src/index.ts';
import { TaskchartError } from '../../src/errors.ts';
import { Engines, type EngineRequest } from '../../src/provisioning/engines.ts';
import type { EngineProgress } from '../../src/provisioning/step.ts';
import { fakeLlamaBinary } from '../helpers/fake-llama-program.ts';
import { fakeTools, type FakeTools } from '../helpers/fake-tools.ts';

const never = new AbortController().signal;
const newFolder = (): string => mkdtempSync(join(tmpdir(), 'taskchart-download-'));
const sha256 = (bytes: Buffer): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** As a release of llama.cpp is packed: the program and its libraries, side by side, some folders deep. */
function release(): Buffer {
  const folder = newFolder();
  mkdirSync(join(folder, 'build', 'bin'), { recursive: true });
  copyFileSync(fakeLlamaBinary(), join(folder, 'build', 'bin', 'llama-server'));
  execFileSync('tar', ['-czf', join(folder, 'x.tar.gz'), '-C', folder, 'build']);
  return readFileSync(join(folder, 'x.tar.gz'));
}

interface Files {
  url: string;
  /** Ranges that were asked for, `whole` without one. */
  asked: string[];
}

/** A server of one file; its first answer breaks off after so many bytes. */
async function serve(t: ExecutionContext, bytes: Buffer, breaks_after = Infinity): Promise<Files> {
  const asked: string[] = [];
  const server = createServer(({ headers }, response) => {
    const from = Number(/^bytes=(\d+)-$/.exec(headers.range ?? '')?.[1] ?? 0);
    asked.push(headers.range ?? 'whole');
    response.writeHead(from > 0 ? 206 : 200, {
      ETag: '"1"',
      'Content-Length': bytes.length - from,
      ...(from > 0 ? { 'Content-Range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` } : {}),
    });
    if (asked.length > 1 || breaks_after >= bytes.length) return void response.end(bytes.subarray(from));
    response.write(bytes.subarray(0, breaks_after), () => response.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    server.close();
    server.closeAllConnections();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
}

function engines({ env }: FakeTools, policy = { offline: false, allowlist: [] as string[] }): Engines {
  return new Engines({ policy, env, clock: systemClock });
}

/** A machine that can unpack. */
function machine(): FakeTools {
  const tools = fakeTools();
  tools.add('tar', 'exec tar "$@"');
  // The fake engine is a program of Node.
  tools.add('node', `exec '${process.execPath}' "$@"`);
  return tools;
}

function download(url: string, bytes: Buffer, more: object = {}): EngineRequest & { cache_dir: string } {
  return {
    mode: 'download',
    url,
    checksum: sha256(bytes),
    cache_dir: newFolder(),
    is_allowed: true,
    ...more,
  } as EngineRequest & { cache_dir: string };
}

async function refusal(t: ExecutionContext, work: Promise<unknown>): Promise<TaskchartError> {
  return (await t.throwsAsync(work, { instanceOf: TaskchartError })) as TaskchartError;
}

test('an archive is fetched once, also where the connection breaks, and its llama-server is started', async (t) => {
  const bytes = release();
  const files = await serve(t, bytes, Math.floor(bytes.length / 2));
  const tools = machine();
  const request = download(`${files.url}/llama-b1-bin-linux-x64.tar.gz`, bytes);
  const told: EngineProgress[] = [];
  const [first, second] = await Promise.all([
    engines(tools).ensure(request, never, (progress) => told.push(progress)),
    engines(tools).ensure(request, never),
  ]);
  t.deepEqual(first, second);
  t.like(first, { mode: 'binary', program: engines(tools).programOf(request as never) });
  t.deepEqual([files.asked[0], files.asked.length], ['whole', 2]);
  t.regex(files.asked[1] ?? '', /^bytes=\d+-$/);
  t.deepEqual(tools.calls().filter((call) => call.startsWith('tar')).length, 1);
  t.true(told.some(({ phase }) => phase === 'waiting' || phase === 'unpacking'));
  t.deepEqual(readdirSync(join(first.mode === 'binary' ? first.program : '', '..')).toSorted(), [
    'files',
    'llama-server',
  ]);

  t.deepEqual(await engines(tools, { offline: true, allowlist: [] }).ensure(request, never), first);
  t.is(files.asked.length, 2);
  const [entry] = await engines(tools).list(request.cache_dir);
  t.like(entry, { engine: 'llamacpp', version: first.mode === 'binary' ? first.version : '' });
  t.true(await engines(tools).removeBuild(request));
  t.deepEqual(await engines(tools).list(request.cache_dir), []);
  t.false(existsSync(join(request.cache_dir, 'llamacpp', entry?.id ?? '')));
});

test('a program that is not packed is run as it came', async (t) => {
  const bytes = readFileSync(fakeLlamaBinary());
  const files = await serve(t, bytes);
  const prepared = await engines(machine()).ensure(download(`${files.url}/llama-server`, bytes), never);
  t.is(prepared.mode, 'binary');
});

test('another file than the one that was promised is neither kept nor unpacked', async (t) => {
  const bytes = release();
  const files = await serve(t, bytes);
  const tools = machine();
  const request = download(`${files.url}/x.tgz`, Buffer.from('another'));
  const error = await refusal(t, engines(tools).ensure(request, never));
  t.is(error.code, 'UNTRUSTED_ARTIFACT');
  t.deepEqual(tools.calls(), []);
  t.deepEqual(await engines(tools).list(request.cache_dir), []);
});

test('nothing is downloaded that was not allowed: by the pool, by the list of hosts, or at all', async (t) => {
  const bytes = release();
  const files = await serve(t, bytes);
  const ask = async (more: object, policy?: { offline: boolean; allowlist: string[] }): Promise<string> =>
    (await refusal(t, engines(machine(), policy).ensure(download(`${files.url}/x.tgz`, bytes, more), never)))
      .message;
  t.regex(await ask({ is_allowed: false }), /^provisioning\.allow_binary_downloads is false/);
  t.regex(await ask({}, { offline: true, allowlist: [] }), /^policy\.offline forbids to fetch the engine/);
  t.regex(await ask({}, { offline: false, allowlist: ['get.example'] }), /^policy\.allowlist does not have/);
  t.deepEqual(files.asked, []);
});

test('what cannot be unpacked, has no llama-server, or does not run is said', async (t) => {
  const bytes = release();
  const files = await serve(t, bytes);
  const bare = fakeTools();
  const without = await refusal(t, engines(bare).ensure(download(`${files.url}/x.zip`, bytes), never));
  t.regex(without.message, /^x\.zip cannot be unpacked: there is no unzip on PATH; install it/);
  t.deepEqual(files.asked, []);
  bare.add('unzip');
  t.regex(
    (await refusal(t, engines(bare).ensure(download(`${files.url}/x.zip`, bytes), never))).message,
    /x\.zip has no llama-server in it$/,
  );
  const nonsense = Buffer.from('#!/nowhere\n');
  const other = await serve(t, nonsense);
  t.regex(
    (await refusal(t, engines(bare).ensure(download(`${other.url}/x`, nonsense), never))).message,
    /\/x has does not run here: /,
  );
});

test('a plan says what would be downloaded and unpacked, and does nothing', (t) => {
  const tools = machine();
  const request = download('https://get.example/llama.tar.xz', Buffer.from(''));
  const steps = engines(tools).plan(request);
  t.deepEqual(
    steps.map(({ kind }) => kind),
    ['binary-download', 'binary-unpack'],
  );
  t.deepEqual(engines(tools).plan(request), steps);
  t.deepEqual(readdirSync(request.cache_dir), []);
});

test('a pool whose engine is downloaded serves', async (t) => {
  const bytes = release();
  const files = await serve(t, bytes);
  const folder = newFolder();
  const orchestrator = createOrchestrator({
    runtime: { dir: folder },
    engines: { cache_dir: join(folder, 'cache') },
    pools: [
      {
        id: 'p',
        engine: 'llamacpp',
        model: 'storyteller',
        ctx: 512,
        provisioning: {
          mode: 'binary',
          binary: { url: `${files.url}/llama.tar.gz`, checksum: sha256(bytes) },
          allow_binary_downloads: true,
          env: { FAKE_LLAMA: '{}' },
        },
      },
    ] as NonNullable<OrchestratorOptions['pools']>,
  });
  const task = await orchestrator.submit({ prompt: 'Once upon a time', max_tokens: 5 });
  for await (const event of task.events()) t.not(event.type, 'error');
  t.like(JSON.parse(readFileSync(join(folder, 'engines', 'p-r0.json'), 'utf8')), {
    provisioning_mode: 'binary',
  });
  await orchestrator.close();
});
