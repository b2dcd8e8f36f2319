import type { ChartNode } from './graph.ts';
import { LINE_SIZE, NAME_SIZE } from './labels.ts';
import { FONT } from './text-width.ts';

type Tone = 'plain' | 'wait' | 'prepare' | 'claim' | 'run' | 'done' | 'fault' | 'leave';

/** Foreground and fill, light then dark; every text on its fill has a contrast of 4.5 or more. */
const TONES: Record<Tone, readonly [string, string, string, string]> = {
  plain: ['#38455b', '#f5f7fa', '#d6dde8', '#1b212a'],
  wait: ['#38455b', '#e5f1ff', '#d6ebff', '#1d2d3c'],
  prepare: ['#5b3403', '#ffeddc', '#f3b01d', '#37290f'],
  claim: ['#703a9d', '#f5ebff', '#d0b7fd', '#2f263e'],
  run: ['#1f62e7', '#e5f1ff', '#7fabee', '#1d2c42'],
  done: ['#286a5c', '#dcf7f0', '#5ee0a3', '#153224'],
  fault: ['#b43802', '#ffeae2', '#f9836a', '#3f231c'],
  leave: ['#25292f', '#ebf1f8', '#b3b4b6', '#2b2b2c'],
};

/** Looked up by the state's own name first, then by its tags. */
const TONE_OF: Readonly<Record<string, Tone>> = {
  placed: 'claim',
  probing: 'claim',
  verifying: 'claim',
  streaming: 'run',
  serving: 'run',
  checking: 'run',
  provisioning: 'prepare',
  fetching: 'prepare',
  resolving: 'wait',
  locating: 'wait',
  loading: 'prepare',
  'backing off': 'wait',
  error: 'fault',
  failed: 'fault',
  lost: 'fault',
  broken: 'fault',
  unready: 'fault',
  draining: 'leave',
  stopping: 'leave',
  waiting: 'wait',
  ready: 'run',
  accepting: 'wait',
};

/** The colour a state is drawn in. */
export function toneOf(node: ChartNode): Tone {
  const known = [node.name, ...node.tags.toReversed()].map((word) => TONE_OF[word]);
  return known.find((tone) => tone !== undefined) ?? (node.type === 'final' ? 'done' : 'plain');
}

/** Scoped to `.chart`, so that a page that takes the drawing in keeps its own styles. */
export function styleOf(): string {
  return `
.chart{--page:#fff;--text:#1b2430;--muted:#566173;--edge:#7c8799;${tones(0)}}
@media(prefers-color-scheme:dark){.chart{--page:#12161c;--text:#e8ecf2;--muted:#a3aebd;--edge:#77839a;${tones(2)}}}
.chart text{font-family:${FONT};font-size:${LINE_SIZE}px;fill:var(--text)}
.chart .more{fill:var(--muted)}
.chart .page{fill:var(--page)}
.chart .name{font-size:${NAME_SIZE}px;font-weight:700;fill:var(--ink);text-anchor:middle}
.chart .frame .name{text-anchor:start}
.chart .state .line{fill:var(--text)}
.chart .box{fill:var(--fill);stroke:var(--ink);stroke-width:1.5}
.chart .border,.chart .rule{fill:none;stroke:var(--ink);stroke-width:1}
.chart .rule{stroke-opacity:.35}
.chart .any .box{stroke-dasharray:5 3}
.chart .frame .box{fill-opacity:.35;stroke-opacity:.5}
.chart .edge{fill:none;stroke:var(--edge);stroke-width:1.5}
.chart .head{fill:var(--edge)}
.chart .dot{fill:var(--edge)}
.chart .label text{text-anchor:middle}
${Object.keys(TONES)
  .map((tone) => `.chart .tone-${tone}{--ink:var(--${tone}-ink);--fill:var(--${tone}-fill)}`)
  .join('\n')}
`;
}

function tones(offset: 0 | 2): string {
  return Object.entries(TONES)
    .map(([tone, colours]) => `--${tone}-ink:${colours[offset]};--${tone}-fill:${colours[offset + 1]}`)
    .join(';');
}
