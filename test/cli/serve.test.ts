import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import test, { type ExecutionContext } from 'ava';
import { taskchart, type Program } from '../helpers/cli.ts';
import { parseSse, request } from '../helpers/server.ts';

const SLOW = `
pools:
  - { id: slow, engine: synthetic, model: synthetic, synthetic: { tokens_per_second: 20 } }
`;

async function configFile(text: string): Promise<string> {
  const file = join(await mkdtemp(join(tmpdir(), 'taskchart-')), 'config.yaml');
  await writeFile(file, text);
  return file;
}

test('logs JSON lines, and tells in one where it listens', async (t) => {
  const daemon = taskchart(['serve', '--port', '0']);
  const [line] = await daemon.printed(/^.*"action":"listen".*$/m);
  const { url } = JSON.parse(line) as { url: string };
  t.regex(url, /^http:\/\/127\.0\.0\.1:\d+$/);
  t.is((await fetch(`${url}/healthz`)).status, 200);
  daemon.child.kill('SIGTERM');
  t.is(await daemon.exit, 0);
  for (const entry of daemon.stdout().trim().split('\n'))
    t.truthy((JSON.parse(entry) as { human: string }).human);
  t.is(daemon.stderr(), '');
});

const MEMORY = { TASKCHART_STORE__KIND: 'memory' };

async function started(env: NodeJS.ProcessEnv): Promise<{ daemon: Program; url: string }> {
  const daemon = taskchart(['serve', '--port', '0', '--config', await configFile(SLOW)], env);
  const url = (await daemon.printed(/"url":"([^"]+)"/))[1] as string;
  await daemon.printed(/"action":"ready"/);
  return { daemon, url };
}

async function submit(url: string, max_tokens: number): Promise<Response> {
  return fetch(`${url}/v1/tasks`, { method: 'POST', body: JSON.stringify({ ...request, max_tokens }) });
}

async function stream(url: string, response: Response): Promise<Response> {
  const { task_id } = (await response.json()) as { task_id: string };
  return fetch(`${url}/v1/tasks/${task_id}/stream`);
}

