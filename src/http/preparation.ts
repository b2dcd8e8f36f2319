import type { Observation } from '../actors/observation.ts';
import type { Orchestrator } from '../actors/orchestrator.ts';
import type { TaskRecord } from '../actors/task-record.ts';
import type { PreparationProgress } from '../contract/generated/types.ts';
import type { Notes } from './interleave.ts';

type Progress = Extract<Observation, { type: 'model.progress' | 'engine.progress' }>;
type EngineStep = Extract<Progress, { type: 'engine.progress' }>;

/**
 * What is prepared for a task while it waits for it, as `metrics` frames.
 * @param dropped hears of each that was not sent, because a newer one has replaced it
 */
export function preparationOf(orchestrator: Orchestrator, record: TaskRecord, dropped: () => void): Notes {
  let told = '';
  let shown = '';
  return {
    watch(wake) {
      let progress: Progress | undefined;
      const look = (): void => {
        const frame = record.state === 'provisioning' ? frameOf(orchestrator, record, progress) : '';
        if (frame === '' || frame === told) return;
        if (told !== shown) dropped();
        told = frame;
        wake();
      };
      look();
      return orchestrator.observers.add((seen) => {
        if (!concerns(seen, record)) return;
        if (isProgress(seen)) progress = seen;
        look();
      });
    },
    take() {
      if (told === shown) return undefined;
      return (shown = told);
    },
  };
}

function concerns(seen: Observation, record: TaskRecord): boolean {
  if (seen.type === 'task.moved') return seen.record === record;
  return (seen.type === 'pool.moved' || isProgress(seen)) && seen.pool_id === record.pool_id;
}

function isProgress(seen: Observation): seen is Progress {
  return seen.type === 'model.progress' || seen.type === 'engine.progress';
}

/** Which step is done and which is not, from the phase that the pool is in. */
function frameOf(orchestrator: Orchestrator, record: TaskRecord, progress: Progress | undefined): string {
  const pool = orchestrator.pools.get(record.pool_id);
  const phase = pool?.phase ?? '';
  const isLoading = phase === 'starting';
  const engine = progress?.type === 'engine.progress' && progress.phase !== 'prepared' ? progress : undefined;
  const isBuilding = engine !== undefined && !isLoading;
  const data = {
    ...orchestrator.tasks.metricsOf(record),
    state: 'provisioning',
    phase,
    human: isBuilding
      ? BUILDING[engine.phase]
      : isLoading
        ? 'The engine loads the model.'
        : 'The model is fetched and checked.',
    prep: {
      model: isBuilding ? PENDING : modelStep(isLoading, progress),
      engine: isBuilding ? engineStep(engine) : isLoading ? RUNNING : PENDING,
    },
  };
  return `event: metrics\ndata: ${JSON.stringify(data)}\n\n`;
}

const PENDING: PreparationProgress = { status: 'pending' };
const RUNNING: PreparationProgress = { status: 'running' };

const BUILDING: Record<EngineStep['phase'], string> = {
  waiting: 'Another process brings the engine here.',
  cloning: 'The engine’s source is fetched.',
  configuring: 'The build of the engine is configured.',
  building: 'The engine is built.',
  pulling: 'The engine’s image is pulled.',
  downloading: 'The engine is downloaded.',
  unpacking: 'The engine is unpacked.',
  installing: 'The engine is installed.',
  prepared: 'The engine is here.',
};

function engineStep({ phase, fraction }: EngineStep): PreparationProgress {
  return { status: 'running', phase, ...(fraction === undefined ? {} : { pct: percent(fraction) }) };
}

function modelStep(isLoading: boolean, progress: Progress | undefined): PreparationProgress {
  if (isLoading) return { status: 'completed' };
  if (progress?.type !== 'model.progress') return RUNNING;
  const { bytes_done, bytes_total } = progress;
  return {
    status: 'running',
    bytes_done,
    ...(bytes_total ? { bytes_total, pct: percent(bytes_done / bytes_total) } : {}),
  };
}

function percent(fraction: number): number {
  return Math.round(1000 * fraction) / 10;
}
