import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { taskchart, type Program } from '../helpers/cli.ts';
import { request } from '../helpers/server.ts';
import { until } from '../helpers/until.ts';

const TOKEN = 'correct-horse-battery';
const IDENTITY = 'token:622493';
const CONFIG =
  'pools: [{ id: slow, engine: synthetic, model: synthetic, synthetic: { tokens_per_second: 50 } }]';

async function daemon(t: ExecutionContext): Promise<{ program: Program; url: string }> {
  const folder = await mkdtemp(join(tmpdir(), 'taskchart-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, 'taskchart.yaml');
  await writeFile(file, CONFIG);
  const program = taskchart(['serve', '--port', '0', '--config', file], { TASKCHART_AUTH__TOKEN: TOKEN });
  t.teardown(async () => {
    program.child.kill('SIGKILL');
    await program.exit;
  });
  const [, url = ''] = await program.printed(/"url":"([^"]+)"/);
  return { program, url };
}

function isMatch(line: Record<string, unknown>, fields: object): boolean {
  return Object.entries(fields).every(([key, value]) => line[key] === value);
}

test('run, tasks and cancel show the token of the environment or of the call, and complain without it', async (t) => {
  const { url } = await daemon(t);
  const env = { TASKCHART_TOKEN: TOKEN };
  const stranger = taskchart(['tasks', '--url', url]);
  t.is(await stranger.exit, 1);
  t.regex(stranger.stderr(), /^taskchart: INVALID_PARAMS: token: refused, MISSING_TOKEN\..*\n$/);
  const wrong = taskchart(['run', 'Once', '--url', url], { TASKCHART_TOKEN: 'wrong' });
  t.is(await wrong.exit, 1);
  t.regex(wrong.stderr(), /BAD_TOKEN/);

  const run = taskchart(['run', 'Once', '--url', url, '--max-tokens', '2', '--token', TOKEN]);
  t.is(await run.exit, 0);
  t.is(run.stdout(), 'Once t0 t1\n');
  const tasks = taskchart(['tasks', '--url', url, '--json'], env);
  t.is(await tasks.exit, 0);
  const { task_id } = JSON.parse(tasks.stdout()) as { task_id: string };
  t.is(await taskchart(['cancel', task_id, '--url', url], env).exit, 0);
  t.is(await taskchart(['cancel', task_id, '--url', url]).exit, 1);
});

test('a token among the arguments is not to be seen in the list of processes', async (t) => {
  if (process.platform !== 'linux') return t.pass();
  const { url } = await daemon(t);
  const run = taskchart(['run', 'Once', '--url', url, '--token', TOKEN]);
  await until(() => run.stdout().includes('t1'));
  const seen = await readFile(`/proc/${run.child.pid}/cmdline`, 'utf8');
  run.child.kill('SIGTERM');
  t.is(await run.exit, 130);
  t.false(seen.includes(TOKEN.slice(0, 6)), seen);
  t.true(seen.startsWith('taskchart'));
});

test('the log says who called, and never has a token', async (t) => {
  const { program, url } = await daemon(t);
  const headers = { Authorization: `Bearer ${TOKEN}`, 'X-API-Key': TOKEN };
  const post = (more: object): Promise<Response> =>
    fetch(`${url}/v1/tasks?token=${TOKEN}`, {
      method: 'POST',
      headers,
      body: JSON.stringify({ ...request, ...more }),
    });
  t.is((await post({ max_tokens: 1 })).status, 202);
  t.is((await post({ ctx: 1_000_000 })).status, 400);
  t.is((await fetch(`${url}/v1/pools`, { headers: { Authorization: `Bearer x${TOKEN}` } })).status, 401);
  const isLogged = (fields: object): boolean =>
    program
      .stdout()
      .split('\n')
      .slice(0, -1)
      .some((line) => isMatch(JSON.parse(line) as Record<string, unknown>, fields));
  for (const fields of [
    { actor: 'daemon', action: 'listen' },
    { actor: 'orchestrator', action: 'admit' },
    { actor: 'orchestrator', action: 'refuse' },
    { actor: 'task', action: 'end' },
  ])
    await until(() => isLogged({ ...fields, identity: IDENTITY }), JSON.stringify(fields));
  const [line] = await program.printed(/^.*"actor":"http".*$/m);
  t.like(JSON.parse(line), {
    action: 'refuse',
    target: '/v1/pools',
    error_kind: 'BAD_TOKEN',
    peer: '127.0.0.1',
  });
  program.child.kill('SIGTERM');
  t.is(await program.exit, 0);
  t.false((program.stdout() + program.stderr()).includes(TOKEN));
});

test('without a token this machine is called localhost in the log', async (t) => {
  const program = taskchart(['serve', '--port', '0']);
  const [, url] = await program.printed(/"url":"([^"]+)","identity":"localhost"/);
  const body = JSON.stringify({
    ...request,
    engine: 'llamacpp',
    model_ref: 'storyteller',
    ctx: 256,
    max_tokens: 1,
  });
  t.is((await fetch(`${url}/v1/tasks`, { method: 'POST', body })).status, 202);
  await program.printed(/"action":"admit".*"identity":"localhost"/);
  program.child.kill('SIGTERM');
  t.is(await program.exit, 0);
});

test('a daemon that others could reach does not start without a token, and says what to do', async (t) => {
  for (const host of ['0.0.0.0', '::', '192.168.1.10']) {
    const program = taskchart(['serve', '--host', host, '--port', '0']);
    t.is(await program.exit, 2, host);
    t.regex(
      program.stderr(),
      /server\.bind_addr: must be a loopback address.*set auth\.token \(TASKCHART_AUTH__TOKEN\)/,
    );
  }
  const short = taskchart(['serve', '--port', '0'], { TASKCHART_AUTH__TOKEN: 'hunter2' });
  t.is(await short.exit, 2);
  t.regex(short.stderr(), /^taskchart: TASKCHART_AUTH__TOKEN: auth\.token: must be 16 or more characters/);
  t.false(short.stderr().includes('hunter2'));
});

test('a mistake in the configuration is told without a credential that it quotes', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'taskchart-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, 'taskchart.yaml');
  const url = 'engine.example/?api_key=sk-live-0123';
  await writeFile(
    file,
    `pools: [{ id: a, engine: vllm, model: m, provisioning: { external: { url: '${url}' } } }]`,
  );
  const program = taskchart(['serve', '--config', file]);
  t.is(await program.exit, 2);
  t.regex(
    program.stderr(),
    /external\.url: must be .*, got "engine\.example\/\?api_key=\*{4}[0-9a-f]{6}"\n$/,
  );
});
