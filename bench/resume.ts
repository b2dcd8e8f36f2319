import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { MODEL, requestOf } from './bodies.ts';
import { inFolder, median, Program, startDaemon, startServerProgram, type Measure } from './harness.ts';
import type { ReadAnswer, ReadQuestion } from './programs/readers.ts';

const TOKENS = 1000;
const TASKS = 50;
const READS = 1500;
const READERS = 32;
const ROUNDS = 7;

/**
 * Streams per second of finished tasks with 1,000 tokens, each read again from after its first event and each from the
 * disk, against a file with the same bytes.
 */
export default async function resume(): Promise<Measure[]> {
  const readers = new Program('bench/programs/readers.ts');
  const daemon = await startDaemon(
    {
      store: { kind: 'sqlite' },
      pools: [{ id: 'p', engine: 'synthetic', model: MODEL, slots: 4, ctx: 8192 }],
    },
    true,
  );
  const paths: string[] = [];
  for (let task = 0; task < TASKS; task++) paths.push(await finishedTask(daemon.url, task));
  const body = await (await fetch(daemon.url + paths[0])).text();
  return inFolder(async (folder) => {
    const file = join(folder, 'stream');
    writeFileSync(file, body);
    const bare = await startServerProgram('bench/programs/bare-file.ts', { args: [file] });
    const read = async (url: string, from: readonly string[]): Promise<number> => {
      const question: ReadQuestion = {
        url,
        paths: Array.from({ length: READS }, (_, turn) => from[turn % from.length] as string),
        mark: 'event: end',
        until: 'end',
        opening: READERS,
      };
      const { seconds, events } = await readers.ask<ReadAnswer>(question);
      if (events !== READS) throw new Error(`${events} streams ended instead of ${READS}`);
      return READS / seconds;
    };
    const rounds: { bare: number; daemon: number }[] = [];
    await read(bare.url, ['/']);
    await read(daemon.url, paths);
    for (let round = 0; round < ROUNDS; round++)
      rounds.push({ bare: await read(bare.url, ['/']), daemon: await read(daemon.url, paths) });
    await Promise.all([bare.program.stop(), daemon.program.stop()]);
    return [
      {
        what: 'resumed streams per second, of the file’s',
        value: median(rounds.map((round) => round.daemon / round.bare)),
        unit: '×',
        at_least: 0.8,
      },
      {
        what: 'resumed streams per second',
        value: median(rounds.map((round) => round.daemon)),
        unit: '/s',
      },
      { what: 'the file, per second', value: median(rounds.map((round) => round.bare)), unit: '/s' },
      { what: 'size of a stream', value: Buffer.byteLength(body) / 1000, unit: 'kB' },
    ];
  });
}

/** @returns the path of its stream, from after the first event */
async function finishedTask(url: string, number: number): Promise<string> {
  const headers = { 'Content-Type': 'application/json' };
  const request = JSON.stringify({ ...requestOf(number, 'synthetic', TOKENS), ctx: 4096 });
  const answer = await fetch(`${url}/v1/tasks`, { method: 'POST', body: request, headers });
  const { streams } = (await answer.json()) as { streams?: { sse: string } };
  if (!streams) throw new Error('a task was not accepted');
  await (await fetch(url + streams.sse)).text();
  return `${streams.sse}?after=0`;
}
