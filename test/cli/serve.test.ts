import { mkdtemp, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { taskchart } from '../helpers/cli.ts';
import { request } from '../helpers/server.ts';

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

test('SIGTERM drains: the running task finishes, the waiting one is told, new ones are refused', async (t) => {
  const daemon = taskchart(['serve', '--port', '0', '--config', await configFile(SLOW)]);
  const url = (await daemon.printed(/"url":"([^"]+)"/))[1] as string;
  const submit = async (max_tokens: number): Promise<Response> =>
    fetch(`${url}/v1/tasks`, { method: 'POST', body: JSON.stringify({ ...request, max_tokens }) });
  const stream = async (response: Response): Promise<Response> => {
    const { task_id } = (await response.json()) as { task_id: string };
    return fetch(`${url}/v1/tasks/${task_id}/stream`);
  };
  await daemon.printed(/"action":"ready"/);
  const running = await stream(await submit(10));
  const waiting = await stream(await submit(10));
  await daemon.printed(/"action":"stream"/);
  daemon.child.kill('SIGTERM');
  await daemon.printed(/"action":"drain"/);
  t.is((await submit(1)).status, 503);
  t.regex(await waiting.text(), /event: error\ndata: \{.*"code":"POOL_UNREADY"/);
  t.regex(await running.text(), /event: end\ndata: \{"tokens_out":10,/);
  t.is(await daemon.exit, 0);
});

test('a second signal stops at once, and streams still get their last event', async (t) => {
  const daemon = taskchart(['serve', '--port', '0', '--config', await configFile(SLOW)]);
  const url = (await daemon.printed(/"url":"([^"]+)"/))[1] as string;
  await daemon.printed(/"action":"ready"/);
  const { task_id } = (await (
    await fetch(`${url}/v1/tasks`, { method: 'POST', body: JSON.stringify({ ...request, max_tokens: 2000 }) })
  ).json()) as { task_id: string };
  const stream = await fetch(`${url}/v1/tasks/${task_id}/stream`);
  await daemon.printed(/"action":"stream"/);
  daemon.child.kill('SIGTERM');
  await daemon.printed(/"action":"drain"/);
  daemon.child.kill('SIGTERM');
  t.regex(await stream.text(), /event: end\ndata: \{.*"canceled":true/);
  t.is(await daemon.exit, 0);
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

test('a terminal gets one readable line for each event', async (t) => {
  const daemon = taskchart(['serve', '--port', '0'], { TASKCHART_LOG__FORMAT: 'pretty' });
  await daemon.printed(/^\[[\d:.]+\] INFO: taskchart listens on http:\/\/127\.0\.0\.1:\d+\.$/m);
  daemon.child.kill('SIGTERM');
  t.is(await daemon.exit, 0);
  t.regex(daemon.stdout(), /INFO: The daemon has stopped\.\n$/);
});
