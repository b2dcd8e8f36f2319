import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MODEL } from './bodies.ts';
import { median, Program, startServerProgram, withConfig, type Measure, type Server } from './harness.ts';
import type { LoadAnswer, LoadQuestion } from './programs/load.ts';

const TASKS = 100_000;
const A_ROUND = 10_000;
const STARTS = 3;

/** From the start of a daemon that was killed with 100,000 waiting tasks until it answers, all of them known again. */
export default async function recovery(): Promise<Measure[]> {
  const load = new Program('bench/programs/load.ts');
  const folder = mkdtempSync(join(tmpdir(), 'taskchart-bench-'));
  try {
    const empty: number[] = [];
    for (let start = 0; start < STARTS; start++) {
      const { daemon, ms } = await started(folder);
      empty.push(ms);
      await daemon.program.kill();
    }
    const { daemon } = await started(folder);
    for (let posted = 0; posted < TASKS; posted += A_ROUND) {
      const question: LoadQuestion = { url: daemon.url, connections: 64, requests: A_ROUND };
      const { statuses } = await load.ask<LoadAnswer>(question);
      if (statuses['202'] !== A_ROUND)
        throw new Error(`not every task was accepted: ${JSON.stringify(statuses)}`);
    }
    await daemon.program.kill();
    const full: number[] = [];
    for (let start = 0; start < STARTS; start++) {
      const again = await started(folder);
      full.push(again.ms);
      const { pools } = (await (await fetch(`${again.daemon.url}/v1/pools`)).json()) as {
        pools: { queue_depth: number }[];
      };
      if (pools[0]?.queue_depth !== TASKS)
        throw new Error(`${pools[0]?.queue_depth} tasks wait instead of ${TASKS}`);
      await again.daemon.program.kill();
    }
    return [
      { what: 'start with 100,000 waiting tasks', value: median(full), unit: 'ms', at_most: 2000 },
      { what: 'start with none', value: median(empty), unit: 'ms' },
      { what: 'a recovered task', value: ((median(full) - median(empty)) * 1000) / TASKS, unit: 'µs' },
    ];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function started(folder: string): Promise<{ daemon: Server; ms: number }> {
  return withConfig(
    {
      runtime: { dir: folder },
      store: { kind: 'sqlite' },
      pools: [
        {
          id: 'p',
          engine: 'synthetic',
          model: MODEL,
          queue: { capacity: 1_000_000 },
          synthetic: { load_ms: 2_000_000_000 },
        },
      ],
      supervision: { load_timeout_ms: 2_000_000_000 },
    },
    async (args) => {
      const daemon = await startServerProgram('src/cli/main.ts', { args, stdout: 'file' });
      return { daemon, ms: performance.now() - daemon.program.started_at };
    },
  );
}
