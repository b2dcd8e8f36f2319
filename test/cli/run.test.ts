import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { program, taskchart } from '../helpers/cli.ts';
import { startTestServer } from '../helpers/server.ts';

const states = (text: string): string[] =>
  [...text.matchAll(/^ *\d+ ms {2}(\w+)/gm)].map((match) => match[1] as string);

test('prints the story on stdout, and each state it passed with its time on stderr', async (t) => {
  const run = taskchart(['run', 'Once upon a time', '--max-tokens', '20']);
  t.is(await run.exit, 0);
  t.regex(run.stdout(), /^Once upon a time.{20,}\n$/s);
  t.deepEqual(states(run.stderr()), ['admitted', 'provisioning', 'placed', 'streaming', 'ended']);
});

test('--json prints the task’s events as lines', async (t) => {
  const run = taskchart(['run', 'Once', '--max-tokens', '3', '--json']);
  t.is(await run.exit, 0);
  const events = run
    .stdout()
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { type: string });
  t.is(events[0]?.type, 'started');
  t.is(events.at(-1)?.type, 'end');
  t.is(events.filter(({ type }) => type === 'token').length, 3);
});

test('the same runs against a daemon with --url', async (t) => {
  const daemon = taskchart(['serve', '--port', '0']);
  t.teardown(async () => {
    daemon.child.kill('SIGTERM');
    await daemon.exit;
  });
  const url = (await daemon.printed(/"url":"([^"]+)"/))[1] as string;
  const run = taskchart(['run', 'Once upon a time', '--max-tokens', '20', '--url', url]);
  t.is(await run.exit, 0, run.stderr());
  t.regex(run.stdout(), /^Once upon a time.{20,}\n$/s);
  const passed = states(run.stderr());
  t.is(passed[0], 'admitted');
  t.deepEqual(passed.slice(-3), ['placed', 'streaming', 'ended']);
});

test('Ctrl-C while the model is fetched cancels the task and exits cleanly', async (t) => {
  // A hub that takes its time: the model of the box would be there before a signal is.
  const hub = createServer(() => undefined).listen(0, '127.0.0.1');
  await once(hub, 'listening');
  t.teardown(() => {
    hub.closeAllConnections();
    hub.close();
  });
  const { port } = hub.address() as AddressInfo;
  const run = taskchart(['run', 'Once upon a time', '--model', 'hf:org/repo/m.gguf'], {
    HF_ENDPOINT: `http://127.0.0.1:${port}`,
  });
  await Promise.all([run.complained(/ms {2}provisioning/), once(hub, 'request')]);
  run.child.kill('SIGINT');
  t.is(await run.exit, 130);
  t.regex(run.stderr(), /ended \(canceled\)\n$/);
  t.is(run.stdout(), '');
});

test('Ctrl-C while tokens come cancels the task at the daemon', async (t) => {
  const server = await startTestServer({
    pools: [{ id: 'p', engine: 'synthetic', model: 'synthetic', synthetic: { tokens_per_second: 50 } }],
  });
  t.teardown(server.close);
  const run = taskchart(['run', 'Count:', '--max-tokens', '4000', '--url', server.url]);
  await run.printed(/t1/);
  run.child.kill('SIGINT');
  t.is(await run.exit, 130);
  t.regex(run.stdout(), /^Count: t0 t1.*\n$/);
  t.regex(run.stderr(), /ended \(canceled\)\n$/);
  t.is(server.orchestrator.core.pools.get('p')?.leases, 0);
});

test('an unknown model, an empty address and a missing file each end with one clear line', async (t) => {
  const missing = taskchart(['run', 'x', '--model', 'file:/nowhere/m.gguf']);
  t.is(await missing.exit, 1);
  t.regex(missing.stderr(), /model file \/nowhere\/m\.gguf does not exist/);
  const nobody = taskchart(['run', 'x', '--url', 'http://127.0.0.1:9']);
  t.is(await nobody.exit, 1);
  t.regex(nobody.stderr(), /^taskchart: POOL_UNAVAILABLE: nobody answers at http:\/\/127\.0\.0\.1:9/);
});

test('the demo tells a story and exits 0', async (t) => {
  const demo = program([fileURLToPath(new URL('../../tools/demo.ts', import.meta.url))]);
  t.is(await demo.exit, 0, demo.stderr());
  t.regex(demo.stdout(), /^Once upon a time.{50,}/s);
  t.deepEqual(states(demo.stderr()).slice(-2), ['streaming', 'ended']);
});
