import { copyFileSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { openSqliteTaskLog } from '../../src/streams/sqlite-log.ts';
import { createOrchestrator, openStorage, type EmbeddedOrchestrator } from '../../src/index.ts';
import type { LogEvent } from '../../src/streams/task-log.ts';
import { until } from '../helpers/until.ts';

function folder(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'taskchart-faults-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

async function open(t: ExecutionContext, path: string, load_ms: number): Promise<EmbeddedOrchestrator> {
  const orchestrator = createOrchestrator({
    ...(await openStorage(path)),
    pools: [{ id: 'p', engine: 'synthetic', synthetic: { load_ms, tokens_per_second: 50 } }],
  });
  t.teardown(() => orchestrator.close(0));
  await orchestrator.recovered;
  return orchestrator;
}

/** The files as they are now, which is what a process leaves that is killed in this moment. */
function killedNow(t: ExecutionContext, path: string): string {
  const copy = folder(t);
  copyFiles(path, copy, /\.db(-wal)?$/);
  return copy;
}

function copyFiles(from: string, to: string, names: RegExp): void {
  for (const name of readdirSync(from)) if (names.test(name)) copyFileSync(join(from, name), join(to, name));
}

/** As far as they are there, without waiting for ever. */
async function eventsOf(orchestrator: EmbeddedOrchestrator, id: string): Promise<LogEvent[]> {
  const events: LogEvent[] = [];
  const signal = AbortSignal.timeout(500);
  for await (const event of orchestrator.task(id).events({ signal })) events.push(event);
  return events;
}

// Whoever has a 204 relies on it; a process that is killed in the same moment must not run the task again.
for (const [what, load_ms, state] of [
  ['waits', 2_000_000_000, 'provisioning'],
  ['runs', 0, 'streaming'],
] as const)
  test(`a task that ${what} is canceled on disk before its cancel is answered`, async (t) => {
    const path = folder(t);
    const orchestrator = await open(t, path, load_ms);
    const task = await orchestrator.submit({ prompt: 'go', max_tokens: 1000 });
    await until(async () => (await task.info()).state === state);
    await task.cancel();
    const next = await open(t, killedNow(t, path), load_ms);
    t.like(await next.task(task.id).info(), { state: 'ended', canceled: true });
    t.like((await eventsOf(next, task.id)).at(-1), { type: 'end', data: { canceled: true } });
  });

// A store that says that the task is over has dropped its prompt, so the task cannot run again.
test('a stream that has lost its last moments to a loss of power still tells its readers an end', async (t) => {
  const path = folder(t);
  const orchestrator = await open(t, path, 0);
  const task = await orchestrator.submit({ prompt: 'go', max_tokens: 20 });
  await until(async () => (await task.info()).text.length > 10);
  // The log's commits are not forced to the disk, the store's are.
  const lost = killedNow(t, path);
  await eventsOf(orchestrator, task.id);
  await until(async () => (await task.info()).state === 'ended');
  await orchestrator.close();
  for (const name of readdirSync(lost)) if (name.startsWith('tasks')) rmSync(join(lost, name));
  copyFiles(path, lost, /^tasks\.db(-wal)?$/);
  const next = await open(t, lost, 0);
  t.regex((await next.task(task.id).info()).state, /ended|error/);
  t.regex((await eventsOf(next, task.id)).at(-1)?.type ?? 'nothing', /end|error/);
});

test('what a client was told is forgotten stays forgotten, and a log that nobody knows goes with its task', async (t) => {
  const path = folder(t);
  const orchestrator = await open(t, path, 0);
  const task = await orchestrator.submit({ prompt: 'go', max_tokens: 2 });
  await eventsOf(orchestrator, task.id);
  await until(async () => (await task.info()).state === 'ended');
  const before = killedNow(t, path);
  await orchestrator.remove(task.id);
  const lost = killedNow(t, path);
  // The store has forgotten the task, and its log is the one of before.
  for (const name of readdirSync(lost)) if (name.startsWith('streams')) rmSync(join(lost, name));
  copyFiles(before, lost, /^streams\.db(-wal)?$/);
  const next = await open(t, lost, 0);
  t.throws(() => next.task(task.id), { message: /no task/ });
  await next.close();
  const log = await openSqliteTaskLog(join(lost, 'streams.db'));
  t.teardown(() => log.close());
  t.false(log.isClosed(task.id));
});
