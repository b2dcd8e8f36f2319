import { requestOf } from './bodies.ts';
import {
  median,
  Program,
  startDaemon,
  startServerProgram,
  type Measure,
  type Program as Running,
} from './harness.ts';
import type { ReadAnswer, ReadQuestion } from './programs/readers.ts';

const STREAMS = 64;

/** How the server writes. */
interface Regime {
  name: string;
  delay_ms: number;
  /** A stream, in one round. */
  tokens: number;
  rounds: number;
}

const REGIMES: readonly Regime[] = [
  { name: 'as fast as it is read', delay_ms: 0, tokens: 500, rounds: 7 },
  { name: 'a token in 10 ms', delay_ms: 10, tokens: 120, rounds: 5 },
];

const CONTEXT = 4096;

/** Any other name would be that of a file. */
const UPSTREAM_MODEL = 'storyteller';

interface Round {
  per_second: number;
  cpu_us: number;
}

interface Relay {
  program: Running;
  round: () => Promise<Round>;
}

/**
 * Tokens of 64 streams at once from a llama-server, through adapter, log and event stream, against a process that
 * pipes the same bodies through. The server is a fake that writes one token at a time: first as fast as it can, where
 * reads take several tokens when the reader is behind, then with a pause in which every token travels alone.
 */
export default async function relay(): Promise<Measure[]> {
  const readers = new Program('bench/programs/readers.ts');
  const measures: Measure[] = [];
  for (const regime of REGIMES) measures.push(...(await compare(regime, readers)));
  return measures;
}

async function compare(
  { name, delay_ms, tokens, rounds: count }: Regime,
  readers: Running,
): Promise<Measure[]> {
  const upstream = await startServerProgram('test/helpers/fake-llama-server.ts', {
    args: [
      '--slots',
      String(STREAMS),
      '--ctx',
      String(CONTEXT),
      '--per-write',
      '1',
      '--delay-ms',
      String(delay_ms),
    ],
  });
  const pipe = await pipeRelay(upstream.url, tokens, readers);
  const daemon = await daemonRelay(upstream.url, tokens, readers);
  for (const relayed of [pipe, daemon, pipe, daemon]) await relayed.round();
  const rounds = { pipe: [] as Round[], daemon: [] as Round[] };
  for (let round = 0; round < count; round++) {
    rounds.pipe.push(await pipe.round());
    rounds.daemon.push(await daemon.round());
  }
  await Promise.all([daemon.program.stop(), pipe.program.stop(), upstream.program.stop()]);
  const ratio = (key: keyof Round): number =>
    median(rounds.daemon.map((round, index) => round[key] / (rounds.pipe[index]?.[key] ?? 0)));
  const mid = (of: Round[], key: keyof Round): number => median(of.map((round) => round[key]));
  return [
    {
      what: `${name}: processor time a token, of the pipe’s`,
      value: ratio('cpu_us'),
      unit: '×',
      at_most: 1.6,
    },
    {
      what: `${name}: tokens per second, of the pipe’s`,
      value: ratio('per_second'),
      unit: '×',
      at_least: 0.7,
    },
    { what: `${name}: processor time a token`, value: mid(rounds.daemon, 'cpu_us'), unit: 'µs' },
    { what: `${name}: pipe, processor time a token`, value: mid(rounds.pipe, 'cpu_us'), unit: 'µs' },
    { what: `${name}: tokens per second`, value: mid(rounds.daemon, 'per_second'), unit: '/s' },
    { what: `${name}: pipe, tokens per second`, value: mid(rounds.pipe, 'per_second'), unit: '/s' },
  ];
}

async function pipeRelay(upstream: string, tokens: number, readers: Running): Promise<Relay> {
  const { program, url } = await startServerProgram('bench/programs/bare-pipe.ts', {
    args: [upstream, String(tokens)],
  });
  let seed = 0;
  const round = async (): Promise<Round> => {
    const paths = Array.from({ length: STREAMS }, () => `/?seed=${++seed}`);
    return measured(
      program,
      readers,
      { url, paths, mark: '"stop":false', until: 'end', opening: STREAMS },
      STREAMS * tokens,
    );
  };
  return { program, round };
}

async function daemonRelay(upstream: string, tokens: number, readers: Running): Promise<Relay> {
  const { program, url } = await startDaemon(
    {
      pools: [
        {
          id: 'p',
          engine: 'llamacpp',
          model: UPSTREAM_MODEL,
          slots: STREAMS,
          provisioning: { mode: 'external', external: { url: upstream } },
        },
      ],
    },
    true,
  );
  let number = 0;
  const round = async (): Promise<Round> => {
    const before = program.cpu();
    const start = performance.now();
    const paths = await Promise.all(
      Array.from({ length: STREAMS }, async () => {
        const body = JSON.stringify({
          ...requestOf(++number, 'llamacpp', tokens),
          model_ref: UPSTREAM_MODEL,
        });
        const headers = { 'Content-Type': 'application/json' };
        const answer = await fetch(`${url}/v1/tasks`, { method: 'POST', body, headers });
        const { streams } = (await answer.json()) as { streams?: { sse: string } };
        if (!streams) throw new Error('a task was not accepted');
        return streams.sse;
      }),
    );
    const posted = { seconds: (performance.now() - start) / 1000, cpu: program.cpu() - before };
    return measured(
      program,
      readers,
      { url, paths, mark: 'event: token\n', until: 'end', opening: STREAMS },
      STREAMS * tokens,
      posted,
    );
  };
  return { program, round };
}

/** @param posted what it took to ask for the streams */
async function measured(
  program: Running,
  readers: Running,
  question: ReadQuestion,
  expected: number,
  posted = { seconds: 0, cpu: 0 },
): Promise<Round> {
  const before = program.cpu();
  const { seconds, events } = await readers.ask<ReadAnswer>(question);
  const cpu = program.cpu() - before + posted.cpu;
  if (events !== expected) throw new Error(`${events} tokens arrived instead of ${expected}`);
  return { per_second: events / (seconds + posted.seconds), cpu_us: (cpu * 1000) / events };
}
