import test from 'ava';
import { taskchart } from '../helpers/cli.ts';
import { startTestServer } from '../helpers/server.ts';

test('tasks lists newest first, with state, pool and failure, and only what was asked for', async (t) => {
  const server = await startTestServer({
    pools: [
      { id: 'fast', engine: 'synthetic', model: 'synthetic' },
      { id: 'broken', engine: 'synthetic', model: 'broken', synthetic: { fail: { at_token: 1 } } },
      { id: 'slow', engine: 'synthetic', model: 'slow', synthetic: { tokens_per_second: 1 } },
    ],
    retry: { continuations: 0 },
  });
  t.teardown(server.close);
  const done = await server.submit({ max_tokens: 3 });
  await server.raw(done);
  const failed = await server.submit({ model_ref: 'broken' });
  await server.raw(failed);
  const running = await server.submit({ model_ref: 'slow', max_tokens: 1000 });
  const waiting = await server.submit({ model_ref: 'slow', priority: 'batch' });

  const list = async (...args: string[]): Promise<string[]> => {
    const tasks = taskchart(['tasks', '--url', server.url, ...args]);
    t.is(await tasks.exit, 0, tasks.stderr());
    return tasks.stdout().trimEnd().split('\n');
  };
  const [head, ...lines] = await list();
  t.regex(head ?? '', /^TASK +STATE +POOL +PRIORITY +ADMITTED +TOOK +TOKENS$/);
  t.deepEqual(
    lines.map((line) => line.split(' ')[0]),
    [waiting, running, failed, done],
  );
  t.regex(lines[0] ?? '', /admitted \(0 ahead\) +slow +batch/);
  t.regex(lines[2] ?? '', /error +broken +interactive +\S+Z +[\d.]+ s +\d +[A-Z_]+: ./);
  t.regex(lines[3] ?? '', /ended +fast +interactive +\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ +[\d.]+ s +3$/);

  t.regex((await list('--state', 'ended')).join('\n'), new RegExp(`^TASK[^\n]*\n${done}[^\n]*$`));
  t.is((await list('--pool', 'slow')).length, 3);
  t.is((await list('--limit', '2')).length, 3);
  const [json] = await list('--json', '--limit', '1');
  t.like(JSON.parse(json ?? ''), { task_id: waiting, state: 'admitted' });
});

test('cancel ends a task, and says so where there was nothing to end', async (t) => {
  const server = await startTestServer({
    pools: [{ id: 'slow', engine: 'synthetic', model: 'synthetic', synthetic: { tokens_per_second: 1 } }],
  });
  t.teardown(server.close);
  const id = await server.submit({ max_tokens: 100 });
  const cancel = taskchart(['cancel', id, '--url', server.url]);
  t.is(await cancel.exit, 0, cancel.stderr());
  t.regex(cancel.stdout(), new RegExp(`^${id} is canceled \\(was \\w+\\)\n$`));
  t.like(await (await server.fetch(`/v1/tasks/${id}`)).json(), { state: 'ended', canceled: true });
  const again = taskchart(['cancel', id, '--url', server.url]);
  t.is(await again.exit, 0);
  t.is(again.stdout(), `${id} was over already (ended)\n`);
  const unknown = taskchart(['cancel', 'nobody', '--url', server.url]);
  t.is(await unknown.exit, 1);
  t.is(unknown.stderr(), 'taskchart: NOT_FOUND: task_id: there is no task "nobody"\n');
});

test('a mistake, and a daemon that is not there, end with one line', async (t) => {
  for (const [args, code, message] of [
    [
      ['tasks', '--url', 'http://127.0.0.1:9'],
      1,
      /^taskchart: POOL_UNAVAILABLE: nobody answers at http:\S+:9/,
    ],
    [['cancel', 'x', '--url', 'http://127.0.0.1:9'], 1, /^taskchart: POOL_UNAVAILABLE: nobody answers/],
    [['tasks', '--url', 'localhost'], 1, /^taskchart: --url: must be a URL such as/],
    [
      ['tasks', '--session', 'mine', '--url', 'SERVER'],
      1,
      /^taskchart: INVALID_PARAMS: session_id: must be a UUID/,
    ],
    [['tasks', '--state', 'happy'], 2, /Allowed choices are admitted, provisioning, placed/],
    [['tasks', '--limit', 'many'], 2, /must be a whole number from 1/],
    [['cancel'], 2, /missing required argument 'task'/],
  ] as const) {
    const server = args.includes('SERVER' as never) ? await startTestServer() : undefined;
    const called = taskchart(args.map((arg) => (arg === 'SERVER' ? (server?.url ?? '') : arg)));
    t.is(await called.exit, code, args.join(' '));
    t.regex(called.stderr(), message);
    t.is(called.stderr().trim().split('\n').length, 1);
    await server?.close();
  }
});
