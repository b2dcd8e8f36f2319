import { planSwaps } from '../src/scheduling/swap-planner.ts';
import { DEFAULT_SWAP_RULES, type SwapPool, type SwapView } from '../src/scheduling/swap-view.ts';
import { simulate, type Answer, type Outcome, type TraceTask } from '../test/helpers/swap-simulation.ts';
import type { Measure } from './harness.ts';
import { DEVICES, makeTrace, MODELS, readTrace } from './swap-trace.ts';

const TASKS = 2000;
const SEED = 1;
/** Tasks that may wait for a model. */
const QUEUE_CAPACITY = 32;
/** Busy share of the slots, if no load took time. In the second trace nobody keeps up, and queues are full. */
const UTILISATIONS = { busy: 0.7, 'too much': 1.2 };

const BOUND_S = DEFAULT_SWAP_RULES.max_overtaken_ms / 1000;

/**
 * Three models and room for one: what a planner makes of the same tasks, in simulated time. A file of a line of JSON
 * for each task, named by SWAP_TRACE, is replayed instead of the made traces.
 */
export default async function swap(): Promise<Measure[]> {
  const file = process.env['SWAP_TRACE'];
  if (file !== undefined) return compare('', readTrace(file, MODELS));
  return Object.entries(UTILISATIONS).flatMap(([name, utilisation]) =>
    compare(`${name}: `, makeTrace(MODELS, { tasks: TASKS, utilisation, seed: SEED })),
  );
}

function compare(title: string, trace: readonly TraceTask[]): Measure[] {
  const fifo = replay(trace, inOrderOfArrival, true);
  const unbounded = { ...DEFAULT_SWAP_RULES, max_overtaken_ms: Infinity, payback: Infinity };
  const collated = replay(trace, (view) => planSwaps(view, unbounded));
  const ours = replay(trace, (view) => planSwaps(view));
  return [
    ...measures(`${title}in order of arrival`, fifo),
    ...measures(`${title}until the queue is empty`, collated),
    ...measures(`${title}planned`, ours, { loads: loadsPer100(fifo) / 3, overtaken_s: BOUND_S }),
  ];
}

function replay(trace: readonly TraceTask[], plan: (view: SwapView) => Answer, isInOrder = false): Outcome {
  return simulate({
    devices: DEVICES,
    models: MODELS,
    trace,
    plan,
    queue_capacity: QUEUE_CAPACITY,
    inOrderOfArrival: isInOrder,
  });
}

function measures(
  title: string,
  outcome: Outcome,
  target?: { loads: number; overtaken_s: number },
): Measure[] {
  const { served, mean_ms, p95_ms, worst_ms, overtaken_ms } = waits(outcome);
  return [
    { what: `${title}: tasks served`, value: served, unit: '' },
    {
      what: `${title}: loads per 100 tasks`,
      value: loadsPer100(outcome),
      unit: '',
      ...(target && { at_most: Math.floor(10 * target.loads) / 10 }),
    },
    { what: `${title}: wait, mean`, value: mean_ms / 1000, unit: 's' },
    { what: `${title}: wait, p95`, value: p95_ms / 1000, unit: 's' },
    { what: `${title}: wait, longest`, value: worst_ms / 1000, unit: 's' },
    {
      what: `${title}: overtaken, longest`,
      value: overtaken_ms / 1000,
      unit: 's',
      ...(target && { at_most: target.overtaken_s }),
    },
  ];
}

function loadsPer100({ tasks, loads }: Outcome): number {
  return (100 * loads) / tasks.filter(({ granted_at }) => granted_at !== undefined).length;
}

function waits({
  tasks,
}: Outcome): Record<'served' | 'mean_ms' | 'p95_ms' | 'worst_ms' | 'overtaken_ms', number> {
  const waits_ms = tasks
    .flatMap(({ at_ms, granted_at }) => (granted_at === undefined ? [] : [granted_at - at_ms]))
    .toSorted((a, b) => a - b);
  return {
    served: waits_ms.length,
    mean_ms: waits_ms.reduce((sum, wait_ms) => sum + wait_ms, 0) / waits_ms.length,
    p95_ms: waits_ms[Math.floor(waits_ms.length * 0.95)] ?? Number.NaN,
    worst_ms: waits_ms.at(-1) ?? Number.NaN,
    overtaken_ms: tasks.reduce(
      (most, { first_passed_at = 0, last_passed_at = 0 }) => Math.max(most, last_passed_at - first_passed_at),
      0,
    ),
  };
}

/** First come, first served, whatever is loaded: for a device with room for one pool. */
function inOrderOfArrival({ pools }: SwapView): Answer {
  const [next] = pools
    .filter(({ oldest }) => oldest)
    .toSorted((a, b) => (a.oldest?.sequence ?? 0) - (b.oldest?.sequence ?? 0));
  const there = pools.find(({ state }) => state !== 'cold');
  const steps = next && next !== there ? stepFor(next, there) : [];
  return { steps, last_calls: [], look_again_in_ms: undefined };
}

function stepFor({ id }: SwapPool, there: SwapPool | undefined): Answer['steps'] {
  if (!there) return [{ pool_id: id, do: 'load', reason: 'room', waited_ms: 0, human: '' }];
  if (there.state !== 'loaded') return [];
  const step = { pool_id: there.id, do: 'unload', reason: 'swap', turn_over: 'outweighed' } as const;
  return [{ ...step, for_pool_id: id, weighed: undefined, human: '' }];
}
