import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { ConfigInput } from '../../src/config.ts';
import { validateResponse } from '../helpers/contract.ts';
import { startTestServer, type TestServer } from '../helpers/server.ts';
import { until } from '../helpers/until.ts';
import { createSourceRig, STORYTELLER } from '../models/sources/rig.ts';

const REFERENCE = 'hf:org/stories:Q8_0';
const TASK = { engine: 'llamacpp', model_ref: REFERENCE, ctx: 256, max_tokens: 4 } as const;

interface Stage {
  server: TestServer;
  /** GGUF files in the cache. */
  files: () => string[];
  purge: (pool: string, body: object) => Promise<Response>;
}

async function stage(t: ExecutionContext, pools: string[]): Promise<Stage> {
  t.timeout(120_000);
  const { registry, cache_dir, folder } = await createSourceRig(t);
  registry.addRepository('org/stories', { 'stories-Q8_0.gguf': readFileSync(STORYTELLER) });
  const server = await startTestServer(
    {
      pools: pools.map((id) => ({ id, engine: 'llamacpp', model: REFERENCE, preload: false })),
      models: { cache_dir },
      catalog: { root: join(folder, 'catalog') },
      runtime: { dir: join(folder, 'runtime') },
    } as ConfigInput,
    { hub: { endpoint: registry.url } },
  );
  t.teardown(server.close);
  return {
    server,
    files: () =>
      existsSync(cache_dir)
        ? readdirSync(cache_dir, { recursive: true, encoding: 'utf8' }).filter((name) =>
            name.endsWith('.gguf'),
          )
        : [],
    purge: (pool, body) =>
      server.fetch(`/v1/pools/${pool}/purge`, { method: 'POST', body: JSON.stringify(body) }),
  };
}

test.serial('a purge drains the pool and deletes its model, and a reload brings both back', async (t) => {
  const { server, files, purge } = await stage(t, ['stories']);
  await server.raw(await server.submit(TASK));
  t.is(files().length, 1);
  const purged = await purge('stories', { purge_models: [REFERENCE] });
  t.is(purged.status, 202);
  validateResponse('purgePool', 202, await purged.json());
  await until(() => files().length === 0);
  t.is(server.orchestrator.core.pools.get('stories')?.phase, 'drained');
  const reloaded = await server.fetch('/v1/pools/stories/reload?wait=true', {
    method: 'POST',
    body: JSON.stringify({ new_model_ref: REFERENCE }),
  });
  t.is(reloaded.status, 200, await reloaded.text());
  t.is(files().length, 1);
  t.regex(await server.raw(await server.submit(TASK)), /event: end/);
});

test.serial('what another pool needs too is only deleted by force', async (t) => {
  const { server, files, purge } = await stage(t, ['stories', 'tales']);
  await server.raw(await server.submit(TASK));
  const refused = await purge('stories', { delete_cache_dirs: true });
  t.is(refused.status, 409);
  t.regex(((await refused.json()) as { message: string }).message, /used by pool tales, too; set force/);
  t.is(files().length, 1);
  t.not(server.orchestrator.core.pools.get('stories')?.phase, 'drained');
  t.is((await purge('stories', { delete_cache_dirs: true, force: true })).status, 202);
  await until(() => files().length === 0);
});

test('a purge of what is no pool, no model or no wish is refused', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  const purge = (pool: string, body: unknown): Promise<Response> =>
    server.fetch(`/v1/pools/${pool}/purge`, { method: 'POST', body: JSON.stringify(body) });
  t.is((await purge('none', {})).status, 404);
  t.is((await purge('fast', { purge_models: 'all' })).status, 400);
  t.is((await purge('fast', { drain_first: 'yes' })).status, 400);
});
