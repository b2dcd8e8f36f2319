import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';
import { taskchart } from '../helpers/cli.ts';

const run = promisify(execFile);
const TOKEN = 'correct-horse-battery';

async function shellBlocks(name: string): Promise<string[]> {
  const page = await readFile(fileURLToPath(new URL(`../../${name}`, import.meta.url)), 'utf8');
  return [...page.matchAll(/```sh\n([\s\S]*?)```/g)].map((match) => match[1] as string);
}

test('the calls of the page do what it says of them', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'taskchart-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, 'taskchart.yaml');
  await writeFile(file, 'pools: [{ id: only, engine: synthetic, model: synthetic }]');
  const daemon = taskchart(['serve', '--port', '0', '--config', file], { TASKCHART_AUTH__TOKEN: TOKEN });
  t.teardown(async () => {
    daemon.child.kill('SIGTERM');
    await daemon.exit;
  });
  const [, url = ''] = await daemon.printed(/"url":"([^"]+)"/);
  const curl = async (block: string | undefined): Promise<string> => {
    const command = (block ?? '').replaceAll('http://127.0.0.1:8080', url);
    const env = { ...process.env, TASKCHART_TOKEN: TOKEN };
    return (await run('bash', ['-c', command], { timeout: 30_000, env })).stdout;
  };

  const [start, served, refused, registration] = await shellBlocks('docs/access.md');
  t.regex(
    String(start),
    /^export TASKCHART_TOKEN=.*\nTASKCHART_AUTH__TOKEN=\$TASKCHART_TOKEN npm start -- --host 0\.0\.0\.0\n$/,
  );
  t.like(JSON.parse(await curl(served)), { pools: [{ pool_id: 'only' }] });
  t.true((await shellBlocks('README.md')).includes(String(served)));
  const answers = await curl(refused);
  t.regex(
    answers,
    /^HTTP\/1\.1 401 [\s\S]*"code":40101,"message":"MISSING_TOKEN"[\s\S]*HTTP\/1\.1 401 [\s\S]*"code":40102,"message":"BAD_TOKEN"/,
  );
  t.regex(answers, /^WWW-Authenticate: Bearer\r$/m);
  // The page’s pool is not one of this daemon’s.
  t.like(JSON.parse(await curl(registration)), {
    code: 'INVALID_PARAMS',
    message: 'pool_id: there is no pool "big"',
  });
});
