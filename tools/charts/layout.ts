import elk, { type ElkExtendedEdge, type ElkNode } from 'elkjs/lib/elk.bundled.js';
import type { ChartGraph, ChartNode } from './graph.ts';
import { boxLines, displayName, labelLines, LINE_SIZE, NAME_SIZE, type TextLine } from './labels.ts';
import { textWidth } from './text-width.ts';

export const LINE_HEIGHT = 16;
export const HEADER_HEIGHT = 28;
export const PADDING = 10;
const DOT = 12;
const SLOPE = 2;

export interface Point {
  x: number;
  y: number;
}

export interface Box extends Point {
  width: number;
  height: number;
}

export interface PlacedNode extends Box {
  node: ChartNode;
  /** What the box says below its name. */
  lines: TextLine[];
  /** Has states drawn inside. */
  frame: boolean;
}

/** One arrow; transitions between the same two states share it, with a line of text each. */
export interface PlacedArrow {
  points: Point[];
  label: Box | undefined;
  lines: TextLine[];
}

export interface ChartLayout {
  graph: ChartGraph;
  width: number;
  height: number;
  nodes: PlacedNode[];
  arrows: PlacedArrow[];
  /** The dots in which initial arrows begin. */
  dots: Point[];
}

export interface LayoutOptions {
  direction: 'RIGHT' | 'DOWN';
  /** Whether labels name the actions of a transition; all of them do or none, so that no absence misleads. */
  actions: boolean;
  /** Options of ELK that suit one chart only. */
  elk?: Record<string, string>;
}

const OPTIONS = {
  'elk.algorithm': 'layered',
  'elk.hierarchyHandling': 'INCLUDE_CHILDREN',
  'elk.edgeRouting': 'ORTHOGONAL',
  'elk.json.edgeCoords': 'ROOT',
  'elk.json.shapeCoords': 'ROOT',
  'elk.layered.considerModelOrder.strategy': 'NODES_AND_EDGES',
  'elk.layered.cycleBreaking.strategy': 'MODEL_ORDER',
  'elk.layered.nodePlacement.strategy': 'BRANDES_KOEPF',
  'elk.layered.nodePlacement.bk.fixedAlignment': 'BALANCED',
  'elk.layered.edgeLabels.centerLabelPlacementStrategy': 'WIDEST_LAYER',
  'elk.layered.edgeLabels.sideSelection': 'ALWAYS_UP',
  'elk.spacing.nodeNode': '28',
  'elk.spacing.edgeNode': '14',
  'elk.spacing.edgeEdge': '14',
  'elk.spacing.edgeLabel': '2',
  'elk.spacing.labelNode': '6',
  'elk.layered.spacing.nodeNodeBetweenLayers': '10',
  'elk.layered.spacing.edgeNodeBetweenLayers': '9',
  'elk.layered.spacing.edgeEdgeBetweenLayers': '8',
  'elk.padding': '[top=12,left=12,bottom=12,right=12]',
};

/** Places a chart's boxes, arrows and labels. */
export async function layoutChart(graph: ChartGraph, options: LayoutOptions): Promise<ChartLayout> {
  const draft = new Draft(graph, options);
  // Declared as a module with a default export, but the class itself is what is exported.
  const engine = new (elk as unknown as typeof elk.default)();
  const placed = await engine.layout(draft.root());
  return draft.finish(placed);
}

/** The chart in ELK's terms, and the way back from them. */
class Draft {
  readonly #graph: ChartGraph;
  readonly #options: LayoutOptions;
  readonly #arrows = new Map<string, TextLine[]>();
  readonly #children: Map<string | undefined, ChartNode[]>;

  constructor(graph: ChartGraph, options: LayoutOptions) {
    this.#graph = graph;
    this.#options = options;
    this.#children = Map.groupBy(graph.nodes, ({ parent }) => parent);
  }

