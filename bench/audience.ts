import { requestOf } from './bodies.ts';
import { median, Program, startDaemon, startServerProgram, type Measure } from './harness.ts';
import type { ReadAnswer, ReadQuestion } from './programs/readers.ts';

const AUDIENCE = 1000;
const TOKENS = 300;
const TOKEN_MS = 10;
const ROUNDS = 5;
const UPSTREAM_MODEL = 'storyteller';

/**
 * One live stream with 1,000 readers, against the same with one: the time from its first token to its last, as the
 * daemon hears the engine, which writes a token in 10 ms.
 */
export default async function audience(): Promise<Measure[]> {
  const readers = new Program('bench/programs/readers.ts');
  const upstream = await startServerProgram('test/helpers/fake-llama-server.ts', {
    args: ['--slots', '1', '--ctx', '4096', '--per-write', '1', '--delay-ms', String(TOKEN_MS)],
  });
  const daemon = await startDaemon(
    {
      pools: [
        {
          id: 'p',
          engine: 'llamacpp',
          model: UPSTREAM_MODEL,
          slots: 1,
          provisioning: { mode: 'external', external: { url: upstream.url } },
        },
      ],
    },
    true,
  );
  let number = 0;
  const round = async (count: number): Promise<{ decode_ms: number; cpu_ms: number }> => {
    const request = { ...requestOf(++number, 'llamacpp', TOKENS), model_ref: UPSTREAM_MODEL };
    const answer = await fetch(`${daemon.url}/v1/tasks`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(request),
    });
    const { streams } = (await answer.json()) as { streams: { sse: string } };
    const question: ReadQuestion = {
      url: daemon.url,
      paths: Array.from({ length: count }, () => streams.sse),
      mark: 'event: token\n',
      until: 'end',
      opening: count,
    };
    const before = daemon.program.cpu();
    const { events } = await readers.ask<ReadAnswer>(question);
    const cpu_ms = daemon.program.cpu() - before;
    if (events !== TOKENS * count) throw new Error(`${events} tokens were read instead of ${TOKENS * count}`);
    const end = await (await fetch(`${daemon.url + streams.sse}?after=${TOKENS}`)).text();
    const { decode_time_ms } = JSON.parse(/event: end\ndata: (.*)/.exec(end)?.[1] ?? '{}') as {
      decode_time_ms: number;
    };
    return { decode_ms: decode_time_ms, cpu_ms };
  };
  await round(1);
  const rounds: { one: number; all: number; cpu_us: number }[] = [];
  for (let turn = 0; turn < ROUNDS; turn++) {
    const one = await round(1);
    const all = await round(AUDIENCE);
    rounds.push({
      one: one.decode_ms,
      all: all.decode_ms,
      cpu_us: (all.cpu_ms * 1000) / (AUDIENCE * TOKENS),
    });
  }
  await Promise.all([daemon.program.stop(), upstream.program.stop()]);
  return [
    {
      what: 'time of 300 tokens with 1,000 readers, of that with one',
      value: median(rounds.map(({ one, all }) => all / one)),
      unit: '×',
      at_most: 1.05,
    },
    { what: 'with one reader', value: median(rounds.map(({ one }) => one)), unit: 'ms' },
    { what: 'with 1,000 readers', value: median(rounds.map(({ all }) => all)), unit: 'ms' },
    {
      what: 'processor time of a token for a reader',
      value: median(rounds.map(({ cpu_us }) => cpu_us)),
      unit: 'µs',
    },
  ];
}
