import { appendFileSync, copyFileSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { PoolHealth, TaskInfo } from '../../src/contract/generated/types.ts';
import { startDaemon } from '../helpers/cli.ts';
import { realLlamaServer } from '../helpers/real-llama-server.ts';
import { request } from '../helpers/server.ts';
import { runInSlices } from '../helpers/slices.ts';
import { until } from '../helpers/until.ts';
import { STORYTELLER } from '../models/tokenizer-files.ts';

/** A build of llama.cpp, where there is none yet. */
const BUILD_MS = 60 * 60_000;
const GB = 1e9;
const MODES = ['embedded', 'binary'] as const;

let program = '';

test.before(async (t) => {
  t.timeout(BUILD_MS);
  program = await realLlamaServer();
});

interface Daemon {
  url: string;
  pid: number;
  other: string;
  submit(fields: object): Promise<string>;
  stream(id: string): Promise<Response>;
  text(id: string): Promise<string>;
  info(id: string): Promise<TaskInfo>;
  health(pool: string): Promise<PoolHealth>;
  post(path: string, body: object): Promise<Response>;
}

/** A daemon of its own, with two models and memory for one of them. */
async function start(t: ExecutionContext, mode: (typeof MODES)[number]): Promise<Daemon> {
  t.timeout(240_000);
  const folder = mkdtempSync(join(tmpdir(), 'taskchart-engines-'));
  const other = join(folder, 'other.gguf');
  copyFileSync(STORYTELLER, other);
  // The same weights, and another file.
  appendFileSync(other, '\0');
  const pool = (id: string, ref: string): object => ({
    id,
    engine: 'llamacpp',
    model: id,
    ctx: 1024,
    threads: 1,
    preload: false,
    memory_bytes: GB,
    provisioning: { mode, model: { ref }, ...(mode === 'binary' ? { binary: { path: program } } : {}) },
  });
  const { daemon, url } = await startDaemon(t, folder, {
    memory: { host_bytes: GB, min_residency_ms: 0 },
    supervision: { initial_ms: 50 },
    pools: [pool('one', 'storyteller'), pool('two', other)],
  });
  const ask = (path: string, init?: RequestInit): Promise<Response> => fetch(url + path, init);
  const post: Daemon['post'] = (path, body) => ask(path, { method: 'POST', body: JSON.stringify(body) });
  const info: Daemon['info'] = async (id) => (await (await ask(`/v1/tasks/${id}`)).json()) as TaskInfo;
  return {
    url,
    pid: daemon.child.pid as number,
    other,
    post,
    info,
    async submit(fields) {
      const response = await post('/v1/tasks', { ...request, engine: 'llamacpp', ctx: 512, ...fields });
      if (response.status !== 202) throw new Error(await response.text());
      return ((await response.json()) as { task_id: string }).task_id;
    },
    stream: (id) => ask(`/v1/tasks/${id}/stream`),
    async text(id) {
      const said = await (await ask(`/v1/tasks/${id}/stream`)).text();
      if (!said.includes('event: end')) throw new Error(said.slice(-300));
      return (await info(id)).text;
    },
    health: async (id) => (await (await ask(`/v1/pools/${id}/health`)).json()) as PoolHealth,
  };
}

/** The engines that a daemon has started. */
function enginesOf(pid: number): number[] {
  return readdirSync('/proc')
    .filter(
      (name) => /^\d+$/.test(name) && parentOf(name) === pid && /\.gguf|embedded-child/.test(commandOf(name)),
    )
    .map(Number);
}

function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1');
  } catch {
    return '';
  }
}

function parentOf(pid: string): number | undefined {
  try {
    return Number(/\) \S (\d+) /.exec(readFileSync(`/proc/${pid}/stat`, 'latin1'))?.[1]);
  } catch {
    return undefined;
  }
}

for (const mode of MODES) {
  test.serial(
    `${mode}: two models take turns in memory for one while tasks for both keep coming`,
    async (t) => {
      const { submit, text, health, pid } = await start(t, mode);
      const ids: string[] = [];
      let most = 0;
      for (let i = 0; i < 12; i++) {
        ids.push(
          await submit({
            model_ref: i % 3 === 0 ? 'two' : 'one',
            priority: i % 2 === 0 ? 'interactive' : 'batch',
            max_tokens: 60,
          }),
        );
        most = Math.max(most, enginesOf(pid).length);
      }
      for (const id of ids) {
        t.true((await text(id)).length > 0);
        most = Math.max(most, enginesOf(pid).length);
      }
      t.is(most, 1, 'engines at a time');
      const exits = (await Promise.all(['one', 'two'].map(health))).flatMap(({ replicas = [] }) =>
        replicas.map(({ last_exit }) => last_exit?.cause),
      );
      t.true(exits.includes('swap'), exits.join(' '));
    },
  );

  test.serial(
    `${mode}: an engine is killed in the middle of a story, and the story goes on to the letter`,
    async (t) => {
      const { submit, text, stream, info, health, pid } = await start(t, mode);
      const story = { model_ref: 'one', prompt: 'Once upon a time', ctx: 1024, max_tokens: 900, seed: 7 };
      const undisturbed = await text(await submit(story));
      const [engine = 0, ...others] = enginesOf(pid);
      t.deepEqual(others, []);
      process.kill(engine, 'SIGSTOP');
      const id = await submit(story);
      const reader = ((await stream(id)).body as ReadableStream<Uint8Array>).pipeThrough(
        new TextDecoderStream(),
      );
      let said = '';
      const read = (async () => {
        for await (const part of reader) said += part;
      })();
      await runInSlices(engine, () => (said.match(/event: token/g)?.length ?? 0) >= 20);
      t.notRegex(said, /event: (end|error)/);
      process.kill(engine, 'SIGKILL');
      await read;
      t.regex(said, /"resumed":true/);
      t.regex(said, /event: end/);
      t.is((await info(id)).text, undisturbed);
      const [replica] = (await health('one')).replicas ?? [];
      t.like(replica, { last_exit: { cause: 'crash', signal: 'SIGKILL' } });
    },
  );

  test.serial(
    `${mode}: a pool is drained and reloaded under load, and nothing that was accepted is lost`,
    async (t) => {
      const { submit, text, info, post, health, other } = await start(t, mode);
      await text(await submit({ model_ref: 'one', max_tokens: 1 }));
      const ids: string[] = [];
      for (let i = 0; i < 6; i++) ids.push(await submit({ model_ref: 'one', max_tokens: 60 }));
      const reloading = post('/v1/pools/one/reload?wait=true', { new_model_ref: other });
      for (let i = 0; i < 6; i++) ids.push(await submit({ model_ref: 'one', max_tokens: 60 }));
      const reloaded = await reloading;
      t.is(reloaded.status, 200, await reloaded.text());
      for (const id of ids) t.true((await text(id)).length > 0);
      const last = await submit({ model_ref: 'one', max_tokens: 60 });
      t.is((await post('/v1/pools/one/drain', { deadline_ms: 60_000 })).status, 202);
      // It ran already, or was told that it will not: nothing is left hanging.
      await until(async () => ['ended', 'error'].includes((await info(last)).state));
      await until(async () => (await health('one')).state === 'drained');
      t.like(await health('one'), { live: false, ready: false });
    },
  );
}