  root(): ElkNode {
    const [machine] = this.#graph.nodes;
    if (!machine) throw new Error('a machine has at least its root');
    // What the machine handles itself it handles in any state: a box says so with fewer lines than a frame.
    const any = this.#graph.edges.some(({ source }) => source === machine.id) ? [this.#box(machine)] : [];
    return {
      id: '',
      layoutOptions: this.#settings(),
      children: [...any, ...this.#inside(machine)],
      edges: [...this.#edges(), ...this.#starts()],
    };
  }

  finish(root: ElkNode): ChartLayout {
    const nodes: PlacedNode[] = [];
    const dots: Point[] = [];
    const visit = (item: ElkNode): void => {
      const box = boxOf(item);
      const node = this.#graph.nodes.find(({ id }) => id === item.id);
      if (node)
        nodes.push({
          ...box,
          node,
          lines: boxLines(this.#graph, node),
          frame: node.parent !== undefined && this.#children.has(node.id),
        });
      else if (item.id !== '') dots.push({ x: box.x + DOT / 2, y: box.y + DOT / 2 });
      for (const child of item.children ?? []) visit(child);
    };
    visit(root);
    const arrows = (root.edges ?? []).map((edge) => this.#arrow(edge));
    const { width, height } = boxOf(root);
    return { graph: this.#graph, width, height, nodes, arrows, dots };
  }

  #node(node: ChartNode): ElkNode {
    const box = this.#box(node);
    if (!this.#children.has(node.id)) return box;
    const { id, width, height } = box;
    return {
      id,
      children: this.#inside(node),
      layoutOptions: {
        ...this.#settings(),
        // Model order throws where an edge crosses a frame.
        'elk.layered.cycleBreaking.strategy': 'DEPTH_FIRST',
        'elk.padding': `[top=${(height ?? 0) + 8},left=16,bottom=16,right=16]`,
        'elk.nodeSize.constraints': 'MINIMUM_SIZE',
        'elk.nodeSize.minimum': `(${width}, ${height})`,
      },
    };
  }

  #box(node: ChartNode): ElkNode {
    const lines = boxLines(this.#graph, node);
    const name = textWidth(displayName(node), NAME_SIZE, true);
    const width = Math.max(name, ...lines.map(({ text }) => textWidth(text, LINE_SIZE)));
    const height = HEADER_HEIGHT + (lines.length > 0 ? lines.length * LINE_HEIGHT + 8 : 12);
    // Room for arrows to arrive beside one another.
    const arrows = this.#graph.edges.filter(
      ({ source, target }) => target && [source, target].includes(node.id),
    );
    const sides = new Set(arrows.map(({ source, target }) => `${source} > ${target}`)).size;
    const least = this.#options.direction === 'RIGHT' ? sides * 8 : 0;
    const border = node.type === 'final' ? 6 : 0;
    return {
      id: node.id,
      width: Math.ceil(width * 1.03) + 2 * PADDING + border,
      height: Math.max(height, least) + border,
    };
  }

  #settings(): Record<string, string> {
    return { ...OPTIONS, 'elk.direction': this.#options.direction, ...this.#options.elk };
  }

  #inside(node: ChartNode): ElkNode[] {
    const dot = node.initial ? [{ id: dotOf(node.id), width: DOT, height: DOT }] : [];
    return [...dot, ...(this.#children.get(node.id) ?? []).map((child) => this.#node(child))];
  }

  #edges(): ElkExtendedEdge[] {
    const moving = this.#graph.edges.filter(({ target }) => target !== undefined);
    const merged = Map.groupBy(moving, ({ source, target }) => `${source} > ${target}`);
    return [...merged].map(([id, edges]) => {
      const lines = edges.flatMap((edge) => labelLines(edge, this.#options.actions));
      return this.#edge(id, edges[0]?.source ?? '', edges[0]?.target ?? '', lines);
    });
  }

  #starts(): ElkExtendedEdge[] {
    return this.#graph.nodes.flatMap(({ id, initial }) => {
      if (!initial) return [];
      const lines =
        initial.actions.length > 0 && this.#options.actions
          ? [{ text: `/ ${initial.actions.join(', ')}` }]
          : [];
      return [this.#edge(dotOf(id), dotOf(id), initial.target, lines)];
    });
  }

  #edge(id: string, source: string, target: string, lines: TextLine[]): ElkExtendedEdge {
    this.#arrows.set(id, lines);
    const width = Math.max(0, ...lines.map(({ text }) => textWidth(text, LINE_SIZE)));
    const size = { width: Math.ceil(width * 1.03) + 4, height: lines.length * LINE_HEIGHT + 2 };
    const labels = lines.length > 0 ? [{ text: id, ...size }] : [];
    return { id: `edge ${id}`, sources: [source], targets: [target], labels };
  }

  #arrow(edge: ElkExtendedEdge): PlacedArrow {
    const [section] = edge.sections ?? [];
    const points = section ? [section.startPoint, ...(section.bendPoints ?? []), section.endPoint] : [];
    const [label] = edge.labels ?? [];
    return {
      points: straighten(points.map(({ x, y }) => ({ x: round(x), y: round(y) }))),
      label: label && boxOf(label),
      lines: this.#arrows.get(edge.id.slice('edge '.length)) ?? [],
    };
  }
}

function dotOf(parent: string): string {
  return `${parent} initial`;
}

/**
 * ELK lets a line slope by a pixel or two rather than bend; seen at size, that looks like a mistake,
 * and so does a step as small.
 */
function straighten(points: Point[]): Point[] {
  const straight = points.slice(-1);
  for (const point of points.slice(0, -1).toReversed()) {
    const next = straight[0] ?? point;
    const [across, down] = [Math.abs(next.x - point.x), Math.abs(next.y - point.y)];
    if (across <= SLOPE && down <= SLOPE) continue;
    straight.unshift({
      x: across <= SLOPE && down > across ? next.x : point.x,
      y: down <= SLOPE && across > down ? next.y : point.y,
    });
  }
  return straight;
}

function boxOf({ x = 0, y = 0, width = 0, height = 0 }: Partial<Box>): Box {
  return { x: round(x), y: round(y), width: round(width), height: round(height) };
}

/** Whole and half pixels: bytes stay the same wherever the layout is computed. */
function round(value: number): number {
  return Math.round(value * 2) / 2;
}
