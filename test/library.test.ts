import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';
import { ConfigError, createOrchestrator, TaskchartError, type LogEvent } from '../src/index.ts';

const run = promisify(execFile);

test('runs a task on the bundled model, without HTTP and without a configuration', async (t) => {
  const orchestrator = createOrchestrator();
  t.teardown(() => orchestrator.close(0));
  const task = await orchestrator.submit({ prompt: 'Once upon a time', max_tokens: 40 });
  const events: LogEvent[] = [];
  for await (const event of task.events()) events.push(event);
  t.is(events[0]?.type, 'started');
  const end = events.at(-1);
  t.is(end?.type, 'end');
  const text = events.map((event) => (event.type === 'token' ? event.data.t : '')).join('');
  t.regex(text, /[a-z]{3,}/);
  t.like(await task.info(), { state: 'ended', text, usage: { tokens_out: 40 } });
  const replay: LogEvent[] = [];
  for await (const event of orchestrator.task(task.id).events({ after: 10 })) replay.push(event);
  t.deepEqual(replay, events.slice(11));
});

test('the same task twice has the same text: sampling is greedy unless asked otherwise', async (t) => {
  const orchestrator = createOrchestrator();
  t.teardown(() => orchestrator.close(0));
  const texts: string[] = [];
  for (let i = 0; i < 2; i++) {
    const task = await orchestrator.submit({ prompt: 'A fox lived near the river.', max_tokens: 30 });
    for await (const event of task.events()) void event;
    texts.push((await task.info()).text);
  }
  t.is(texts[0], texts[1]);
  t.not(texts[0], '');
});

test('a prompt that does not fit the model is refused with its real number of tokens', async (t) => {
  const orchestrator = createOrchestrator();
  t.teardown(() => orchestrator.close(0));
  const prompt = 'The little fox ran home. '.repeat(400);
  const error = await t.throwsAsync(orchestrator.submit({ prompt, max_tokens: 20, ctx: 1024 }), {
    instanceOf: TaskchartError,
  });
  t.is(error?.code, 'INVALID_PARAMS');
  t.regex(error?.message ?? '', /^prompt: has \d{4} tokens, at most 1004 fit/);
});

test('an event loop left early does not cancel the task; cancel does', async (t) => {
  const orchestrator = createOrchestrator({
    pools: [{ id: 'p', engine: 'synthetic', model: 'synthetic', synthetic: { tokens_per_second: 500 } }],
  });
  t.teardown(() => orchestrator.close(0));
  const task = await orchestrator.submit({ prompt: 'x', max_tokens: 5000 });
  for await (const event of task.events()) if (event.type === 'token') break;
  t.is((await task.info()).state, 'streaming');
  await task.cancel();
  t.like(await task.info(), { state: 'ended', canceled: true });
});

test('a mistake in the options names the key', (t) => {
  t.throws(() => createOrchestrator({ pools: [{ id: 'p', engine: 'vllm' as 'synthetic' }] }), {
    instanceOf: ConfigError,
    message: /pools\[0\]\.engine/,
  });
});

test('after close nothing keeps the process alive', async (t) => {
  const library = fileURLToPath(new URL('../src/index.ts', import.meta.url));
  const program = `
    const { createOrchestrator } = await import(${JSON.stringify(library)});
    const orchestrator = createOrchestrator();
    const task = await orchestrator.submit({ prompt: 'Once', max_tokens: 5 });
    for await (const event of task.events()) void event;
    const queued = await orchestrator.submit({ prompt: 'Twice', max_tokens: 500 });
    await orchestrator.close(0);
    await orchestrator.close(0);
    const { state } = await queued.info();
    // A closed handle is listed until the end of the turn in which it was closed.
    for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate);
    console.log(JSON.stringify({ state, left: process.getActiveResourcesInfo().filter((name) => !/TTY|Pipe/.test(name)) }));
  `;
  const { stdout } = await run(process.execPath, ['--input-type=module', '-e', program], { timeout: 30_000 });
  t.deepEqual(JSON.parse(stdout), { state: 'ended', left: [] });
});
