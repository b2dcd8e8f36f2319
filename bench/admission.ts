import type { ConfigInput } from '../src/config.ts';
import { MODEL } from './bodies.ts';
import { median, Program, startDaemon, startServerProgram, type Measure, type Server } from './harness.ts';
import type { LoadAnswer, LoadQuestion } from './programs/load.ts';

const CONNECTIONS = 64;
const ROUNDS = 7;
const REQUESTS = 3000;
const WARM_UP = 5000;

/** The pool never comes up, so that every task waits. */
const NEVER_MS = 2_000_000_000;

type Kind = 'memory' | 'sqlite';

interface Rounds {
  bare: Round[];
  daemon: Round[];
}

interface Round {
  per_second: number;
  cpu_us: number;
}

/**
 * Requests per second of `POST /v1/tasks`, against a handler of the same framework that admits nothing: tasks that only
 * queue, in memory and on disk, and tasks that run and end meanwhile.
 */
export default async function admission(): Promise<Measure[]> {
  const load = new Program('bench/programs/load.ts');
  // The daemon sets this for itself, and the framework does less where it is set.
  const env = { NODE_ENV: 'production' };
  const bare = await startServerProgram('bench/programs/bare-admission.ts', { env });
  const of = async (kind: Kind, load_ms: number): Promise<Rounds> => {
    const daemon = await startDaemon(daemonConfig(kind, load_ms), load_ms === 0);
    const rounds = await compare(load, bare, daemon);
    await daemon.program.stop();
    return rounds;
  };
  return [
    ...measuresOf('queued in memory', await of('memory', NEVER_MS), 0.6),
    ...measuresOf('queued on disk', await of('sqlite', NEVER_MS), 0.5),
    ...measuresOf('queued on disk and run', await of('sqlite', 0), undefined),
  ];
}

function daemonConfig(kind: Kind, load_ms: number): ConfigInput {
  return {
    store: { kind },
    pools: [
      {
        id: 'p',
        engine: 'synthetic',
        model: MODEL,
        slots: 64,
        queue: { capacity: 1_000_000 },
        synthetic: { load_ms },
      },
    ],
    supervision: { load_timeout_ms: 2_000_000_000 },
  };
}

/** Rounds take turns, so that what else the machine does meets both. */
async function compare(load: Program, bare: Server, daemon: Server): Promise<Rounds> {
  await post(load, bare, WARM_UP);
  await post(load, daemon, WARM_UP);
  const rounds = { bare: [] as Round[], daemon: [] as Round[] };
  for (let round = 0; round < ROUNDS; round++) {
    rounds.bare.push(await post(load, bare, REQUESTS));
    rounds.daemon.push(await post(load, daemon, REQUESTS));
  }
  return rounds;
}

async function post(load: Program, { url, program }: Server, requests: number): Promise<Round> {
  const before = program.cpu();
  const question: LoadQuestion = { url, connections: CONNECTIONS, requests };
  const { seconds, statuses } = await load.ask<LoadAnswer>(question);
  const cpu_us = ((program.cpu() - before) * 1000) / requests;
  if (statuses['202'] !== requests)
    throw new Error(`not every task was accepted: ${JSON.stringify(statuses)}`);
  return { per_second: requests / seconds, cpu_us };
}

function measuresOf(name: string, { bare, daemon }: Rounds, at_least: number | undefined): Measure[] {
  const ratios = daemon.map(({ per_second }, round) => per_second / (bare[round]?.per_second ?? 0));
  const mean = (rounds: Round[], key: keyof Round): number => median(rounds.map((round) => round[key]));
  return [
    {
      what: `${name}: of the bare handler’s requests per second`,
      value: median(ratios),
      unit: '×',
      ...(at_least === undefined ? {} : { at_least }),
    },
    { what: `${name}: requests per second`, value: mean(daemon, 'per_second'), unit: '/s' },
    { what: `${name}: bare, requests per second`, value: mean(bare, 'per_second'), unit: '/s' },
    { what: `${name}: processor time a request`, value: mean(daemon, 'cpu_us'), unit: 'µs' },
    { what: `${name}: bare, processor time a request`, value: mean(bare, 'cpu_us'), unit: 'µs' },
  ];
}
