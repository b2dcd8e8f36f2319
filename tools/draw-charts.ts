import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { drawCharts } from './charts/charts.ts';

const FOLDER = new URL('../docs/charts/', import.meta.url);

/** Writes `docs/charts/`, or with `--check` only names what is not up to date. */
async function main(): Promise<void> {
  const files = await drawCharts();
  const stale = Object.entries(files).filter(([name, content]) => content !== readChart(name));
  if (!process.argv.includes('--check')) {
    mkdirSync(FOLDER, { recursive: true });
    for (const [name, content] of stale) writeFileSync(new URL(name, FOLDER), content);
  } else if (stale.length > 0) {
    const names = stale.map(([name]) => `docs/charts/${name}`);
    console.error(`Not up to date, run npm run generate: ${names.join(', ')}`);
    process.exitCode = 1;
  }
}

function readChart(name: string): string | undefined {
  try {
    return readFileSync(new URL(name, FOLDER), 'utf8');
  } catch {
    return undefined;
  }
}

await main();
