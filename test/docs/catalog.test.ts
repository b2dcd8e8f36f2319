import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import test from 'ava';
import { taskchart } from '../helpers/cli.ts';
import { until } from '../helpers/until.ts';

const run = promisify(execFile);

test('the walk through the catalog works as it is written, in that order', async (t) => {
  const page = await readFile(new URL('../../docs/catalog.md', import.meta.url), 'utf8');
  const [list, add, submit, verify, retire, strict, remove, ...more] = [
    ...page.matchAll(/```sh\n([\s\S]*?)```/g),
  ].map((match) => match[1] as string);
  t.deepEqual(more, []);
  const daemon = taskchart(['serve', '--port', '0']);
  t.teardown(async () => {
    daemon.child.kill('SIGTERM');
    await daemon.exit;
  });
  const url = (await daemon.printed(/"url":"([^"]+)"/))[1] as string;
  await daemon.printed(/"action":"ingest"/);
  const curl = async (block: string | undefined): Promise<string> => {
    const command = (block ?? '').replaceAll('http://127.0.0.1:8080', url);
    return (await run('bash', ['-c', command], { timeout: 30_000 })).stdout;
  };
  /** Several answers come one after the other. */
  const answers = (text: string): Record<string, unknown>[] =>
    JSON.parse(`[${text.replaceAll('}{', '},{')}]`) as Record<string, unknown>[];

  t.like(JSON.parse(await curl(list)), { models: [{ id: 'storyteller', state: 'Active' }] });
  const [added, read] = answers(await curl(add));
  t.like(added, { id: 'team/tales:v1', tags: ['stories'], state: 'Active', source_url: 'storyteller' });
  t.deepEqual(read, added);
  t.is(typeof (JSON.parse(await curl(submit)) as { task_id: unknown }).task_id, 'string');

  t.deepEqual(answers(await curl(verify))[0], { status: 'started' });
  const again = verify?.split('\n')[1];
  await until(async () => /"verification":"pass","last_verified_ms":\d+/.test(await curl(again)));

  const [retired, refused, taken] = answers(await curl(retire));
  t.deepEqual([retired, taken], [{ status: 'accepted' }, { status: 'accepted' }]);
  t.like(refused, { code: 'MODEL_DEPRECATED' });
  t.like(JSON.parse(await curl(strict)), { code: 'UNTRUSTED_ARTIFACT' });
  t.regex(await curl(remove), /^HTTP\/1\.1 204/);
});
