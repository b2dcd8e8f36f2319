import type { AnyStateMachine } from 'xstate';
import { modelMachine } from '../../src/machines/model.ts';
import { orchestratorMachine } from '../../src/machines/orchestrator.ts';
import { poolMachine } from '../../src/machines/pool.ts';
import { provisionerMachine } from '../../src/machines/provisioner.ts';
import { readershipMachine } from '../../src/machines/readership.ts';
import { replicaMachine } from '../../src/machines/replica.ts';
import { sessionMachine } from '../../src/machines/session.ts';
import { taskMachine } from '../../src/machines/task.ts';
import { graphOf } from './graph.ts';
import { layoutChart, type LayoutOptions } from './layout.ts';
import { svgOf } from './svg.ts';
import { readmeOf } from './readme.ts';

export interface Chart {
  machine: AnyStateMachine;
  /** One sentence for those who cannot see the picture, and above its table. */
  description: string;
  layout: LayoutOptions;
}

/** The machines that are drawn, in the order a reader meets them. */
export const CHARTS: readonly Chart[] = [
  {
    machine: taskMachine,
    description: 'The life of one inference task, from acceptance to the event that closes its log.',
    layout: { direction: 'RIGHT', actions: false },
  },
  {
    machine: poolMachine,
    description: 'Brings a model and its replicas up, keeps count of what is ready, and drains.',
    layout: { direction: 'DOWN', actions: true },
  },
  {
    machine: replicaMachine,
    description: 'Supervises one engine: loads it, probes it, and starts it again within a budget.',
    layout: {
      direction: 'DOWN',
      actions: true,
      // Model order throws where a state has states that run side by side.
      elk: {
        'elk.layered.considerModelOrder.strategy': 'NONE',
        'elk.layered.cycleBreaking.strategy': 'DEPTH_FIRST',
      },
    },
  },
  {
    machine: provisionerMachine,
    description: 'Finds a model, brings it to this machine where it is missing, and verifies it.',
    layout: { direction: 'RIGHT', actions: true },
  },
  {
    machine: modelMachine,
    description: 'Whether new work may use a model of the catalog.',
    layout: { direction: 'RIGHT', actions: true },
  },
  {
    machine: sessionMachine,
    description: 'What the tasks of one conversation share: turns, budgets and a warm cache.',
    layout: { direction: 'RIGHT', actions: true },
  },
  {
    machine: readershipMachine,
    description: 'What follows when the last reader of an interactive task has left.',
    layout: { direction: 'RIGHT', actions: true },
  },
  {
    machine: orchestratorMachine,
    description: 'The whole service: it takes tasks, or drains its pools and closes.',
    layout: { direction: 'RIGHT', actions: true },
  },
];

/** The picture of one machine. */
export async function drawChart({ machine, description, layout }: Chart): Promise<string> {
  return svgOf(await layoutChart(graphOf(machine), layout), description);
}

/** Everything below `docs/charts/`, by file name. */
export async function drawCharts(): Promise<Record<string, string>> {
  const files: Record<string, string> = {};
  for (const chart of CHARTS) files[`${chart.machine.id}.svg`] = await drawChart(chart);
  files['README.md'] = readmeOf(
    CHARTS.map(({ machine, description }) => ({ graph: graphOf(machine), description })),
  );
  return files;
}
