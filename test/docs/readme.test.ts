import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';
import { loadConfig } from '../../src/config.ts';
import { taskchart } from '../helpers/cli.ts';
import { parseSse } from '../helpers/server.ts';

const run = promisify(execFile);
const path = (name: string): string => fileURLToPath(new URL(`../../${name}`, import.meta.url));

/** The README's own commands, in their order. */
async function shellBlocks(): Promise<string[]> {
  const readme = await readFile(path('README.md'), 'utf8');
  return [...readme.matchAll(/```sh\n([\s\S]*?)```/g)].map((match) => match[1] as string);
}

test('the walk with curl works as it is written, in that order', async (t) => {
  const daemon = taskchart(['serve', '--port', '0']);
  t.teardown(async () => {
    daemon.child.kill('SIGTERM');
    await daemon.exit;
  });
  const url = (await daemon.printed(/"url":"([^"]+)"/))[1] as string;
  const curl = async (block: string | undefined): Promise<string> => {
    const command = (block ?? '').replaceAll('http://127.0.0.1:8080', url);
    return (await run('bash', ['-c', command], { timeout: 30_000 })).stdout;
  };
  const [, post, stream, resume, rest] = await shellBlocks();

  t.like(JSON.parse(await curl(post)), { task_id: '0198c0de-7a5c-7000-8000-000000000001' });
  const whole = await curl(stream);
  const events = parseSse(whole);
  t.is(events[0]?.event, 'started');
  t.is(events.at(-1)?.event, 'end');
  t.regex(whole, /event: narration\ndata: [^\n]*The task joins the queue/);
  const late = await curl(stream);
  t.deepEqual(parseSse(late), events);
  t.notRegex(late, /narration/);
  t.is(await curl(stream), late);
  t.deepEqual(parseSse(await curl(resume)), events.slice(21));
  t.regex(await curl(rest), /"state":"ended"[\s\S]*HTTP\/1\.1 204/);
});

test('the first two commands are the install and the demo', async (t) => {
  const [first] = await shellBlocks();
  t.is(first, 'npm ci\nnpm run demo\n');
});

test('the sample configuration is accepted', (t) => {
  const config = loadConfig({ file: path('docs/examples/taskchart.yaml') });
  t.deepEqual(
    config.pools.map(({ id }) => id),
    ['storyteller', 'big', 'load-test'],
  );
});

test('the library sample runs and ends by itself', async (t) => {
  const { stdout } = await run(process.execPath, [path('docs/examples/library.ts')], { timeout: 60_000 });
  t.regex(stdout, /[a-z ]{20,}[\s\S]*first_token_ms/);
});
