import type { AnyStateMachine, AnyStateNode } from 'xstate';

export interface ChartNode {
  /** xstate's own id, such as `task.streaming`: what `snapshot._nodes` carries at run time. */
  id: string;
  name: string;
  /** Undefined for the machine itself. */
  parent: string | undefined;
  description: string;
  type: 'atomic' | 'compound' | 'parallel' | 'final';
  /** Where a compound state begins. */
  initial: { target: string; actions: string[] } | undefined;
  tags: string[];
  entry: string[];
  exit: string[];
  invokes: string[];
}

export interface ChartEdge {
  /** `<nodeId>:<i>`, i counting the items of `transitionsOf`. */
  id: string;
  source: string;
  /** Undefined where the event is handled, or deliberately ignored, without leaving the state. */
  target: string | undefined;
  event: string;
  guard: string | undefined;
  actions: string[];
}

export interface ChartGraph {
  id: string;
  /** Parents before their children, siblings in the order they are written in. */
  nodes: ChartNode[];
  edges: ChartEdge[];
}

interface Transition {
  eventType: string;
  guard?: unknown;
  target?: readonly { id: string }[] | undefined;
  actions: readonly unknown[];
}

/**
 * All transitions of a state, `always` and `after` included. They are the very objects xstate selects from,
 * so a map from them to edge ids tells at run time which edge was taken.
 */
export function transitionsOf(node: AnyStateNode): readonly Transition[] {
  return [...[...node.transitions.values()].flat(), ...(node.always ?? [])];
}

/** Turns a machine into plain data; xstate's own `toDirectedGraph` leaves `always` transitions out. */
export function graphOf(machine: AnyStateMachine): ChartGraph {
  const nodes: ChartNode[] = [];
  const edges: ChartEdge[] = [];
  const visit = (node: AnyStateNode): void => {
    nodes.push(toNode(node));
    edges.push(...toEdges(node));
    for (const child of Object.values(node.states)) visit(child);
  };
  visit(machine.root);
  return { id: machine.root.id, nodes, edges };
}

/** `event [guard] / actions`, the usual notation of statecharts. */
export function labelOf(edge: ChartEdge, parts: { actions: boolean }): string {
  const guard = edge.guard === undefined ? '' : ` [${edge.guard}]`;
  const actions = parts.actions && edge.actions.length > 0 ? ` / ${edge.actions.join(', ')}` : '';
  return edge.event + guard + actions;
}

/** An empty transition is how a state shuts out an event that its parent would have handled. */
export function isIgnored(edge: ChartEdge): boolean {
  return edge.target === undefined && edge.actions.length === 0;
}

function toNode(node: AnyStateNode): ChartNode {
  const [start] = node.initial?.target ?? [];
  return {
    id: node.id,
    name: node.key,
    parent: node.parent?.id,
    description: node.description ?? '',
    type: node.type === 'history' ? 'atomic' : node.type,
    initial:
      start && node.type === 'compound'
        ? { target: start.id, actions: namesOf(node.initial.actions) }
        : undefined,
    tags: [...node.tags],
    entry: namesOf(node.entry),
    exit: namesOf(node.exit),
    invokes: node.invoke.map(({ src }) => nameOf(src, 'actor')),
  };
}

function toEdges(node: AnyStateNode): ChartEdge[] {
  const guarded = new Set<string>();
  return transitionsOf(node).map((transition, index) => {
    const { eventType, guard, target, actions } = transition;
    if (guard !== undefined) guarded.add(eventType);
    const fallback = guarded.has(eventType) ? 'else' : undefined;
    return {
      id: `${node.id}:${index}`,
      source: node.id,
      target: target?.[0]?.id,
      event: prettyEvent(eventType),
      guard: guard === undefined ? fallback : nameOf(guard, 'guard'),
      actions: namesOf(actions),
    };
  });
}

/** `xstate.after.backoff.replica.waiting` means nothing to a reader: `after backoff` does. */
function prettyEvent(type: string): string {
  if (type === '') return 'always';
  const [, kind, what, ...rest] = type.startsWith('xstate.') ? type.split('.') : [];
  if (kind === 'after') return `after ${/^\d+$/.test(what ?? '') ? `${what} ms` : what}`;
  if (kind === 'done' && what === 'state') return 'done';
  if (kind === 'done') return `${rest.join('.')} done`;
  if (kind === 'error') return `${rest.join('.')} failed`;
  return type;
}

/** Without `xstate.raise` and `xstate.cancel`, which only carry out `after`. */
function namesOf(actions: readonly unknown[]): string[] {
  return actions.map((action) => nameOf(action, 'action')).filter((name) => !name.startsWith('xstate.'));
}

function nameOf(item: unknown, fallback: string): string {
  if (typeof item === 'string') return item;
  const type = (item as { type?: unknown } | undefined)?.type;
  return typeof type === 'string' ? type : fallback;
}
