import { existsSync, mkdtempSync, readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import type { Observation } from '../../src/actors/observation.ts';
import { createOrchestrator, TaskchartError, type OrchestratorOptions } from '../../src/index.ts';
import { fakeLlamaBinary } from '../helpers/fake-llama-program.ts';
import { fakeTools } from '../helpers/fake-tools.ts';
import { request, startTestServer } from '../helpers/server.ts';
import { until } from '../helpers/until.ts';

const FAKE = fakeLlamaBinary();
const newFolder = (): string => mkdtempSync(join(tmpdir(), 'taskchart-pool-'));

/** Builds what it is asked to build out of the fake server, once a file is there. */
function workshop(gate?: string) {
  const tools = fakeTools();
  tools.add('git', 'case "$1" in clone) for last; do :; done; mkdir "$last";; -C) echo c0ffee;; esac');
  tools.add(
    'cmake',
    `case "$*" in
      *--build*)
        echo '[ 40%] Building'
        ${gate === undefined ? '' : `while [ ! -e '${gate}' ]; do sleep 0.05; done`}
        mkdir -p build/bin; cp '${FAKE}' build/bin/llama-server;;
      *) mkdir -p build;;
    esac`,
  );
  tools.add('c++');
  tools.add('make');
  return tools;
}

function settings(provisioning: object, folder = newFolder()) {
  return {
    runtime: { dir: folder },
    engines: { cache_dir: join(folder, 'cache') },
    pools: [
      { id: 'p', engine: 'llamacpp', model: 'storyteller', slots: 2, ctx: 512, provisioning },
    ] as NonNullable<OrchestratorOptions['pools']>,
  };
}

test('a pool starts the llama-server it is given, serves, and leaves only its log behind', async (t) => {
  const folder = newFolder();
  const orchestrator = createOrchestrator(
    settings({ mode: 'binary', binary: { path: FAKE }, env: { FAKE_LLAMA: '{}' } }, folder),
  );
  const task = await orchestrator.submit({ prompt: 'Once upon a time', max_tokens: 5 });
  for await (const event of task.events()) t.not(event.type, 'error');
  t.is((await task.info()).usage.tokens_out, 5);
  t.deepEqual(readdirSync(join(folder, 'engines')).toSorted(), ['p-r0.json', 'p-r0.log', 'p-r0.pid']);
  t.like(orchestrator.pools()[0], { engine_version: 'llama.cpp-b1-fake' });
  await orchestrator.close();
  t.deepEqual(readdirSync(join(folder, 'engines')), ['p-r0.log']);
});

test('an engine is built before its model is loaded; who waits for it sees how far it is', async (t) => {
  const gate = join(newFolder(), 'gate');
  const tools = workshop(gate);
  const { url, orchestrator, close } = await startTestServer(settings({ mode: 'source' }), {
    program_env: tools.env,
  });
  t.teardown(close);
  const seen: Observation[] = [];
  orchestrator.observe((what) => seen.push(what));
  const body = { ...request, engine: 'llamacpp', model_ref: 'storyteller', ctx: 512, task_id: undefined };
  const answer = await fetch(`${url}/v1/tasks`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  t.is(answer.status, 202);
  const { task_id } = (await answer.json()) as { task_id: string };
  const stream = fetch(`${url}/v1/tasks/${task_id}/stream?verbose=true`).then((got) => got.text());
  await until(() => seen.some((what) => what.type === 'engine.progress' && what.fraction === 0.4));
  await until(() => orchestrator.core.record(task_id)?.state === 'provisioning');
  writeFileSync(gate, '');
  const said = await stream;
  t.regex(said, /event: end\n/);
  const steps = Array.from(
    said.matchAll(/^data: (.*"prep":.*)$/gm),
    ([, data = '']) => (JSON.parse(data) as { prep: object }).prep,
  );
  t.true(
    steps.some((prep) => JSON.stringify(prep).includes('"engine":{"status":"running","phase":"building"')),
    JSON.stringify(steps),
  );
  const phases = seen.flatMap((what) => (what.type === 'engine.progress' ? [what.phase] : []));
  t.is(phases.at(-1), 'prepared');
  t.is(tools.calls().filter((call) => call.includes('--build')).length, 1);
});

test('a pool whose engine cannot be had says what is missing, and takes no task', async (t) => {
  const orchestrator = createOrchestrator({
    ...settings({ mode: 'source' }),
    program_env: fakeTools().env,
  });
  t.teardown(() => orchestrator.close(0));
  await until(() => orchestrator.pools()[0]?.last_error);
  t.regex(JSON.stringify(orchestrator.pools()[0]?.last_error), /git, cmake, .* are missing on PATH/);
  await t.throwsAsync(orchestrator.submit({ prompt: 'x', ctx: 64, max_tokens: 4 }), {
    instanceOf: TaskchartError,
    message: /missing on PATH/,
  });
});

test('a build that is under way when everything is closed is given up', async (t) => {
  const folder = newFolder();
  const tools = workshop(join(folder, 'never'));
  const orchestrator = createOrchestrator({
    ...settings({ mode: 'source' }, folder),
    program_env: tools.env,
  });
  await until(() => tools.calls().some((call) => call.includes('--build')));
  await orchestrator.close(0);
  t.false(existsSync(join(folder, 'cache', 'index.json')));
});
