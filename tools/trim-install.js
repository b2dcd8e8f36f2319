// Runs after `npm ci`, on whatever Node the system has, so it is plain JavaScript. The `node` package brings 67 MB of
// C headers beside its program; nothing here compiles against them.
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

const packages = join(
  import.meta.dirname ?? new URL('.', import.meta.url).pathname,
  '../node_modules/node/node_modules',
);

for (const name of entries(packages))
  if (name.startsWith('node-')) rmSync(join(packages, name, 'include'), { recursive: true, force: true });

function entries(folder) {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
