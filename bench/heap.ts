import { setTimeout as sleep } from 'node:timers/promises';

/** Bytes each of what was added. */
export interface HeapAnswer {
  heap: number;
  rss: number;
  /** Bytes of the JSON that a client would send for one. */
  body: number;
}

/** What is in use after everything that can go has gone. Needs --expose-gc. */
export async function heapAfterGc(): Promise<{ heap: number; rss: number }> {
  const { gc } = globalThis;
  if (!gc) throw new Error('start this with --expose-gc');
  for (let turn = 0; turn < 3; turn++) {
    await sleep(50);
    void gc();
  }
  const { heapUsed, rss } = process.memoryUsage();
  return { heap: heapUsed, rss };
}
