import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test, { type ExecutionContext } from 'ava';
import {
  ConfigError,
  createOrchestrator,
  openStorage,
  StoreError,
  TaskchartError,
  type LogEvent,
  type OrchestratorOptions,
  type Store,
} from '../src/index.ts';

const run = promisify(execFile);

const FAST: NonNullable<OrchestratorOptions['pools']> = [
  { id: 'fast', engine: 'synthetic', model: 'synthetic' },
];
const SLOW: NonNullable<OrchestratorOptions['pools']> = [
  { id: 'slow', engine: 'synthetic', model: 'synthetic', synthetic: { tokens_per_second: 50 } },
];

async function temporaryFolder(t: ExecutionContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'taskchart-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

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
  t.throws(() => createOrchestrator({ pools: [{ id: 'p', engine: 'clockwork' as 'synthetic' }] }), {
    instanceOf: ConfigError,
    message: /pools\[0\]\.engine/,
  });
  t.throws(() => createOrchestrator({ store: { kind: 'sqlite' } as unknown as Store }), {
    instanceOf: ConfigError,
    message: /^store: must be a store, such as the one in what openStorage\(folder\) gives/,
  });
});

test('a key or an id is one task, also when its engine has told its context meanwhile', async (t) => {
  const orchestrator = createOrchestrator();
  t.teardown(() => orchestrator.close(0));
  const request = { prompt: 'Once upon a time', max_tokens: 5 };
  const options = { idempotency_key: 'a story' };
  const task_id = randomUUID();
  await orchestrator.submit({ ...request, task_id });
  const first = await orchestrator.submit(request, options);
  for await (const event of first.events()) void event;
  t.is((await orchestrator.submit({ ...request, task_id })).id, task_id);
  const again = await orchestrator.submit(request, options);
  t.is(again.id, first.id);
  t.is(orchestrator.tasks().length, 2);
  const error = await t.throwsAsync(orchestrator.submit({ ...request, max_tokens: 6 }, options), {
    instanceOf: TaskchartError,
    message: /accepted with another body/,
  });
  t.is(error?.status, 409);
  for (const idempotency_key of ['', 'x'.repeat(129)])
    await t.throwsAsync(orchestrator.submit(request, { idempotency_key }), {
      instanceOf: TaskchartError,
      message: `idempotency_key: must have 1 to 128 characters, got ${idempotency_key.length}`,
    });
});

test('a session is kept alive, spent and ended as over HTTP', async (t) => {
  const orchestrator = createOrchestrator({ pools: FAST, session: { budgets: { tokens: 10 } } });
  t.teardown(() => orchestrator.close(0));
  const session_id = randomUUID();
  t.false(orchestrator.touchSession(session_id));
  const task = await orchestrator.submit({ session_id, prompt: 'x', max_tokens: 6 });
  for await (const event of task.events()) void event;
  t.true(orchestrator.touchSession(session_id));
  t.like(orchestrator.session(session_id), { turns: 1, tokens_budget_remaining: 4 });
  const error = await t.throwsAsync(orchestrator.submit({ session_id, prompt: 'x', max_tokens: 6 }), {
    instanceOf: TaskchartError,
  });
  t.like(error?.failure, { code: 'ADMISSION_REJECT', policy_label: 'budget.tokens', retriable: false });
  orchestrator.removeSession(session_id);
  t.like(orchestrator.session(session_id), { turns: 0, tokens_budget_remaining: 10 });
});

test('an observer sees a task’s way, and one that throws disturbs nobody', async (t) => {
  const orchestrator = createOrchestrator({ pools: FAST });
  t.teardown(() => orchestrator.close(0));
  const seen: string[] = [];
  orchestrator.observe(({ type }) => {
    if (type === 'task.admitted') throw new Error('an observer of mine');
  });
  const stop = orchestrator.observe((observation) => {
    if (observation.type.startsWith('task.')) seen.push(observation.type);
  });
  const warnings: string[] = [];
  const note = ({ message }: Error): void => void warnings.push(message);
  process.on('warning', note);
  t.teardown(() => process.off('warning', note));
  const task = await orchestrator.submit({ prompt: 'x', max_tokens: 2 });
  for await (const event of task.events()) void event;
  await task.info();
  t.is(seen[0], 'task.admitted');
  t.true(seen.includes('task.moved'));
  t.is(seen.at(-1), 'task.closed');
  stop();
  const { length } = seen;
  for await (const event of (await orchestrator.submit({ prompt: 'x', max_tokens: 2 })).events()) void event;
  t.is(seen.length, length);
  t.true(warnings.some((message) => message.includes('an observer of mine')));
});

test('after close in memory what waited is told and what ran is canceled, and nothing more is taken', async (t) => {
  const orchestrator = createOrchestrator({ pools: SLOW });
  const running = await orchestrator.submit({ prompt: 'x', max_tokens: 5000 });
  for await (const event of running.events()) if (event.type === 'token') break;
  const waiting = await orchestrator.submit({ prompt: 'x', max_tokens: 5 });
  await orchestrator.close(0);
  t.like(await running.info(), { state: 'ended', canceled: true });
  t.like(await waiting.info(), { state: 'error', error: { code: 'POOL_UNREADY' } });
  const error = await t.throwsAsync(orchestrator.submit({ prompt: 'x' }), { instanceOf: TaskchartError });
  t.is(error?.code, 'POOL_UNREADY');
});

test('with storage a task that was not finished goes on in the next orchestrator on the same folder', async (t) => {
  const folder = await temporaryFolder(t);
  const first = createOrchestrator({ ...(await openStorage(folder)), pools: SLOW });
  const { id } = await first.submit({ prompt: 'x', max_tokens: 60 });
  const before: LogEvent[] = [];
  for await (const event of first.task(id).events()) {
    before.push(event);
    if (event.type === 'token') void first.close(0);
  }
  await first.close();
  t.is(before.at(-1)?.type === 'end', false);

  const second = createOrchestrator({ ...(await openStorage(folder)), pools: SLOW });
  t.teardown(() => second.close(0));
  await second.recovered;
  const after: LogEvent[] = [];
  for await (const event of second.task(id).events({ after: before.length - 1 })) after.push(event);
  const events = [...before, ...after];
  t.deepEqual(
    events.map((event) => event.id),
    events.map((_, place) => place),
  );
  t.is((await second.task(id).info()).text, Array.from({ length: 60 }, (_, i) => ` t${i}`).join(''));
});

test('a folder that is in use says so with a code, and is free after close', async (t) => {
  const folder = await temporaryFolder(t);
  const orchestrator = createOrchestrator({ ...(await openStorage(folder)), pools: FAST });
  const error = await t.throwsAsync(openStorage(folder), { instanceOf: StoreError });
  t.is(error?.code, 'in_use');
  t.is(error?.message, `${join(folder, 'tasks.db')} is in use by another taskchart`);
  await orchestrator.close(0);
  const again = await openStorage(folder);
  await Promise.all([again.store.close(), again.task_log.close()]);
});

test('after close the files are whole: nothing is left beside them but the empty locks', async (t) => {
  const folder = await temporaryFolder(t);
  const orchestrator = createOrchestrator({ ...(await openStorage(folder)), pools: FAST });
  const task = await orchestrator.submit({ prompt: 'x', max_tokens: 5 });
  for await (const event of task.events()) void event;
  await orchestrator.close();
  t.deepEqual((await readdir(folder)).toSorted(), [
    'streams.db',
    'streams.db-lock',
    'tasks.db',
    'tasks.db-lock',
  ]);
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
