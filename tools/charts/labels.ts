import { isIgnored, labelOf, type ChartEdge, type ChartGraph, type ChartNode } from './graph.ts';
import { textWidth } from './text-width.ts';

export const NAME_SIZE = 14;
export const LINE_SIZE = 12;
const LABEL_WIDTH = 124;

export interface TextLine {
  text: string;
  /** Set on what did not fit on the line before. */
  more?: boolean;
  /** The transition this line stands for, where it stands for one. */
  edge?: ChartEdge;
}

/** The name in a box: a machine stands for all of its states. */
export function displayName(node: ChartNode): string {
  return node.parent === undefined ? 'any state' : node.name;
}

/** Breaks a label before its guard or an action, never inside of one. */
export function labelLines(edge: ChartEdge, withActions: boolean): TextLine[] {
  const guard = edge.guard === undefined ? [] : [`[${edge.guard}]`];
  const actions = withActions ? edge.actions.map((name, i) => (i === 0 ? `/ ${name}` : name)) : [];
  const pieces = actions.map((name, i) => (i < actions.length - 1 ? `${name},` : name));
  const lines: TextLine[] = [{ text: edge.event, edge }];
  for (const piece of [...guard, ...pieces]) {
    const last = lines.at(-1);
    const joined = `${last?.text} ${piece}`;
    if (last && textWidth(joined, LINE_SIZE) <= LABEL_WIDTH) last.text = joined;
    else lines.push({ text: piece, edge, more: true });
  }
  return lines;
}

/** What a box says below its name: what is done in the state, and what is handled without leaving it. */
export function boxLines(graph: ChartGraph, node: ChartNode): TextLine[] {
  const own = graph.edges.filter(({ source, target }) => source === node.id && target === undefined);
  return [
    ...node.entry.map((name) => ({ text: `/ ${name}` })),
    ...node.exit.map((name) => ({ text: `exit / ${name}` })),
    ...node.invokes.map((name) => ({ text: `invoke ${name}` })),
    ...own.map((edge) => ({
      text: isIgnored(edge) ? `${edge.event} / ignored` : labelOf(edge, { actions: true }),
      edge,
    })),
  ];
}
