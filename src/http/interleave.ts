import type { LogBatch } from '../streams/task-log.ts';

/** Frames without an id: they are of this moment, and nobody can resume from one. */
export interface Notes {
  /**
   * From the first event of the log until its last was sent.
   * @param wake called whenever `take` may have something
   * @returns what ends it
   */
  watch(wake: () => void): () => void;
  /** What is to be sent now; the newest, where the reader does not keep up. */
  take(): string | undefined;
}

/** The same stream with notes in between: after its first event, and never after its last. */
export async function* interleaved(
  batches: AsyncIterable<LogBatch>,
  notes: Notes,
): AsyncGenerator<LogBatch, void, undefined> {
  let wake = (): void => {};
  const log = batches[Symbol.asyncIterator]();
  let unwatch = (): void => {};
  try {
    let next = log.next();
    let batch = await next;
    unwatch = notes.watch(() => wake());
    while (!batch.done) {
      yield batch.value;
      if (batch.value.isLast) return;
      next = log.next();
      for (;;) {
        // What came while the reader was busy has woken nobody.
        const frames = notes.take();
        if (frames !== undefined) {
          yield { events: [], frames, isLast: false };
          continue;
        }
        const noted = new Promise<'noted'>((resolve) => (wake = () => resolve('noted')));
        const first = await Promise.race([next, noted]);
        if (first === 'noted') continue;
        batch = first;
        break;
      }
    }
  } finally {
    unwatch();
    await log.return?.();
  }
}
