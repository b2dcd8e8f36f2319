import { Program, startServerProgram, type Measure } from './harness.ts';
import type { HeapAnswer } from './heap.ts';
import type { ReadAnswer, ReadQuestion } from './programs/readers.ts';

const TASKS = 100_000;
const STREAMS = 10_000;
const NODE = ['--expose-gc'];

/** Heap after garbage collection: of a queued task beyond the bytes of its request, and of an open stream. */
export default async function memory(): Promise<Measure[]> {
  return [...(await queuedTasks()), ...(await openStreams())];
}

async function queuedTasks(): Promise<Measure[]> {
  const program = new Program('bench/programs/queue-memory.ts', { node: NODE, args: [String(TASKS)] });
  const { heap, rss, body } = await program.ask<HeapAnswer>();
  await program.stop();
  return [
    { what: 'heap of a queued task beyond its request', value: heap - body, unit: 'bytes', at_most: 1500 },
    { what: 'its request, bytes of JSON', value: body, unit: 'bytes' },
    { what: 'resident memory of a queued task', value: rss, unit: 'bytes' },
  ];
}

async function openStreams(): Promise<Measure[]> {
  const { program, url } = await startServerProgram('bench/programs/stream-memory.ts', {
    node: NODE,
    args: [String(STREAMS)],
  });
  const readers = new Program('bench/programs/readers.ts');
  const paths = await program.ask<string[]>('paths');
  const read = (some: string[]): Promise<ReadAnswer> => {
    const question: ReadQuestion = {
      url,
      paths: some,
      mark: 'event: started\n',
      until: 'first',
      opening: 100,
    };
    return readers.ask<ReadAnswer>(question);
  };
  // The first streams compile what all of them use.
  const warm_up = 200;
  await read(paths.slice(0, warm_up));
  const before = await program.ask<{ heap: number; rss: number }>('heap');
  const { events } = await read(paths.slice(warm_up));
  const after = await program.ask<{ heap: number; rss: number }>('heap');
  const count = STREAMS - warm_up;
  if (events < count) throw new Error(`${events} of ${count} streams have their first event`);
  return [
    {
      what: 'heap of an open stream',
      value: (after.heap - before.heap) / count,
      unit: 'bytes',
      at_most: 20_000,
    },
    { what: 'resident memory of an open stream', value: (after.rss - before.rss) / count, unit: 'bytes' },
  ];
}