test('SIGTERM drains: the running task finishes, the waiting one of a store in memory is told, new ones are refused', async (t) => {
  const { daemon, url } = await started(MEMORY);
  // Three seconds: enough for the signal to come meanwhile on a busy machine.
  const running = await stream(url, await submit(url, 60));
  const waiting = await stream(url, await submit(url, 10));
  await daemon.printed(/"action":"stream"/);
  daemon.child.kill('SIGTERM');
  await daemon.printed(/"action":"drain"/);
  t.is((await submit(url, 1)).status, 503);
  t.regex(await waiting.text(), /event: error\ndata: \{.*"code":"POOL_UNREADY"/);
  t.regex(await running.text(), /event: end\ndata: \{"tokens_out":60,/);
  t.is(await daemon.exit, 0);
});

test('a second signal stops at once, and streams of a store in memory still get their last event', async (t) => {
  const { daemon, url } = await started(MEMORY);
  const reader = await stream(url, await submit(url, 2000));
  await daemon.printed(/"action":"stream"/);
  daemon.child.kill('SIGTERM');
  await daemon.printed(/"action":"drain"/);
  daemon.child.kill('SIGTERM');
  t.regex(await reader.text(), /event: end\ndata: \{.*"canceled":true/);
  t.is(await daemon.exit, 0);
});

test('what a stopped daemon had not finished goes on in the next one, and readers go on where they were', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'taskchart-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const env = { TASKCHART_RUNTIME__DIR: folder };
  const first = await started(env);
  const ids: string[] = [];
  for (const max_tokens of [60, 3]) {
    const { task_id } = (await (await submit(first.url, max_tokens)).json()) as { task_id: string };
    ids.push(task_id);
  }
  const reader = await fetch(`${first.url}/v1/tasks/${ids[0]}/stream`);
  await first.daemon.printed(/"action":"stream"/);
  first.daemon.child.kill('SIGTERM');
  await first.daemon.printed(/"action":"drain"/);
  first.daemon.child.kill('SIGTERM');
  const seen = parseSse(await reader.text());
  t.is(await first.daemon.exit, 0);
  t.is(seen.at(-1)?.event === 'end', false);

  const second = await started(env);
  await second.daemon.printed(/"action":"recover".*"unfinished":2/);
  const after = seen.at(-1)?.id ?? 0;
  const rest = parseSse(await (await fetch(`${second.url}/v1/tasks/${ids[0]}/stream?after=${after}`)).text());
  const all = [...seen, ...rest];
  t.deepEqual(
    all.map(({ id }) => id),
    all.map((_, id) => id),
  );
  const tokens = all.filter(({ event }) => event === 'token').map(({ data }) => data);
  t.deepEqual(
    tokens,
    Array.from({ length: 60 }, (_, i) => ({ t: ` t${i}`, i })),
  );
  t.like(rest.at(-1), { event: 'end', data: { tokens_out: 60 } });
  t.true(all.some(({ data }) => data['resumed'] === true));
  const waited = parseSse(await (await fetch(`${second.url}/v1/tasks/${ids[1]}/stream`)).text());
  t.like(waited.at(-1), { event: 'end', data: { tokens_out: 3 } });
  second.daemon.child.kill('SIGTERM');
  t.is(await second.daemon.exit, 0);
});

const mistakes: [title: string, text: string, message: RegExp][] = [
  [
    'an unknown key',
    'pools:\n  - { id: a, engine: synthetic, modell: x }',
    /^taskchart: .*config\.yaml.*pools\[0\]\.modell.*model/,
  ],
  ['a wrong type', 'sse: { heartbeat_ms: soon }', /sse\.heartbeat_ms.*"soon"/],
  ['broken YAML', 'pools: [', /config\.yaml/],
  ['an address that is not one', 'server: { bind_addr: "localhost" }', /server\.bind_addr/],
];

for (const [title, text, message] of mistakes)
  test(`${title} in the configuration ends with exit code 2 and one line`, async (t) => {
    const daemon = taskchart(['serve', '--port', '0', '--config', await configFile(text)]);
    t.is(await daemon.exit, 2);
    t.regex(daemon.stderr(), message);
    t.is(daemon.stderr().trim().split('\n').length, 1);
    t.is(daemon.stdout(), '');
  });

test('a configuration file that is not there, and an unknown option, end with exit code 2', async (t) => {
  const absent = taskchart(['serve', '--config', '/nowhere/config.yaml']);
  t.is(await absent.exit, 2);
  t.regex(absent.stderr(), /\/nowhere\/config\.yaml/);
  const unknown = taskchart(['serve', '--prot', '80']);
  t.is(await unknown.exit, 2);
  t.regex(unknown.stderr(), /--prot/);
});

test('a port in use ends with one line and exit code 1', async (t) => {
  const taken = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => taken.once('listening', resolve));
  t.teardown(() => taken.close());
  const daemon = taskchart(['serve', '--port', String((taken.address() as AddressInfo).port)]);
  t.is(await daemon.exit, 1);
  t.regex(
    daemon.stderr(),
    /^taskchart: cannot listen on 127\.0\.0\.1:\d+: the port is in use; choose another with --port.*\n$/,
  );
});

async function folder(t: ExecutionContext): Promise<string> {
  const made = await mkdtemp(join(tmpdir(), 'taskchart-'));
  t.teardown(() => rm(made, { recursive: true, force: true }));
  return made;
}

/** Runs a daemon that cannot have its folder. */
async function refused(t: ExecutionContext, dir: string): Promise<string> {
  const daemon = taskchart(['serve', '--port', '0', '--data-dir', dir]);
  t.is(await daemon.exit, 1);
  t.is(daemon.stdout(), '');
  t.is(daemon.stderr().trim().split('\n').length, 1);
  return daemon.stderr();
}

const HINT = '; --data-dir (runtime.dir) names another folder, catalog.root that of the catalog\n';

test('a folder that another daemon has ends with one line and exit code 1, and the other one goes on', async (t) => {
  const dir = await folder(t);
  const first = taskchart(['serve', '--port', '0', '--data-dir', dir]);
  const [line] = await first.printed(/^.*"actor":"store".*$/m);
  t.is((JSON.parse(line) as { human: string }).human, `Accepted tasks and their streams are kept in ${dir}.`);
  const url = (await first.printed(/"url":"([^"]+)"/))[1] as string;
  t.is(await refused(t, dir), `taskchart: ${join(dir, 'tasks.db')} is in use by another taskchart${HINT}`);
  t.is((await fetch(`${url}/healthz`)).status, 200);
  first.child.kill('SIGTERM');
  t.is(await first.exit, 0);
});

test('a folder that cannot be made or written ends with one line and exit code 1', async (t) => {
  const file = join(await folder(t), 'file');
  await writeFile(file, '');
  t.is(
    await refused(t, join(file, 'data')),
    `taskchart: cannot open ${join(file, 'data/tasks.db')}: ENOTDIR: not a directory, mkdir '${join(file, 'data')}'${HINT}`,
  );
});

test('files of a later taskchart, and files that are none of ours, are left as they are', async (t) => {
  const dir = await folder(t);
  const later = new DatabaseSync(join(dir, 'streams.db'));
  later.exec('PRAGMA application_id = 0x74636c31; PRAGMA user_version = 99; CREATE TABLE what (ever)');
  later.close();
  t.regex(
    await refused(t, dir),
    /^taskchart: \S+streams\.db is a taskchart log of version 99, this taskchart knows version \d+: start the newer/,
  );
  await writeFile(join(dir, 'tasks.db'), 'my shopping list, which is rather long today: '.repeat(10));
  t.regex(await refused(t, dir), /^taskchart: \S+tasks\.db is not a taskchart store, nor a database at all/);
  t.regex(await readFile(join(dir, 'tasks.db'), 'utf8'), /^my shopping list/);
});

test('a catalog of a later taskchart ends with one line, and is left as it is', async (t) => {
  const dir = await folder(t);
  const text = '{"schema_version":9,"models":[]}';
  await writeFile(join(dir, 'catalog.json'), text);
  const daemon = taskchart(['serve', '--port', '0'], { TASKCHART_CATALOG__ROOT: dir });
  t.is(await daemon.exit, 1);
  t.regex(daemon.stderr(), /^taskchart: \S+catalog\.json has the schema version 9, and this version .*\n$/);
  t.is(await readFile(join(dir, 'catalog.json'), 'utf8'), text);
});

test('help says where things are kept, what signals do and what the exit codes mean', async (t) => {
  const help = taskchart(['serve', '--help']);
  t.is(await help.exit, 0);
  const text = help.stdout().replaceAll(/\s+/g, ' ');
  for (const part of [
    'accepted tasks, their streams, its engines’ output (default: .runtime)',
    'The first signal drains',
    'A second signal stops at once.',
    'Exit code: 0 after a signal, 1 where it cannot start, 2 for a mistake',
  ])
    t.true(text.includes(part), part);
});

test('a terminal gets one readable line for each event', async (t) => {
  const daemon = taskchart(['serve', '--port', '0'], { TASKCHART_LOG__FORMAT: 'pretty' });
  await daemon.printed(/^\[[\d:.]+\] INFO: taskchart listens on http:\/\/127\.0\.0\.1:\d+\.$/m);
  daemon.child.kill('SIGTERM');
  t.is(await daemon.exit, 0);
  t.regex(daemon.stdout(), /INFO: The daemon has stopped\.\n$/);
});
