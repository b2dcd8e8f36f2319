import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ConfigInput } from '../src/config.ts';
import { fileOf, Program, startServerProgram, withConfig, type Measure, type Server } from './harness.ts';
import type { SoakAnswer, SoakQuestion } from './programs/soak-clients.ts';
import type { LastWords } from './programs/watch.ts';

export interface SoakOptions {
  tasks: number;
  /** Tasks before the first look at the heap: compiled code and caches are then as large as they get. */
  warm_up: number;
  clients: number;
  store: 'sqlite' | 'memory';
  seed: number;
}

export interface Soaked {
  measures: Measure[];
  /** What must not have happened, in words. */
  mishaps: string[];
}

const OPTIONS: SoakOptions = { tasks: 100_000, warm_up: 5000, clients: 300, store: 'sqlite', seed: 1 };

/** So few that they weigh nothing, and as many of them at the first look as at the last. */
const RETAINED = 200;
const TTL_MS = 1000;

/** Many tasks of every kind: nothing is lost, nothing is counted wrong, and nothing is left when they are over. */
export default async function bench(): Promise<Measure[]> {
  return told(await soak(OPTIONS));
}

/** The same without files. */
export async function inMemory(): Promise<Measure[]> {
  return told(await soak({ ...OPTIONS, store: 'memory' }));
}

function told({ measures, mishaps }: Soaked): Measure[] {
  for (const mishap of mishaps) process.stderr.write(`soak: ${mishap}\n`);
  return measures;
}

