/** A daemon that is killed while it holds 20,000 tasks. TASKCHART_FAULT_SEED repeats a run that failed. */
import test from 'ava';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ConfigInput } from '../../src/config.ts';
import type { PoolSummary, TaskRequest } from '../../src/contract/generated/types.ts';
import { Chance, uuidOf } from './chance.ts';
import { findingsOfOrder, findingsOfTask, type Finding } from './check.ts';
import { Daemon } from './daemon.ts';
import { postMany } from './post-many.ts';
import { wholeLog } from './readers.ts';
import { getTask, listTasks } from './traffic.ts';

const TASKS = 20_000;
const READ = 200;
const SEED = Number(process.env['TASKCHART_FAULT_SEED'] ?? Date.now() % 2 ** 31);

function config(load_ms: number): ConfigInput {
  return {
    server: { shutdown_ms: 50 },
    admission: { capacity: 2 * TASKS },
    retention: { max_tasks: 2 * TASKS },
    supervision: { load_timeout_ms: 2_000_000_000 },
    log: { level: 'info' },
    pools: [{ id: 'p', engine: 'synthetic', model: 'large', slots: 1, synthetic: { load_ms } }],
  };
}

/** Its pool never gets ready, so that tasks only wait. */
const WAITS = config(2_000_000_000);
const RUNS = config(0);

test('20,000 waiting tasks outlive kills while they are posted, while they are recovered and while they run', async (t) => {
  t.timeout(180_000);
  const chance = new Chance(SEED);
  const daemon = await Daemon.prepare(chance);
  t.teardown(() => daemon.dispose());
  const requests = Array.from({ length: TASKS }, (_, number): TaskRequest => ({
    task_id: uuidOf(SEED, number),
    workload: 'completion',
    engine: 'synthetic',
    model_ref: 'large',
    ctx: 1024,
    priority: number % 3 === 0 ? 'interactive' : 'batch',
    max_tokens: 1 + (number % 3),
    deadline_ms: 3_600_000,
    prompt: `number ${number}`,
  }));
  const accepted = new Set<string>();
  await daemon.start(WAITS);
  const enough = chance.between(TASKS / 4, TASKS / 2);
  let killed: Promise<void> | undefined;
  await postMany(daemon.url, requests, (task_id) => {
    accepted.add(task_id);
    if (accepted.size >= enough) killed ??= daemon.kill();
  });
  await killed;
  const before = new Set(accepted);
  await recoverUnderFire(daemon, chance, WAITS);
  const kept = new Set((await listTasks(daemon.url)).map(({ task_id }) => task_id));
  t.deepEqual(
    [...before].filter((id) => !kept.has(id)),
    [],
    'accepted, and not there after a kill',
  );
  await postMany(daemon.url, requests, (task_id) => accepted.add(task_id));
  t.is(accepted.size, TASKS);
  await daemon.kill();

  await recoverUnderFire(daemon, chance, RUNS);
  for (const strike of ['kill', 'terminate', 'kill'] as const) {
    await sleep(chance.between(50, 600));
    await daemon[strike]();
    await daemon.start(RUNS);
  }
  while (!(await isIdle(daemon.url))) await sleep(50);
  await daemon.kill();
  // The last ends may not have been on disk yet: nobody was told of them, and those tasks run once more.
  await daemon.start(RUNS);
  while (!(await isIdle(daemon.url))) await sleep(50);
  const tasks = await listTasks(daemon.url);
  const findings: Finding[] = [...daemon.mishaps];
  t.deepEqual(
    tasks.map(({ task_id }) => task_id).toSorted(),
    requests.map(({ task_id }) => task_id as string),
    'each once, and no other',
  );
  const limits = new Map(requests.map(({ task_id, max_tokens }) => [task_id, max_tokens]));
  for (const { task_id, state, usage } of tasks)
    if (state !== 'ended' || usage?.tokens_out !== limits.get(task_id))
      findings.push(
        `task ${task_id} is ${state} after ${usage?.tokens_out} of ${limits.get(task_id)} tokens`,
      );
  findings.push(...findingsOfOrder(tasks.toReversed()));
  for (let read = 0; read < READ; read++) {
    const { task_id, usage } = chance.one(tasks);
    const text = Array.from({ length: usage?.tokens_out ?? 0 }, (_, i) => ` t${i}`).join('');
    const told = { info: await getTask(daemon.url, task_id), log: await wholeLog(daemon.url, task_id) };
    findings.push(...findingsOfTask(told, text));
  }
  t.deepEqual(findings.slice(0, 20), [], `TASKCHART_FAULT_SEED=${SEED}`);
  t.log(`${daemon.starts} starts, ${before.size} of ${TASKS} accepted before the first kill`);
});

/** Nothing waits and nothing runs. */
async function isIdle(url: string): Promise<boolean> {
  const { pools } = (await (await fetch(`${url}/v1/pools`)).json()) as { pools: PoolSummary[] };
  return pools.every((pool) => pool.queue_depth === 0 && pool.slots_free === pool.slots_total);
}

/** Starts a daemon that is killed twice before it has everything again. */
async function recoverUnderFire(daemon: Daemon, chance: Chance, settings: ConfigInput): Promise<void> {
  for (let times = 0; times < 2; times++) {
    daemon.launch(settings);
    await sleep(chance.between(20, 700));
    await daemon.kill();
  }
  await daemon.start(settings);
}
