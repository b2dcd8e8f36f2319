import { readFileSync } from 'node:fs';
import type { SimulatedModel, TraceTask } from '../test/helpers/swap-simulation.ts';

/** A device with room for one of {@link MODELS}. */
export const DEVICES = [{ id: 'gpu0', budget_bytes: 24e9 }];

/** As an 8B, a 14B and a 32B model at 4 bits with their caches, read from an NVMe disk. */
export const MODELS: readonly SimulatedModel[] = [
  { id: 'small', memory_bytes: { gpu0: 13e9 }, load_ms: 3000, unload_ms: 300, slots: 1 },
  { id: 'medium', memory_bytes: { gpu0: 15e9 }, load_ms: 4500, unload_ms: 400, slots: 1 },
  { id: 'large', memory_bytes: { gpu0: 22e9 }, load_ms: 9000, unload_ms: 600, slots: 1 },
];

export interface TraceShape {
  tasks: number;
  /** Share of the time in which the slots would be busy if no load took time. */
  utilisation: number;
  seed: number;
}

/** Tasks of this share are interactive, and short. */
const INTERACTIVE = 0.7;
const MEAN_MS = { interactive: 1200, batch: 5000 };
/** Spread of the lengths about their mean: the standard deviation of their logarithm. */
const SPREAD = 0.7;

/**
 * Tasks that come at random times. The models are wanted by Zipf's law: the second half as often as the first, the
 * third a third as often.
 */
export function makeTrace(
  models: readonly SimulatedModel[],
  { tasks, utilisation, seed }: TraceShape,
): TraceTask[] {
  const random = randomOf(seed);
  const mean_ms = INTERACTIVE * MEAN_MS.interactive + (1 - INTERACTIVE) * MEAN_MS.batch;
  const weights = models.map((_, rank) => 1 / (rank + 1));
  const sum = weights.reduce((a, b) => a + b, 0);
  let at_ms = 0;
  return Array.from({ length: tasks }, () => {
    at_ms += (-Math.log(1 - random()) * mean_ms) / utilisation;
    let pick = random() * sum;
    const rank = weights.findIndex((weight) => (pick -= weight) < 0);
    const priority = random() < INTERACTIVE ? ('interactive' as const) : ('batch' as const);
    const normal = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
    const run_ms = MEAN_MS[priority] * Math.exp(SPREAD * normal - SPREAD ** 2 / 2);
    return {
      at_ms: Math.round(at_ms),
      pool_id: models[rank]?.id ?? '',
      priority,
      run_ms: Math.max(1, Math.round(run_ms)),
    };
  });
}

/**
 * Reads a trace: a line of JSON for each task, with the fields of {@link TraceTask}.
 * @throws where a line is not one, with its number
 */
export function readTrace(file: string, models: readonly SimulatedModel[]): TraceTask[] {
  return readFileSync(file, 'utf8')
    .split('\n')
    .flatMap((text, i) => (text.trim() === '' ? [] : [taskOf(text, `${file}:${i + 1}`, models)]));
}

function taskOf(text: string, where: string, models: readonly SimulatedModel[]): TraceTask {
  const { at_ms, pool_id, priority, run_ms } = JSON.parse(text) as Partial<TraceTask>;
  if (typeof at_ms !== 'number' || typeof run_ms !== 'number')
    throw new Error(`${where}: at_ms and run_ms must be numbers of milliseconds`);
  if (priority !== 'interactive' && priority !== 'batch')
    throw new Error(`${where}: priority must be "interactive" or "batch"`);
  if (pool_id === undefined || !models.some(({ id }) => id === pool_id))
    throw new Error(`${where}: pool_id must be one of ${models.map(({ id }) => id).join(', ')}`);
  return { at_ms, pool_id, priority, run_ms };
}

/** Numbers from 0 to 1 that are the same for the same seed. */
function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
