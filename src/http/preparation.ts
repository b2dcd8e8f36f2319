import type { Observation } from '../actors/observation.ts';
import type { Orchestrator } from '../actors/orchestrator.ts';
import type { TaskRecord } from '../actors/task-record.ts';
import type { PreparationProgress } from '../contract/generated/types.ts';
import type { LogBatch } from '../streams/task-log.ts';

interface Progress {
  bytes_done: number;
  bytes_total: number | undefined;
}

/**
 * The same stream with what is prepared for the task while it waits for it: `metrics` frames without an id, because
 * they are of this moment, and nobody can resume from one. A reader that does not keep up gets the newest.
 * @param dropped hears of each that was not sent
 */
export async function* withPreparation(
  batches: AsyncIterable<LogBatch>,
  orchestrator: Orchestrator,
  record: TaskRecord,
  dropped: () => void,
): AsyncGenerator<LogBatch, void, undefined> {
  let told = '';
  let shown = '';
  let progress: Progress | undefined;
  let wake = (): void => {};
  const look = (): void => {
    const frame = record.state === 'provisioning' ? frameOf(orchestrator, record, progress) : '';
    if (frame === '' || frame === told) return;
    if (told !== shown) dropped();
    told = frame;
    wake();
  };
  const unwatch = orchestrator.observers.add((seen) => {
    if (!concerns(seen, record)) return;
    if (seen.type === 'model.progress') progress = seen;
    look();
  });
  const log = batches[Symbol.asyncIterator]();
  try {
    let next = log.next();
    // `started` comes before everything.
    let batch = await next;
    look();
    while (!batch.done) {
      yield batch.value;
      if (batch.value.isLast) return;
      next = log.next();
      for (;;) {
        if (told !== shown) {
          shown = told;
          yield { events: [], frames: told, isLast: false };
          // What came while the reader was busy has woken nobody.
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

function concerns(seen: Observation, record: TaskRecord): boolean {
  if (seen.type === 'task.moved') return seen.record === record;
  return (seen.type === 'pool.moved' || seen.type === 'model.progress') && seen.pool_id === record.pool_id;
}

/** Which step is done and which is not, from the phase that the pool is in. */
function frameOf(orchestrator: Orchestrator, record: TaskRecord, progress: Progress | undefined): string {
  const pool = orchestrator.pools.get(record.pool_id);
  const phase = pool?.phase ?? '';
  const isLoading = phase === 'starting';
  const model: PreparationProgress = {
    status: isLoading ? 'completed' : 'running',
    ...(progress && !isLoading ? progressOf(progress) : {}),
  };
  const data = {
    ...orchestrator.tasks.metricsOf(record),
    state: 'provisioning',
    phase,
    human: isLoading ? 'The engine loads the model.' : 'The model is fetched and checked.',
    prep: { model, engine: { status: isLoading ? 'running' : 'pending' } },
  };
  return `event: metrics\ndata: ${JSON.stringify(data)}\n\n`;
}

function progressOf({ bytes_done, bytes_total }: Progress): Partial<PreparationProgress> {
  return {
    bytes_done,
    ...(bytes_total ? { bytes_total, pct: Math.round((1000 * bytes_done) / bytes_total) / 10 } : {}),
  };
}
