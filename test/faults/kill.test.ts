/**
 * A daemon under load that is killed again and again, on the same folder. TASKCHART_FAULT_ROUNDS: how often (12),
 * TASKCHART_FAULT_SEED: repeats a run that failed; the moments are the same, what happens in them only nearly so.
 */
import test, { type ExecutionContext } from 'ava';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ConfigInput } from '../../src/config.ts';
import type { SessionInfo, TaskSummary } from '../../src/contract/generated/types.ts';
import { createOrchestrator } from '../../src/index.ts';
import { Chance } from './chance.ts';
import {
  findingsOfAll,
  findingsOfOrder,
  findingsOfTask,
  findingsOfWish,
  type Finding,
  type Told,
} from './check.ts';
import { Daemon } from './daemon.ts';
import { isOver, Ledger } from './ledger.ts';
import { wholeLog } from './readers.ts';
import { getTask, listTasks, Traffic, type Kind, type Moment } from './traffic.ts';

const ROUNDS = Number(process.env['TASKCHART_FAULT_ROUNDS'] ?? 12);
const SEED = Number(process.env['TASKCHART_FAULT_SEED'] ?? Date.now() % 2 ** 31);
const TASKS_A_ROUND = 30;
const BUDGET = 600;
const STORIES = ['Once upon a time', 'The fox', 'In the garden there was a little'];

const POOLS = [
  {
    id: 'many',
    engine: 'synthetic',
    model: 'many',
    slots: 6,
    ctx: 2048,
    synthetic: { tokens_per_second: 200 },
  },
  {
    id: 'one',
    engine: 'synthetic',
    model: 'one',
    slots: 1,
    ctx: 2048,
    synthetic: { tokens_per_second: 300 },
  },
  { id: 'story', engine: 'llamacpp', model: 'storyteller', slots: 2 },
] as const satisfies ConfigInput['pools'];

const CONFIG: ConfigInput = {
  server: { shutdown_ms: 150 },
  sse: { cancel_on_disconnect: false, metrics_period_ms: 100 },
  admission: { capacity: 100_000, idempotency_ttl_ms: 86_400_000 },
  session: { ttl_ms: 86_400_000, budgets: { tokens: BUDGET } },
  retention: { max_tasks: 1_000_000 },
  pools: [...POOLS],
};

const KINDS: Kind[] = [
  { engine: 'synthetic', model_ref: 'many', ctx: 1024, prompts: ['go'], max_tokens: [1, 60], weight: 6 },
  { engine: 'synthetic', model_ref: 'one', ctx: 1024, prompts: ['go'], max_tokens: [1, 20], weight: 3 },
  {
    engine: 'llamacpp',
    model_ref: 'storyteller',
    ctx: 512,
    prompts: STORIES,
    max_tokens: [1, 200],
    weight: 1,
  },
];

test('what was accepted is finished, read and told the same, however often the daemon is killed', async (t) => {
  t.timeout(60_000 + ROUNDS * 20_000);
  const stories = await undisturbed(STORIES, 200);
  const daemon = await Daemon.prepare(new Chance(SEED));
  const enough = new AbortController();
  t.teardown(async () => {
    enough.abort();
    await daemon.dispose();
  });
  const ledger = new Ledger();
  const traffic = new Traffic({
    daemon,
    ledger,
    chance: new Chance(SEED + 1),
    seed: SEED,
    kinds: KINDS,
    patience: enough,
  });
  const chance = new Chance(SEED + 2);
  const strikes: Record<string, number> = {};
  for (let round = 0; round < ROUNDS; round++) {
    // The first rounds have one strike of each kind, so that the shortest run has them all.
    const strike = STRIKES[round] ?? chance.one(STRIKES);
    strikes[strike] = (strikes[strike] ?? 0) + 1;
    await live(daemon, traffic, strike, chance);
    t.log(`round ${round} ${strike}`);
  }
  await daemon.start(CONFIG);
  const limit = setTimeout(() => enough.abort(new Error('the end has not come')), 60_000);
  await over(daemon, enough.signal);
  const late = setTimeout(() => enough.abort(new Error('the end has not come')), 10_000);
  await traffic.readersDone();
  clearTimeout(limit);
  clearTimeout(late);
  // What is told at the end is told from disk, by a process that has seen next to none of it: a task that no reader
  // was told the end of may run once more.
  await daemon.kill();
  await daemon.start(CONFIG);
  await over(daemon, AbortSignal.timeout(20_000));
  const tasks = await listTasks(daemon.url);
  const findings: Finding[] = [...daemon.mishaps, ...ledger.mishaps, ...findingsOfAll(ledger, tasks)];
  const told = new Map<string, Told>();
  await inTurns(tasks, async ({ task_id }) => {
    const each = await all(daemon, task_id, findings);
    if (each) told.set(task_id, each);
  });
  const limits = new Map(ledger.wishes.map(({ admission, request }) => [admission?.task_id, request]));
  for (const [task_id, each] of told) {
    const request = limits.get(task_id);
    const tokens = request?.max_tokens ?? Infinity;
    const text =
      each.info.model_ref === 'storyteller'
        ? (stories
            .get(request?.prompt ?? '')
            ?.slice(0, tokens)
            .join('') ?? each.info.text)
        : Array.from({ length: Math.min(tokens, each.info.usage?.tokens_out ?? 0) }, (_, i) => ` t${i}`).join(
            '',
          );
    findings.push(...findingsOfTask(each, text ?? ''));
  }
  for (const wish of ledger.accepted) {
    const each = told.get(wish.admission?.task_id ?? '');
    if (each) findings.push(...findingsOfWish(wish, each));
  }
  findings.push(...findingsOfOrder(tasks.filter(({ pool_id }) => pool_id === 'one').toReversed()));
  for (const session_id of traffic.shared_sessions)
    findings.push(...(await findingsOfSession(daemon, session_id, tasks)));
  report(t, ledger, told, strikes);
  t.deepEqual(findings.slice(0, 20), [], `TASKCHART_FAULT_SEED=${SEED} TASKCHART_FAULT_ROUNDS=${ROUNDS}`);
  await daemon.terminate();
  t.deepEqual(daemon.mishaps, []);
});

