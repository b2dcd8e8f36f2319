import { appendFileSync, copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import type { ConfigInput } from '../../src/config.ts';
import { validateResponse } from '../helpers/contract.ts';
import { startTestServer, type TestServer } from '../helpers/server.ts';
import { STORYTELLER } from '../models/tokenizer-files.ts';

interface Stage {
  server: TestServer;
  /** Another model file, and one that is none. */
  other: string;
  broken: string;
  health: () => Promise<Record<string, unknown>>;
  post: (path: string, body: object) => Promise<Response>;
}

async function stage(t: ExecutionContext, pool: { model?: string; provisioning?: object }): Promise<Stage> {
  const folder = mkdtempSync(join(tmpdir(), 'taskchart-'));
  const other = join(folder, 'other.gguf');
  const broken = join(folder, 'broken.gguf');
  // The same weights, and other bytes: what has the same digest is the same model.
  copyFileSync(STORYTELLER, other);
  appendFileSync(other, '\0');
  writeFileSync(broken, 'GGUF and nothing else');
  const server = await startTestServer({
    pools: [{ id: 'p', engine: 'llamacpp', model: 'storyteller', slots: 1, ...pool }],
  } as ConfigInput);
  t.teardown(async () => {
    await server.close();
    rmSync(folder, { recursive: true, force: true });
  });
  const health = async (): Promise<Record<string, unknown>> =>
    (await (await server.fetch('/v1/pools/p/health')).json()) as Record<string, unknown>;
  t.timeout(120_000);
  // Loaded once somebody has been served.
  await server.raw(await server.submit({ ...STORY, max_tokens: 1, model_ref: pool.model ?? 'storyteller' }));
  return {
    server,
    other,
    broken,
    health,
    post: (path, body) =>
      server.fetch(path, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify(body),
      }),
  };
}

/** Resolves once the task's first token was read. */
async function begun({ url }: TestServer, id: string): Promise<void> {
  const response = await fetch(`${url}/v1/tasks/${id}/stream`);
  let text = '';
  for await (const part of response.body?.pipeThrough(new TextDecoderStream()) ?? [])
    if ((text += part).includes('event: token')) return;
}

const STORY = { engine: 'llamacpp', ctx: 256, max_tokens: 40 } as const;

test.serial(
  'a pool whose model has a name is reloaded under load, and nothing that was accepted is lost',
  async (t) => {
    const { server, other, post, health } = await stage(t, {
      model: 'stories',
      provisioning: { mode: 'embedded', model: { ref: 'storyteller' } },
    });
    const ids: string[] = [];
    for (let i = 0; i < 12; i++) ids.push(await server.submit({ ...STORY, model_ref: 'stories' }));
    const reloading = post('/v1/pools/p/reload?wait=true', { new_model_ref: other });
    for (let i = 0; i < 4; i++) ids.push(await server.submit({ ...STORY, model_ref: 'stories' }));
    const reloaded = await reloading;
    t.is(reloaded.status, 200);
    validateResponse('reloadPool', 200, await reloaded.json());
    for (const id of ids) t.is((await server.events(id)).at(-1)?.event, 'end');
    t.like(await health(), { ready: true, last_reload: { model_ref: `file:${other}`, outcome: 'done' } });
    validateResponse('getPoolHealth', 200, await health());
  },
);

test.serial(
  'what was accepted for a model by its reference still gets that model before the pool has another one',
  async (t) => {
    const { server, other, post } = await stage(t, {});
    const ids: string[] = [];
    for (let i = 0; i < 6; i++) ids.push(await server.submit({ ...STORY, model_ref: 'storyteller' }));
    const reloaded = await post('/v1/pools/p/reload?wait=true', { new_model_ref: other });
    t.is(reloaded.status, 200);
    for (const id of ids) {
      const task = (await (await server.fetch(`/v1/tasks/${id}`)).json()) as { state: string };
      t.is(task.state, 'ended');
    }
    t.is((await server.post({ ...STORY, model_ref: 'storyteller' })).status, 503);
    const next = await server.submit({ ...STORY, model_ref: `file:${other}` });
    t.is((await server.events(next)).at(-1)?.event, 'end');
  },
);