export async function soak({ tasks, warm_up, clients, store, seed }: SoakOptions): Promise<Soaked> {
  const folder = mkdtempSync(join(tmpdir(), 'taskchart-bench-'));
  const asked = new Program('bench/programs/soak-clients.ts');
  const mishaps: string[] = [];
  try {
    const daemon = await watched(folder, store);
    const ask = async (count: number): Promise<SoakAnswer> => {
      const question: SoakQuestion = { url: daemon.url, tasks: count, clients, seed: seed + count };
      const answer = await asked.ask<SoakAnswer>(question);
      await idle(daemon.url);
      return answer;
    };
    const first = await ask(warm_up);
    const start = await daemon.program.ask<{ heap: number; rss: number }>('heap');
    const start_bytes = bytesOf(folder);
    const cpu_before = daemon.program.cpu();
    const answer = await ask(tasks);
    const cpu_ms = daemon.program.cpu() - cpu_before;
    const end = await daemon.program.ask<{ heap: number; rss: number }>('heap');
    const counted = sums(await (await fetch(`${daemon.url}/metrics`)).text());
    const end_bytes = bytesOf(folder);
    const before_stop = performance.now();
    await daemon.program.stop(10_000);
    const stop_ms = performance.now() - before_stop;
    const last = JSON.parse(readFileSync(join(folder, 'watch.json'), 'utf8')) as LastWords;

    const accepted = first.accepted + answer.accepted;
    const over = counted('tasks_ended_total') + counted('tasks_failed_total');
    const refused = [first, answer].flatMap((each) => Object.values(each.refused)).reduce((a, b) => a + b, 0);
    const is = (what: string, value: number, right: number): void => {
      if (value !== right) mishaps.push(`${what}: ${value} instead of ${right}`);
    };
    is('tasks_enqueued_total', counted('tasks_enqueued_total'), accepted);
    is('tasks that ended or failed', over, accepted);
    is('tasks_rejected_total', counted('tasks_rejected_total'), refused);
    is('queue_depth', counted('queue_depth'), 0);
    is('active_leases', counted('active_leases'), 0);
    is('accepted and refused', accepted + refused, tasks + warm_up);
    is('exit code', last.code, 0);
    mishaps.push(...first.mishaps, ...answer.mishaps);
    if (!last.by_itself) mishaps.push('the daemon did not end by itself');
    if (last.resources.length > 0) mishaps.push(`left open: ${last.resources.join(', ')}`);
    const endings = Object.entries(answer.endings).toSorted(([, a], [, b]) => b - a);
    const measures: Measure[] = [
      { what: 'tasks', value: answer.accepted / answer.seconds, unit: 'per second' },
      { what: 'processor time of a task', value: (cpu_ms * 1000) / answer.accepted, unit: 'µs' },
      { what: 'what must not happen', value: mishaps.length, unit: '', at_most: 0 },
      {
        what: 'heap at the end, of that at the start',
        value: end.heap / start.heap,
        unit: '×',
        at_most: 1.1,
      },
      { what: 'heap at the start', value: start.heap / 1e6, unit: 'MB' },
      { what: 'resident memory, at the start', value: start.rss / 1e6, unit: 'MB' },
      { what: 'and at the end', value: end.rss / 1e6, unit: 'MB' },
      { what: 'from SIGTERM until the process is gone', value: stop_ms, unit: 'ms', at_most: 1000 },
      { what: 'handles left then', value: last.resources.length, unit: '', at_most: 0 },
      ...(store === 'memory' ? [] : sizes(start_bytes, end_bytes)),
      { what: 'accepted', value: answer.accepted, unit: '' },
      ...Object.entries(answer.refused).map(([code, value]) => ({
        what: `refused: ${code}`,
        value,
        unit: '',
      })),
      ...endings.map(([ending, value]) => ({ what: `streams read to the end: ${ending}`, value, unit: '' })),
      ...[...counted.by('tasks_canceled_total', 'reason')].map(([reason, value]) => ({
        what: `canceled: ${reason}`,
        value,
        unit: '',
      })),
      { what: 'tokens read', value: answer.tokens, unit: '' },
      { what: 'readers that paused', value: answer.slow, unit: '' },
      { what: 'readers that came back', value: answer.resumed, unit: '' },
      { what: 'readers that left', value: answer.left, unit: '' },
      { what: 'cancels', value: answer.canceled, unit: '' },
    ];
    return { measures, mishaps };
  } finally {
    await asked.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The daemon, with somebody inside who can force garbage collection. */
async function watched(folder: string, store: SoakOptions['store']): Promise<Server> {
  const config: ConfigInput = {
    runtime: { dir: folder },
    store: { kind: store },
    retention: { max_tasks: RETAINED },
    session: { ttl_ms: TTL_MS },
    admission: { capacity: 100_000, idempotency_ttl_ms: TTL_MS },
    sse: { disconnect_grace_ms: 20 },
    pools: [
      { id: 'large', engine: 'synthetic', model: 'large', slots: 32 },
      {
        id: 'paced',
        engine: 'synthetic',
        model: 'paced',
        slots: 64,
        synthetic: { first_token_ms: 5, tokens_per_second: 100 },
      },
      {
        id: 'small',
        engine: 'synthetic',
        model: 'small',
        slots: 1,
        queue: { capacity: 4 },
        synthetic: { tokens_per_second: 1000 },
      },
    ],
  };
  return withConfig(config, (args) =>
    startServerProgram('src/cli/main.ts', {
      args,
      stdout: 'file',
      node: ['--expose-gc', '--import', fileOf('bench/programs/watch.ts')],
      env: { WATCH: join(folder, 'watch.json') },
    }),
  );
}

/** Waits until every task is over and every session has expired; keys leave with the next one that is used. */
async function idle(url: string): Promise<void> {
  for (;;) {
    const counted = sums(await (await fetch(`${url}/metrics`)).text());
    if (['queue_depth', 'active_leases', 'sessions_active'].every((name) => counted(name) === 0)) return;
    await sleep(50);
  }
}

interface Counted {
  /** Over all of its labels. */
  (name: string): number;
  by: (name: string, label: string) => Map<string, number>;
}

function sums(exposition: string): Counted {
  const samples = [...exposition.matchAll(/^(\w+)(?:\{([^}]*)\})? ([\d.e+]+)$/gm)];
  const sumBy = (name: string, keyOf: (labels: string) => string): Map<string, number> => {
    const totals = new Map<string, number>();
    for (const [, found, labels = '', value] of samples)
      if (found === name) totals.set(keyOf(labels), (totals.get(keyOf(labels)) ?? 0) + Number(value));
    return totals;
  };
  return Object.assign((name: string) => sumBy(name, () => '').get('') ?? 0, {
    by: (name: string, label: string) =>
      sumBy(name, (labels) => new RegExp(`${label}="([^"]*)"`).exec(labels)?.[1] ?? ''),
  });
}

function bytesOf(folder: string): Map<string, number> {
  return new Map(
    readdirSync(folder)
      .filter((name) => /\.db(-wal)?$/.test(name))
      .map((name) => [name, statSync(join(folder, name)).size]),
  );
}

function sizes(start: ReadonlyMap<string, number>, end: ReadonlyMap<string, number>): Measure[] {
  return [...end].flatMap(([name, bytes]) => [
    { what: `${name} at the end`, value: bytes / 1e6, unit: 'MB', at_most: name.endsWith('-wal') ? 70 : 10 },
    { what: `${name} at the start`, value: (start.get(name) ?? 0) / 1e6, unit: 'MB' },
  ]);
}
