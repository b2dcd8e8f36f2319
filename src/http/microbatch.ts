import type { Clock } from '../clock.ts';
import { encodeEvents } from '../streams/frames.ts';
import type { LogBatch, LogEvent } from '../streams/task-log.ts';

/**
 * Tokens that follow each other within the window leave as one event, whose id is that of its last token. The first
 * token is not held back.
 * @param window_ms in milliseconds
 */
export async function* microbatched(
  batches: AsyncIterable<LogBatch>,
  window_ms: number,
  clock: Clock,
): AsyncGenerator<LogBatch, void, undefined> {
  for await (const batch of batches) {
    yield { events: batch.events, frames: encodeTogether(batch.events), isLast: batch.isLast };
    // What comes meanwhile waits in the log, and is read in one batch.
    if (!batch.isLast) await new Promise<void>((resolve) => void clock.setTimeout(resolve, window_ms));
  }
}

/** The wire form in which tokens that follow each other are one event. */
export function encodeTogether(events: readonly LogEvent[]): string {
  let frames = '';
  for (let i = 0; i < events.length;) {
    let end = i + 1;
    if (events[i]?.type === 'token') while (events[end]?.type === 'token') end++;
    const run = events.slice(i, end);
    frames +=
      run.length === 1
        ? encodeEvents(run)
        : `id: ${run.at(-1)?.id}\nevent: token\ndata: ${JSON.stringify({ batch: run.map(({ data }) => data) })}\n\n`;
    i = end;
  }
  return frames;
}
