import { spawnSync } from 'node:child_process';
import { MODEL } from './bodies.ts';
import { inFolder, isReady, median, Program, withConfig, type Measure } from './harness.ts';

const ROUNDS = 7;

/**
 * From the start of the process until it listens and its pool is ready, with an engine that needs no time: what the
 * program itself takes. Cold has no compiled code of an earlier start, warm has.
 */
export default async function start(): Promise<Measure[]> {
  const cold: number[] = [];
  const warm: number[] = [];
  const warm_cpu: number[] = [];
  const empty: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    empty.push(startEmpty());
    await inFolder(async (folder) => {
      cold.push((await startDaemon(folder)).ms);
      const second = await startDaemon(folder);
      warm.push(second.ms);
      warm_cpu.push(second.cpu);
    });
  }
  return [
    { what: 'start until ready, warm', value: median(warm), unit: 'ms', at_most: 400 },
    { what: 'start until ready, cold', value: median(cold), unit: 'ms' },
    { what: 'processor time of a warm start', value: median(warm_cpu), unit: 'ms' },
    { what: 'node with an empty program, start to end', value: median(empty), unit: 'ms' },
  ];
}

function startEmpty(): number {
  const start = performance.now();
  spawnSync(process.execPath, ['-e', '0'], { stdio: 'ignore' });
  return performance.now() - start;
}

/** @param folder holds the compile cache */
function startDaemon(folder: string): Promise<{ ms: number; cpu: number }> {
  return withConfig({ pools: [{ id: 'p', engine: 'synthetic', model: MODEL }] }, async (args) => {
    const program = new Program('src/cli/main.ts', { args, env: { TMPDIR: folder } });
    await Promise.all([program.line((line) => line['action'] === 'listen'), program.line(isReady)]);
    const measured = { ms: performance.now() - program.started_at, cpu: program.cpu() };
    // The cache is written when the process ends by itself.
    await program.stop();
    return measured;
  });
}
