import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';
import { program } from './helpers/cli.ts';

const run = promisify(execFile);
const ROOT = fileURLToPath(new URL('..', import.meta.url));
const MAX_PACKED_BYTES = 2_500_000;

interface Packed {
  filename: string;
  size: number;
  files: { path: string }[];
}

const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  bin: { taskchart: string };
  dependencies: Record<string, string>;
};

/** A folder of somebody who installed the package, and nothing else that the package does not ask for. */
const home = mkdtempSync(join(tmpdir(), 'taskchart-package-'));
const installed = join(home, 'node_modules/taskchart');
const env = { ...process.env, NODE_OPTIONS: '' };
let packed: Packed;

test.before(async () => {
  const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', home], { cwd: ROOT, env });
  // Up to npm 11 a list, from npm 12 an object by name; what scripts print comes before it.
  packed = Object.values(
    JSON.parse(stdout.slice(stdout.search(/^[[{]/m))) as Record<string, Packed>,
  )[0] as Packed;
  mkdirSync(installed, { recursive: true });
  await run('tar', ['-xzf', join(home, packed.filename), '-C', installed, '--strip-components=1']);
  for (const name of [...Object.keys(manifest.dependencies), '@types/node']) {
    const link = join(home, 'node_modules', name);
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(join(ROOT, 'node_modules', name), link);
  }
  writeFileSync(join(home, 'package.json'), '{ "type": "module" }');
});
test.after.always(() => rmSync(home, { recursive: true, force: true }));

test('the package has the compiled code, the contracts and the bundled model, and nothing else', (t) => {
  const needed = [
    'LICENSE',
    'README.md',
    'package.json',
    'contracts/openapi/data.yaml',
    'contracts/config.schema.json',
    'models/storyteller/storyteller.gguf',
    'dist/index.js',
    'dist/index.d.ts',
    'dist/mount.js',
    'dist/mount.d.ts',
    'dist/client/index.js',
    'dist/client/index.d.ts',
    'dist/cli/main.js',
    'dist/contract/generated/validators.js',
    'dist/contract/generated/validators.d.ts',
    'dist/engines/llamacpp/embedded-child.js',
    'dist/threads/tokenize.js',
  ];
  const paths = packed.files.map(({ path }) => path);
  t.deepEqual(
    needed.filter((path) => !paths.includes(path)),
    [],
  );
  const allowed =
    /^(package\.json|README\.md|LICENSE|contracts\/.+|models\/storyteller\/(storyteller\.gguf|README\.md)|dist\/.+(\.js|\.d\.ts))$/;
  t.deepEqual(
    paths.filter((path) => !allowed.test(path)),
    [],
  );
  t.true(packed.size < MAX_PACKED_BYTES, `${packed.size} bytes`);
});

test('a program that embeds the package gets a story from the bundled model', async (t) => {
  const file = join(home, 'embed.js');
  writeFileSync(
    file,
    `import { createOrchestrator } from 'taskchart';
    const orchestrator = createOrchestrator();
    // Longer than its context has bytes: counted in a thread, which has to be found as well.
    const long = 'The little fox ran home. '.repeat(60);
    const task = await orchestrator.submit({ prompt: long, max_tokens: 20, ctx: 1024 });
    for await (const event of task.events()) void event;
    console.log(JSON.stringify(await task.info()));
    await orchestrator.close();`,
  );
  const { stdout } = await run(process.execPath, [file], { cwd: home, env, timeout: 30_000 });
  const info = JSON.parse(stdout) as { state: string; text: string };
  t.is(info.state, 'ended');
  t.regex(info.text, /[a-z]{3,}/);
});

test('whoever embeds it without HTTP loads no web framework, and with taskchart/http has every route', async (t) => {
  const file = join(home, 'mount.js');
  writeFileSync(
    file,
    `import { createServer } from 'node:http';
    import { registerHooks } from 'node:module';
    const packages = new Set();
    registerHooks({
      resolve(name, context, next) {
        const found = next(name, context);
        const [, owner] = /node_modules\\/([^/]+)\\/(?!.*node_modules)/.exec(found.url) ?? [];
        if (owner) packages.add(owner);
        return found;
      },
    });
    const { createOrchestrator } = await import('taskchart');
    const without = [...packages];
    const { mountHttp } = await import('taskchart/http');
    const orchestrator = createOrchestrator({ pools: [{ id: 'p', engine: 'synthetic', model: 'synthetic' }] });
    const http = mountHttp(orchestrator, { prefix: '/llm' });
    const server = createServer(http.handler).listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    const response = await fetch(\`http://127.0.0.1:\${server.address().port}/llm/v1/capabilities\`);
    const { engines } = await response.json();
    await orchestrator.close();
    http.close();
    server.close();
    console.log(JSON.stringify({ without, with: [...packages], engines }));`,
  );
  const { stdout } = await run(process.execPath, [file], { cwd: home, env, timeout: 30_000 });
  const loaded = JSON.parse(stdout) as { without: string[]; with: string[]; engines: { engine: string }[] };
  t.deepEqual(
    loaded.without.filter((name) => /koa|prom-client|pino/.test(name)),
    [],
  );
  t.true(loaded.without.includes('xstate'));
  t.true(loaded.with.includes('koa'));
  t.is(loaded.engines[0]?.engine, 'synthetic');
});

test('its command serves, and its client reads a story, with Node and with fetch alone', async (t) => {
  const daemon = program(
    [join(installed, manifest.bin.taskchart), 'serve', '--port', '0', '--data-dir', join(home, 'data')],
    {},
  );
  t.teardown(async () => {
    daemon.child.kill('SIGTERM');
    await daemon.exit;
  });
  const url = (await daemon.printed(/"url":"([^"]+)"/))[1] as string;
  const file = join(home, 'story.js');
  writeFileSync(file, readFileSync(join(ROOT, 'docs/examples/client.ts')));
  const story = await run(process.execPath, [file], { cwd: home, env: { ...env, TASKCHART_URL: url } });
  t.regex(story.stdout, /[a-z ]{20,}/);

  const bare = await run(
    process.execPath,
    [
      '--experimental-vm-modules',
      fileURLToPath(new URL('client/bare-context.ts', import.meta.url)),
      join(installed, 'dist/client/index.js'),
      url,
    ],
    { env },
  );
  const { text, files } = JSON.parse(bare.stdout) as { text: string; files: number };
  t.true(story.stdout.startsWith(text));
  t.true(files > 5);
});

test('its types hold for strict programs: one in Node, and one that knows only the browser', async (t) => {
  const strict = { strict: true, noEmit: true, target: 'es2022', skipLibCheck: false };
  const configs = {
    node: {
      compilerOptions: {
        ...strict,
        module: 'nodenext',
        types: ['node'],
        lib: ['es2024', 'esnext.disposable'],
      },
      files: ['node.ts'],
    },
    browser: {
      compilerOptions: {
        ...strict,
        exactOptionalPropertyTypes: true,
        module: 'esnext',
        moduleResolution: 'bundler',
        types: [],
        lib: ['es2022', 'dom'],
      },
      files: ['browser.ts'],
    },
  };
  writeFileSync(
    join(home, 'node.ts'),
    `import { createOrchestrator, openStorage, TaskchartError, type LogEvent, type OrchestratorOptions } from 'taskchart';
    import { createClient } from 'taskchart/client';
    import { mountHttp, type MountedHttp, type MountOptions } from 'taskchart/http';
    import { createServer } from 'node:http';
    const options: OrchestratorOptions = { pools: [{ id: 'p', engine: 'synthetic' }] };
    const task = await createOrchestrator(options).submit({ prompt: 'x' });
    for await (const event of task.events()) {
      const seen: LogEvent = event;
      if (seen.type === 'token') seen.data.t.trim();
    }
    const mounting: MountOptions = { prefix: '/llm', logger: console };
    const http: MountedHttp = mountHttp(createOrchestrator({ ...(await openStorage('data')) }), mounting);
    createServer((request, response) => void http.handler(request, response, () => response.end()));
    createServer(http.handler);
    // @ts-expect-error a prompt is a text
    await createOrchestrator().submit({ prompt: 7 });
    export const fetched = createClient({ fetch });
    export const isOurs = (error: unknown): boolean => error instanceof TaskchartError && error.code === 'NOT_FOUND';`,
  );
  writeFileSync(
    join(home, 'browser.ts'),
    `import { ClientError, createClient, type TaskEvent, type TaskRequest } from 'taskchart/client';
    const request: TaskRequest = {
      workload: 'completion', engine: 'llamacpp', model_ref: 'storyteller', ctx: 512,
      priority: 'interactive', max_tokens: 5, deadline_ms: 1000, prompt: 'Once',
    };
    const client = createClient({ base_url: '/taskchart', fetch });
    export async function show(event: TaskEvent): Promise<void> {
      if (event.type === 'token') document.body.append(event.data.t);
      if (event.type === 'error') console.error(event.data.code, event.data.retry_after_ms);
    }
    for await (const event of client.run(request)) await show(event);
    for await (const { task_id } of client.tasks({ state: 'ended' })) await client.remove(task_id);
    // @ts-expect-error the name of the option is base_url
    createClient({ baseUrl: '' });
    export const reason = (error: ClientError): string => error.reason;
    export const text: Promise<string> = client.run(request, { signal: AbortSignal.timeout(5) }).text();`,
  );
  for (const [name, config] of Object.entries(configs)) {
    const file = join(home, `tsconfig.${name}.json`);
    writeFileSync(file, JSON.stringify(config));
    await t.notThrowsAsync(
      run(process.execPath, [join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', file], { cwd: home }).catch(
        ({ stdout }: { stdout: string }) => Promise.reject(new Error(stdout)),
      ),
    );
  }
});