test.serial('a model that cannot be loaded changes nothing, and the answer says why', async (t) => {
  const { server, broken, post, health } = await stage(t, {});
  const reloaded = await post('/v1/pools/p/reload?wait=true', { new_model_ref: broken });
  t.is(reloaded.status, 409);
  const body = (await reloaded.json()) as { message: string };
  validateResponse('reloadPool', 409, body);
  t.regex(body.message, /broken\.gguf/);
  t.like(await health(), { ready: true, last_reload: { outcome: 'failed' } });
  const id = await server.submit({ ...STORY, model_ref: 'storyteller' });
  t.is((await server.events(id)).at(-1)?.event, 'end');
});

test.serial('a reload that would take too long is given up, and the old model serves on', async (t) => {
  const { server, other, post, health } = await stage(t, {});
  const id = await server.submit({ ...STORY, ctx: 1024, max_tokens: 1000, model_ref: 'storyteller' });
  await begun(server, id);
  const reloaded = await post('/v1/pools/p/reload?wait=true', { new_model_ref: other, deadline_ms: 1 });
  t.is(reloaded.status, 409);
  t.regex(((await reloaded.json()) as { message: string }).message, /did not finish before the deadline/);
  t.true((await health())['ready']);
  t.is((await server.events(id)).at(-1)?.event, 'end');
});

test.serial(
  'the same model again is a success without any work; something that is no model is refused',
  async (t) => {
    const { server, post } = await stage(t, {});
    const [before] = server.orchestrator.core.pools.get('p')?.replicas ?? [];
    t.is((await post('/v1/pools/p/reload?wait=true', { new_model_ref: 'storyteller' })).status, 200);
    t.is(before?.snapshot.context.exit, undefined);
    const refused = await post('/v1/pools/p/reload', { new_model_ref: 'ftp://x/y.gguf' });
    t.is(refused.status, 400);
    t.regex(((await refused.json()) as { message: string }).message, /^new_model_ref: must be storyteller/);
    t.is((await post('/v1/pools/p/reload', {})).status, 400);
    t.is((await post('/v1/pools/none/reload', { new_model_ref: 'storyteller' })).status, 404);
  },
);

test.serial(
  'a drain lets what runs finish, tells what waits, and a reload of the same model brings the pool back',
  async (t) => {
    const { server, post, health } = await stage(t, {});
    const running = await server.submit({ ...STORY, ctx: 1024, max_tokens: 300, model_ref: 'storyteller' });
    const waiting = await server.submit({ ...STORY, model_ref: 'storyteller' });
    const drained = await post('/v1/pools/p/drain', { deadline_ms: 30_000 });
    t.is(drained.status, 202);
    validateResponse('drainPool', 202, await drained.json());
    t.like((await server.events(waiting)).at(-1), { event: 'error', data: { code: 'POOL_UNREADY' } });
    t.is((await server.events(running)).at(-1)?.event, 'end');
    while ((await health())['state'] !== 'drained') await turn();
    t.like(await health(), { live: false, ready: false, draining: true });
    t.is((await server.post({ ...STORY, model_ref: 'storyteller' })).status, 503);
    t.is((await post('/v1/pools/p/reload?wait=true', { new_model_ref: 'storyteller' })).status, 200);
    const again = await server.submit({ ...STORY, model_ref: 'storyteller' });
    t.is((await server.events(again)).at(-1)?.event, 'end');
    for (const body of [{}, { deadline_ms: -1 }, { deadline_ms: 'soon' }])
      t.is((await post('/v1/pools/p/drain', body)).status, 400);
  },
);

test.serial('a pool whose model a server of somebody else has loaded cannot be reloaded here', async (t) => {
  const server = await startTestServer({
    pools: [
      {
        id: 'p',
        engine: 'vllm',
        model: 'm',
        preload: false,
        provisioning: { mode: 'external', external: { url: 'http://127.0.0.1:9' } },
      },
    ],
  });
  t.teardown(server.close);
  const refused = await server.fetch('/v1/pools/p/reload', {
    method: 'POST',
    body: JSON.stringify({ new_model_ref: 'n' }),
  });
  t.is(refused.status, 409);
});