const STRIKES = [
  'kill when accepted',
  'kill while starting',
  'kill when canceled',
  'terminate',
  'kill when over',
  'kill twice',
  'kill while stopping',
  'kill soon',
  'kill',
] as const;

const MOMENTS: Partial<Record<(typeof STRIKES)[number], Moment>> = {
  'kill when accepted': 'accepted',
  'kill when canceled': 'canceled',
  'kill when over': 'over',
};

/** One life of the daemon, and its end. */
async function live(
  daemon: Daemon,
  traffic: Traffic,
  strike: (typeof STRIKES)[number],
  chance: Chance,
): Promise<void> {
  const lasts_ms = strike === 'kill soon' ? chance.between(0, 60) : chance.between(100, 800);
  const moment = MOMENTS[strike];
  const starting_ms = chance.between(0, 500);
  const stopping_ms = chance.between(0, 200);
  daemon.launch(CONFIG);
  if (strike === 'kill while starting' || strike === 'kill twice') {
    for (let times = strike === 'kill twice' ? 2 : 1; times > 0; times--) {
      await sleep(starting_ms / times);
      await daemon.kill();
      daemon.launch(CONFIG);
    }
  }
  await daemon.listening();
  const looks = traffic.lookAtCanceled();
  const posts = traffic.round(TASKS_A_ROUND, lasts_ms);
  await sleep(lasts_ms);
  if (moment) await Promise.race([traffic.next(moment), sleep(300)]);
  if (strike === 'terminate') await daemon.terminate();
  else if (strike === 'kill while stopping') await daemon.terminate(stopping_ms);
  else await daemon.kill();
  await Promise.all([looks, posts]);
}

/** Waits for every task to be over. */
async function over(daemon: Daemon, signal: AbortSignal): Promise<void> {
  for (;;) {
    signal.throwIfAborted();
    const tasks = await listTasks(daemon.url);
    if (tasks.every(isOver)) return;
    await sleep(100);
  }
}

/** Undefined where its stream has no end, which is then among the findings. */
async function all({ url }: Daemon, task_id: string, findings: Finding[]): Promise<Told | undefined> {
  try {
    return { info: await getTask(url, task_id), log: await wholeLog(url, task_id) };
  } catch (error) {
    findings.push((error as Error).message);
    return undefined;
  }
}

async function inTurns<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  for (let from = 0; from < items.length; from += 50)
    await Promise.all(items.slice(from, from + 50).map(work));
}

/** What the storyteller writes without a disturbance, token by token. */
async function undisturbed(prompts: readonly string[], max_tokens: number): Promise<Map<string, string[]>> {
  const orchestrator = createOrchestrator({ pools: [POOLS[2]] });
  const stories = new Map<string, string[]>();
  for (const prompt of prompts) {
    const task = await orchestrator.submit({ prompt, max_tokens, ctx: 512, deadline_ms: 60_000 });
    const tokens: string[] = [];
    for await (const event of task.events()) if (event.type === 'token') tokens.push(event.data.t);
    stories.set(prompt, tokens);
  }
  await orchestrator.close();
  return stories;
}

async function findingsOfSession(
  { url }: Daemon,
  session_id: string,
  tasks: readonly TaskSummary[],
): Promise<Finding[]> {
  const own = tasks.filter((task) => task.session_id === session_id);
  const spent = own.reduce((sum, { usage }) => sum + (usage?.tokens_out ?? 0), 0);
  const { turns, tokens_budget_remaining } = (await (
    await fetch(`${url}/v1/sessions/${session_id}`)
  ).json()) as SessionInfo;
  const findings: Finding[] = [];
  if (spent > BUDGET) findings.push(`session ${session_id} has spent ${spent} of ${BUDGET} tokens`);
  if (tokens_budget_remaining !== BUDGET - spent)
    findings.push(
      `session ${session_id} says that ${tokens_budget_remaining} tokens remain, it has spent ${spent} of ${BUDGET}`,
    );
  if (turns !== own.length) findings.push(`session ${session_id} counts ${turns} turns of ${own.length}`);
  return findings;
}

function report(
  t: ExecutionContext,
  ledger: Ledger,
  told: ReadonlyMap<string, Told>,
  strikes: Record<string, number>,
): void {
  const logs = [...told.values()].map(({ log }) => log);
  const resumed = logs.filter((log) => log.some(({ data }) => data.includes('"resumed":true'))).length;
  const readings = ledger.wishes.flatMap((wish) => wish.readings);
  const counts = {
    strikes,
    wanted: ledger.wishes.length,
    accepted: ledger.accepted.length,
    'without an answer': ledger.wishes.filter(({ unanswered }) => unanswered > 0).length,
    refused: ledger.wishes.filter(({ refused }) => refused).length,
    tasks: told.size,
    canceled: [...told.values()].filter(({ info }) => info.canceled).length,
    failed: [...told.values()].filter(({ info }) => info.state === 'error').length,
    'went on with another run': resumed,
    readers: readings.length,
    connections: readings.reduce((sum, { connections }) => sum + connections, 0),
    events: readings.reduce((sum, { seen }) => sum + seen.length, 0),
  };
  t.log(JSON.stringify(counts));
}
