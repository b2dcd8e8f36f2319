/** Heap that queued tasks take: the library face, a pool that never loads. Needs --expose-gc. */
import { createOrchestrator } from '../../src/index.ts';
import { MODEL, requestOf } from '../bodies.ts';
import { heapAfterGc, type HeapAnswer } from '../heap.ts';

const [tasks = '1000'] = process.argv.slice(2);
const count = Number(tasks);

const orchestrator = createOrchestrator({
  pools: [
    {
      id: 'p',
      engine: 'synthetic',
      model: MODEL,
      slots: 4,
      queue: { capacity: count + 1000 },
      synthetic: { load_ms: 2_000_000_000 },
    },
  ],
  supervision: { load_timeout_ms: 2_000_000_000 },
});

/** As a request comes from the wire: strings of their own, not pieces of others. */
async function submit(number: number): Promise<number> {
  const body = JSON.stringify(requestOf(number));
  await orchestrator.submit(JSON.parse(body));
  return Buffer.byteLength(body);
}

process.once('message', () => {
  void measure().then((answer) => process.send?.(answer));
});
process.once('disconnect', () => process.exit());

async function measure(): Promise<HeapAnswer> {
  for (let number = 0; number < 1000; number++) await submit(number);
  const before = await heapAfterGc();
  let body_bytes = 0;
  for (let number = 1000; number < 1000 + count; number++) body_bytes += await submit(number);
  const after = await heapAfterGc();
  return {
    heap: (after.heap - before.heap) / count,
    rss: (after.rss - before.rss) / count,
    body: body_bytes / count,
  };
}
