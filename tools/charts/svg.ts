import { labelOf, type ChartNode } from './graph.ts';
import { displayName, type TextLine } from './labels.ts';
import {
  HEADER_HEIGHT,
  LINE_HEIGHT,
  PADDING,
  type Box,
  type ChartLayout,
  type PlacedArrow,
  type PlacedNode,
  type Point,
} from './layout.ts';
import { styleOf, toneOf } from './style.ts';

const CORNER = 6;

/** Draws a placed chart as one self-contained file that follows the reader's light or dark theme. */
export function svgOf(layout: ChartLayout, description: string): string {
  const { graph, width, height } = layout;
  const id = `chart-${graph.id}`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" aria-labelledby="${id}-title ${id}-desc"`,
    ` width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">\n`,
    `<title id="${id}-title">Statechart of the ${escape(graph.id)} machine</title>\n`,
    `<desc id="${id}-desc">${escape(description)}</desc>\n`,
    `<style>${styleOf()}</style>\n`,
    `<defs><marker id="${id}-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto" markerUnits="userSpaceOnUse"><path class="head" d="M0 .5 8 4 0 7.5z"/></marker></defs>\n`,
    `<rect class="page" width="${width}" height="${height}" rx="8"/>\n`,
    ...layout.nodes.filter(({ frame }) => frame).map(drawNode),
    ...layout.arrows.map((arrow) => drawPath(arrow, `${id}-arrow`)),
    ...layout.dots.map(({ x, y }) => `<circle class="dot" cx="${x}" cy="${y}" r="5"/>\n`),
    ...layout.nodes.filter(({ frame }) => !frame).map(drawNode),
    ...layout.arrows.map(drawLabel),
    '</svg>\n',
  ].join('');
}

function drawNode({ node, lines, frame, ...box }: PlacedNode): string {
  const classes = [
    'state',
    frame ? 'frame' : node.parent === undefined ? 'any' : node.type,
    `tone-${toneOf(node)}`,
  ].join(' ');
  const border = node.type === 'final' ? rect('border', inset(box, 3), CORNER - 2) : '';
  const edge = node.type === 'final' ? 3 : 0;
  const rule =
    lines.length > 0 && !frame
      ? `<path class="rule" d="M${box.x + edge} ${box.y + edge + HEADER_HEIGHT}h${box.width - 2 * edge}"/>`
      : '';
  const middle = frame ? box.x + PADDING : box.x + box.width / 2;
  const name = text(
    'name',
    { x: middle, y: lines.length > 0 || frame ? box.y + edge + 19 : box.y + box.height / 2 + 5 },
    displayName(node),
  );
  const body = lines.map((line, index) =>
    drawLine(line, { x: box.x + PADDING + edge, y: box.y + edge + HEADER_HEIGHT + 16 + index * LINE_HEIGHT }),
  );
  return `<g class="${classes}" data-state="${escape(node.id)}"><title>${escape(titleOf(node))}</title>${rect('box', box, CORNER)}${border}${rule}${name}${body.join('')}</g>\n`;
}

function drawPath({ points, lines }: PlacedArrow, marker: string): string {
  const edges = [...new Set(lines.flatMap(({ edge }) => (edge ? [edge.id] : [])))];
  const data = edges.length > 0 ? ` data-edges="${escape(JSON.stringify(edges))}"` : '';
  return `<path class="edge"${data} marker-end="url(#${marker})" d="${pathOf(points)}"/>\n`;
}

function drawLabel({ label, lines }: PlacedArrow): string {
  if (!label) return '';
  const x = label.x + label.width / 2;
  const drawn = lines.map((line, index) => drawLine(line, { x, y: label.y + 13 + index * LINE_HEIGHT }));
  return `<g class="label">${drawn.join('')}</g>\n`;
}

function drawLine({ text: content, edge, more }: TextLine, at: Point): string {
  const name = more ? 'line more' : 'line';
  if (!edge) return text(name, at, content);
  const title = `${edge.source} → ${edge.target ?? edge.source}: ${labelOf(edge, { actions: true })}`;
  return `<g data-edge="${escape(edge.id)}"><title>${escape(title)}</title>${text(name, at, content)}</g>`;
}

function titleOf(node: ChartNode): string {
  if (node.parent === undefined) return `${node.id}: what it handles in any state`;
  const tags = node.tags.length > 0 ? ` (${node.tags.join(', ')})` : '';
  return `${node.id}${tags}${node.description ? `: ${node.description}` : ''}`;
}

/** A line with its corners rounded off. */
function pathOf([start, ...rest]: Point[]): string {
  if (!start) return '';
  let from = start;
  const parts = rest.map((corner, index) => {
    const next = rest[index + 1];
    const straight = next === undefined || (from.x === corner.x) === (corner.x === next.x);
    const before = straight ? corner : towards(corner, from);
    const after = next === undefined || straight ? '' : `Q${pair(corner)} ${pair(towards(corner, next))}`;
    from = corner;
    return `L${pair(before)}${after}`;
  });
  return `M${pair(start)}${parts.join('')}`;
}

function towards(corner: Point, other: Point): Point {
  const length = Math.hypot(other.x - corner.x, other.y - corner.y);
  const share = Math.min(CORNER, length / 2) / (length || 1);
  return { x: corner.x + (other.x - corner.x) * share, y: corner.y + (other.y - corner.y) * share };
}

function pair({ x, y }: Point): string {
  return `${Math.round(x * 100) / 100} ${Math.round(y * 100) / 100}`;
}

function inset({ x, y, width, height }: Box, by: number): Box {
  return { x: x + by, y: y + by, width: width - 2 * by, height: height - 2 * by };
}

function rect(name: string, { x, y, width, height }: Box, corner: number): string {
  return `<rect class="${name}" x="${x}" y="${y}" width="${width}" height="${height}" rx="${corner}"/>`;
}

function text(name: string, { x, y }: Point, content: string): string {
  return `<text class="${name}" x="${x}" y="${y}">${escape(content)}</text>`;
}

function escape(value: string): string {
  return value
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}
