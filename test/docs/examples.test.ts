import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { createClient } from '../../src/client/index.ts';
import { program, type Program } from '../helpers/cli.ts';
import { parseSse } from '../helpers/server.ts';

// One after the other: each is a process that loads a model.

/** Tells what is left when nothing keeps the program alive any more, which a call of `process.exit` would not reach. */
const LAST_WORD = `import { isMainThread } from 'node:worker_threads';
if (isMainThread) process.on('beforeExit', () => {
  const left = process.getActiveResourcesInfo().filter((name) => !/TTY|Pipe/.test(name));
  process._rawDebug('left: ' + JSON.stringify(left));
});`;

function example(name: string, env: NodeJS.ProcessEnv = {}): Program {
  const file = fileURLToPath(new URL(`../../docs/examples/${name}.ts`, import.meta.url));
  return program([file], {
    NODE_OPTIONS: `--conditions=taskchart-source --import=data:text/javascript,${encodeURIComponent(LAST_WORD)}`,
    PORT: '0',
    ...env,
  });
}

const STORY = {
  workload: 'completion',
  engine: 'llamacpp',
  model_ref: 'storyteller',
  priority: 'interactive',
  ctx: 512,
  max_tokens: 20,
  deadline_ms: 60_000,
  prompt: 'Once upon a time',
} as const;

for (const name of ['koa', 'express', 'fastify'])
  test.serial(
    `the ${name} example serves taskchart under /llm beside its own page, and ends by itself on SIGTERM`,
    async (t) => {
      const service = example(name);
      t.teardown(() => service.child.kill('SIGKILL'));
      const url = (await service.printed(/^(http:\S+\/llm)$/m))[1] as string;
      const { origin } = new URL(url);
      const response = await fetch(`${url}/v1/tasks`, { method: 'POST', body: JSON.stringify(STORY) });
      t.is(response.status, 202);
      const { task_id, streams } = (await response.json()) as { task_id: string; streams: { sse: string } };
      t.is(response.headers.get('Location'), `/llm/v1/tasks/${task_id}`);
      t.is(streams.sse, `/llm/v1/tasks/${task_id}/stream`);
      const events = parseSse(await (await fetch(origin + streams.sse)).text());
      t.like(events.at(-1), { event: 'end', data: { tokens_out: STORY.max_tokens } });

      const client = createClient({ base_url: url });
      const long = client.run({ ...STORY, max_tokens: 400 });
      await long.cancel();
      t.like(await client.task((await long.admission).task_id), { state: 'ended', canceled: true });
      t.is((await fetch(`${url}/v1/nothing`)).status, 404);
      t.is((await fetch(`${url}/v1/tasks`, { method: 'DELETE' })).status, 405);
      t.is((await fetch(`${url}/healthz`, { method: 'HEAD' })).status, 200);
      t.is(await (await fetch(origin)).text(), 'The rest of the service.');

      const { task_id: last } = await client.submit({ ...STORY, max_tokens: 200 });
      const reader = await fetch(`${url}/v1/tasks/${last}/stream`);
      service.child.kill('SIGTERM');
      t.regex(await reader.text(), /event: end\n/);
      t.is(await service.exit, 0);
      t.is(service.stderr(), 'left: []\n');
    },
  );

test.serial(
  'the durable example tells its story once, and again from disk when it is started again',
  async (t) => {
    const folder = await mkdtemp(join(tmpdir(), 'taskchart-'));
    t.teardown(() => rm(folder, { recursive: true, force: true }));
    const stories: string[] = [];
    for (let start = 0; start < 2; start++) {
      const run = example('durable', { TASKCHART_DATA: folder });
      t.is(await run.exit, 0, run.stderr());
      t.is(run.stderr(), 'left: []\n');
      stories.push(run.stdout());
    }
    t.regex(stories[0] ?? '', /[a-z ]{20,}/);
    t.is(stories[1], stories[0]);
  },
);

test.serial('the durable example goes on where it was killed', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'taskchart-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const first = example('durable', { TASKCHART_DATA: folder });
  first.child.kill('SIGKILL');
  await first.exit;
  const second = example('durable', { TASKCHART_DATA: folder });
  await second.printed(/\w/);
  second.child.kill('SIGKILL');
  await second.exit;
  const third = example('durable', { TASKCHART_DATA: folder });
  t.is(await third.exit, 0, third.stderr());
  t.true(third.stdout().startsWith(second.stdout()));
});

test.serial('the session example spends its budget and is told so', async (t) => {
  const run = example('sessions');
  t.is(await run.exit, 0, run.stderr());
  t.is(run.stderr(), 'left: []\n');
  t.regex(
    run.stdout(),
    /^\S+ is over\n40 tokens are left\nADMISSION_REJECT budget\.tokens false session budget tokens: 40 of 100 tokens are left/,
  );
});
