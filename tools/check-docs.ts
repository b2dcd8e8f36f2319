/**
 * Checks what the documents claim: links lead somewhere, to a heading where they name one, samples are the files they
 * come from, every example is a sample of some page, npm scripts exist, and generated contracts and charts are fresh.
 * Prints each mistake and exits 1.
 */
import { globSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { staleFiles } from './generate-contract.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

const mistakes: string[] = [];
const { scripts } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as {
  scripts: Record<string, string>;
};

const shown = new Set<string>();

/** As a link on the page names them. */
const headingsOf = (text: string): string[] =>
  Array.from(text.matchAll(/^#+ (.+)$/gm), ([, title = '']) =>
    title
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  );

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

for (const file of globSync('**/*.md', { cwd: ROOT, exclude: (name) => name.includes('node_modules') })) {
  const text = await readFile(join(ROOT, file), 'utf8');
  for (const [, target = ''] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
    if (/^[a-z]+:|^#/.test(target)) continue;
    const [to = '', heading] = target.split('#');
    const path = join(ROOT, dirname(file), to);
    if (!(await exists(path))) mistakes.push(`${file}: link to ${target} leads nowhere`);
    else if (heading !== undefined && !headingsOf(await readFile(path, 'utf8')).includes(heading))
      mistakes.push(`${file}: link to ${target}, where there is no such heading`);
  }
  for (const [, name = ''] of text.matchAll(/npm run ([a-z:-]+)/g))
    if (!(name in scripts)) mistakes.push(`${file}: there is no npm script "${name}"`);
  for (const [, source = '', sample = ''] of text.matchAll(
    /<!-- sample: (\S+) -->\s*```\w*\n([\s\S]*?)```/g,
  )) {
    shown.add(source);
    const original = await readFile(join(ROOT, source), 'utf8').catch(() => undefined);
    if (original === undefined) mistakes.push(`${file}: sample ${source} does not exist`);
    else if (original !== sample) mistakes.push(`${file}: the sample is not what ${source} says`);
  }
}

for (const example of globSync('docs/examples/*', { cwd: ROOT }))
  if (!shown.has(example)) mistakes.push(`${example} is not shown by any page`);

for (const stale of await staleFiles())
  mistakes.push(`${relative(ROOT, join(ROOT, stale))} is stale; run npm run generate`);

for (const mistake of mistakes) process.stderr.write(`${mistake}\n`);
process.exitCode = mistakes.length > 0 ? 1 : 0;
