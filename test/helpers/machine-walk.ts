import type { AnyStateMachine, AnyStateNode } from 'xstate';
import { getAdjacencyMap, adjacencyMapToArray } from 'xstate/graph';

/** Every state of a machine, as dotted paths under its id. */
export function statesOf(machine: AnyStateMachine): string[] {
  const all: string[] = [];
  const visit = (node: AnyStateNode): void => {
    if (node !== machine.root) all.push(node.id);
    for (const child of Object.values(node.states)) visit(child);
  };
  visit(machine.root);
  return all;
}

/** States without a description: a chart that people look at has none. */
export function undescribed(machine: AnyStateMachine): string[] {
  const missing: string[] = [];
  const visit = (node: AnyStateNode): void => {
    if (node !== machine.root && !node.description) missing.push(node.id);
    for (const child of Object.values(node.states)) visit(child);
  };
  visit(machine.root);
  return missing;
}

/** Events a machine handles, without those that xstate makes itself. */
export function handledEvents(machine: AnyStateMachine): string[] {
  return [...machine.events].filter((type) => !type.startsWith('xstate.')).toSorted();
}

export interface Step {
  from: WalkSnapshot;
  event: { type: string };
  to: WalkSnapshot;
}

export interface WalkSnapshot {
  value: unknown;
  context: never;
  status: string;
  hasTag(tag: string): boolean;
  _nodes: { id: string }[];
}

/** Walks every reachable combination of state and `key`, and returns each step once. */
export function walk(
  machine: AnyStateMachine,
  options: {
    input: unknown;
    events: (snapshot: WalkSnapshot) => { type: string }[];
    key: (context: never) => unknown;
  },
): { steps: Step[]; reached: Set<string> } {
  const map = getAdjacencyMap(machine as never, {
    input: options.input as never,
    events: ((snapshot: WalkSnapshot) =>
      snapshot.status === 'active' ? options.events(snapshot) : []) as never,
    serializeState: ((snapshot: WalkSnapshot) =>
      JSON.stringify([snapshot.value, snapshot.status, options.key(snapshot.context)])) as never,
    limit: 20_000,
  });
  const steps = adjacencyMapToArray(map).map(({ state, event, nextState }) => ({
    from: state as unknown as WalkSnapshot,
    event: event as { type: string },
    to: nextState as unknown as WalkSnapshot,
  }));
  const reached = new Set<string>();
  for (const step of steps)
    for (const snapshot of [step.from, step.to]) for (const node of snapshot._nodes) reached.add(node.id);
  return { steps, reached };
}
