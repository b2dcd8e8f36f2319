import { readFileSync } from 'node:fs';
import test from 'ava';
import { CHARTS, drawCharts } from '../../tools/charts/charts.ts';
import { graphOf, isIgnored, labelOf, transitionsOf } from '../../tools/charts/graph.ts';
import { layoutChart, type Box } from '../../tools/charts/layout.ts';
import { statesOf } from '../helpers/machine-walk.ts';

/** Drawn once: laying the charts out is what takes the time here. */
const drawn = drawCharts();

const FOLDER = new URL('../../docs/charts/', import.meta.url);

test('the charts in docs are what the machines draw now', async (t) => {
  for (const [name, content] of Object.entries(await drawn))
    t.true(readFileSync(new URL(name, FOLDER), 'utf8') === content, `${name}: run npm run generate`);
});

test('drawing twice gives the same bytes', async (t) => {
  t.deepEqual(await drawCharts(), await drawn);
});

for (const chart of CHARTS) {
  const { machine } = chart;
  const graph = graphOf(machine);

  test(`${machine.id}: every state is drawn once, with a title that describes it`, async (t) => {
    const svg = (await drawn)[`${machine.id}.svg`] ?? '';
    const described = new Map(graph.nodes.map(({ id, description }) => [id, description]));
    for (const id of statesOf(machine)) {
      const groups = svg.split(`data-state="${id}"><title>`).slice(1);
      t.is(groups.length, 1, id);
      const [title = ''] = groups[0]?.split('</title>') ?? [];
      t.true(title.startsWith(id) && title.endsWith(`: ${described.get(id)}`), title);
    }
  });

  test(`${machine.id}: every transition is drawn, always and after included`, async (t) => {
    const svg = (await drawn)[`${machine.id}.svg`] ?? '';
    const expected: string[] = [];
    const visit = (node: typeof machine.root): void => {
      for (const index of transitionsOf(node).keys()) expected.push(`${node.id}:${index}`);
      // Counted apart from what `transitionsOf` returns, so that it cannot leave a kind of them out.
      const own = [...node.transitions.values()].flat().length + (node.always?.length ?? 0);
      t.is(transitionsOf(node).length, own);
      t.true(node.after.every(({ eventType }) => node.transitions.has(eventType)));
      for (const child of Object.values(node.states)) visit(child);
    };
    visit(machine.root);
    const edges = new Set([...svg.matchAll(/data-edge="([^"]+)"/g)].map(([, id]) => id));
    t.deepEqual([...edges].toSorted(), expected.toSorted());
  });

  test(`${machine.id}: no label or box lies on another, and nothing lies outside the picture`, async (t) => {
    const { nodes, arrows, width, height } = await layoutChart(graph, chart.layout);
    const boxes = nodes.filter(({ frame }) => !frame);
    const labels = arrows.flatMap(({ label }) => (label ? [label] : []));
    const all: Box[] = [...boxes, ...labels];
    for (const [index, one] of all.entries()) {
      t.true(one.x >= 0 && one.y >= 0 && one.x + one.width <= width && one.y + one.height <= height);
      for (const other of all.slice(index + 1)) t.false(overlap(one, other), JSON.stringify([one, other]));
    }
    const points = arrows.map((arrow) => arrow.points);
    t.true(points.every((line) => line.length >= 2 && isOrthogonal(line)));
  });

  test(`${machine.id}: its table in the README names every state and transition`, async (t) => {
    const readme = (await drawn)['README.md'] ?? '';
    const section = readme.split(`\n## ${machine.id}\n`)[1]?.split('\n## ')[0] ?? '';
    for (const id of statesOf(machine))
      t.true(section.includes(`| \`${id.slice(machine.id.length + 1)}\` |`), id);
    for (const edge of graph.edges)
      t.true(section.includes(`\`${labelOf(edge, { actions: true })}\``), edge.id);
  });
}

test('names what xstate makes itself the way a reader would', (t) => {
  const replica = CHARTS.find(({ machine }) => machine.id === 'replica');
  const pool = CHARTS.find(({ machine }) => machine.id === 'pool');
  t.truthy(replica && pool);
  if (!replica || !pool) return;
  const { nodes, edges } = graphOf(replica.machine);
  const labels = new Set(edges.map((edge) => labelOf(edge, { actions: false })));
  for (const label of ['load done', 'load failed', 'after backoff', 'always [mayRestart]', 'always [else]'])
    t.true(labels.has(label), label);
  t.false(JSON.stringify([nodes, edges]).includes('"xstate.'));
  t.deepEqual(
    graphOf(pool.machine)
      .edges.filter(isIgnored)
      .map(({ source, event }) => `${source} ${event}`),
    [
      'pool.draining.freeing pool.drain',
      'pool.drained pool.drain',
      'pool.closing pool.drain',
      'pool.closing.stopping pool.close',
    ],
  );
});

function overlap(one: Box, other: Box): boolean {
  return (
    one.x < other.x + other.width &&
    other.x < one.x + one.width &&
    one.y < other.y + other.height &&
    other.y < one.y + one.height
  );
}

function isOrthogonal(line: { x: number; y: number }[]): boolean {
  return line.slice(1).every((point, index) => point.x === line[index]?.x || point.y === line[index]?.y);
}
