import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { availableParallelism } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { realLlamaServer } from '../test/helpers/real-llama-server.ts';
import { fileOf, median, Program, startDaemon, type Measure } from './harness.ts';
import type { LoopAnswer, LoopQuestion } from './programs/closed-loop.ts';

const SLOTS = 4;
const TASKS = 160;
const TOKENS = 100;
const ROUNDS = 9;

/**
 * Tokens per second of a real llama-server, straight and through the daemon: with twice as many clients as it has slots,
 * so that they are always taken, and with as many. The engine has a processor of its own, as one with an accelerator
 * would: the bundled model is so small that otherwise it is measured how programs share one.
 */
export default async function saturation(): Promise<Measure[]> {
  const program = await realLlamaServer();
  const port = await freePort();
  const server = spawn(
    'taskset',
    `-c 0 ${program} -m ${fileOf('models/storyteller/storyteller.gguf')} --host 127.0.0.1 --port ${port} -np ${SLOTS}
      -c ${SLOTS * 512} -t 1 --no-webui --cache-ram 0`.split(/\s+/),
    { stdio: 'ignore' },
  );
  const url = `http://127.0.0.1:${port}`;
  try {
    while (!(await isUp(url))) await sleep(100);
    const daemon = await startDaemon(
      {
        pools: [
          {
            id: 'real',
            engine: 'llamacpp',
            model: 'real',
            slots: SLOTS,
            provisioning: { mode: 'external', external: { url } },
          },
        ],
      },
      true,
    );
    const clients = new Program('bench/programs/closed-loop.ts');
    for (const { pid } of [daemon.program, clients]) keepOff(pid);
    let seed = 1;
    const run = async (through: LoopQuestion['through'], count: number): Promise<number> => {
      const question: LoopQuestion = {
        url: through === 'direct' ? url : daemon.url,
        through,
        clients: count,
        tasks: TASKS,
        tokens: TOKENS,
        model: 'real',
        seed: (seed += 1000),
      };
      const { tokens, seconds } = await clients.ask<LoopAnswer>(question);
      return tokens / seconds;
    };
    const counts = [2 * SLOTS, SLOTS];
    for (const count of counts)
      for (const through of ['direct', 'daemon'] as const) await run(through, count);
    const rates = counts.map(() => ({ direct: [] as number[], daemon: [] as number[] }));
    for (let round = 0; round < ROUNDS; round++)
      for (const [i, count] of counts.entries()) {
        // Turns change: whoever is second finds the machine as the first has left it.
        const order = ['direct', 'daemon'] as const;
        for (const through of round % 2 === 0 ? order : order.toReversed())
          rates[i]?.[through].push(await run(through, count));
      }
    await Promise.all([daemon.program.stop(), clients.stop()]);
    const ratio = (i: number): number =>
      median((rates[i]?.daemon ?? []).map((rate, round) => rate / (rates[i]?.direct[round] ?? 0)));
    const rate = (i: number, through: 'direct' | 'daemon'): number => median(rates[i]?.[through] ?? []);
    return [
      {
        what: `${SLOTS} slots that are always taken: tokens per second through the daemon, of those without`,
        value: ratio(0),
        unit: '×',
        at_least: 0.97,
      },
      { what: `the same with ${SLOTS} clients, so that nobody waits`, value: ratio(1), unit: '×' },
      { what: 'tokens per second, straight', value: rate(0, 'direct'), unit: '/s' },
      { what: 'tokens per second, through the daemon', value: rate(0, 'daemon'), unit: '/s' },
    ];
  } finally {
    server.kill('SIGKILL');
    if (server.exitCode === null && server.signalCode === null) await once(server, 'exit');
  }
}

/** Moves a process and all of its threads to the other processors. */
function keepOff(pid: number | undefined): void {
  const others = `1-${Math.max(1, availableParallelism() - 1)}`;
  spawnSync('taskset', ['-a', '-p', '-c', others, String(pid)], { stdio: 'ignore' });
}

async function isUp(url: string): Promise<boolean> {
  return fetch(`${url}/health`).then(
    ({ ok }) => ok,
    () => false,
  );
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
