/**
 * Compiles src/ to dist/, which is what the package runs: Node strips no types inside node_modules.
 * Exits 1 on a type error.
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, globSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const path = (name: string): string => fileURLToPath(new URL(`../${name}`, import.meta.url));
const SRC = path('src');
const DIST = path('dist');

rmSync(DIST, { recursive: true, force: true });
const { status } = spawnSync(
  process.execPath,
  [path('node_modules/typescript/bin/tsc'), '-p', path('tsconfig.build.json')],
  { stdio: 'inherit' },
);
if (status !== 0) process.exit(1);

// What is generated is JavaScript with types beside it already.
for (const file of globSync(['**/*.js', '**/*.d.ts'], { cwd: SRC }))
  copyFileSync(join(SRC, file), join(DIST, file));

// The compiler rewrites the names of imported files in code, and leaves them in declarations.
for (const file of globSync('**/*.d.ts', { cwd: DIST })) {
  const text = readFileSync(join(DIST, file), 'utf8');
  const named = text.replaceAll(/((?:from |import\()['"]\.{1,2}\/[^'"]+)\.ts(['"])/g, '$1.js$2');
  if (named !== text) writeFileSync(join(DIST, file), named);
}
