/** Adds models to the catalog of a folder; dies where a file would get its name, if it is told to. */
import fs from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';

const [, , folder = '', how = '', ...ids] = process.argv;
if (how === 'die') {
  fs.rename = async () => void process.kill(process.pid, 'SIGKILL');
  syncBuiltinESMExports();
}
const { FolderCatalog } = await import('../../src/catalog/folder-catalog.ts');
const catalog = await FolderCatalog.open(folder);
for (const id of ids)
  await catalog.change(id, () => ({
    id,
    digest: `sha256:${'0'.repeat(64)}`,
    state: 'Active',
    created_ms: 1,
    tags: Array.from({ length: 200 }, () => id),
  }));
await catalog.close();
