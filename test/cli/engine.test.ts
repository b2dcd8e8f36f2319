import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { taskchart } from '../helpers/cli.ts';
import { fakeTools } from '../helpers/fake-tools.ts';

function workshop() {
  const tools = fakeTools();
  tools.add('git', 'case "$1" in clone) for last; do :; done; mkdir "$last";; -C) echo c0ffee;; esac');
  tools.add(
    'cmake',
    `case "$*" in
      *--build*)
        echo '[ 40%] Building'; mkdir -p build/bin
        printf '#!/bin/sh\\necho "version: 7 (fake)" >&2\\n' > build/bin/llama-server; chmod +x build/bin/llama-server;;
      *) mkdir -p build;;
    esac`,
  );
  tools.add('c++');
  tools.add('make');
  const cache = mkdtempSync(join(tmpdir(), 'taskchart-cache-'));
  return { tools, env: { ...tools.env, TASKCHART_ENGINES__CACHE_DIR: cache } };
}

function configFile(text: string): string {
  const file = join(mkdtempSync(join(tmpdir(), 'taskchart-')), 'config.yaml');
  writeFileSync(file, text);
  return file;
}

test('an engine is built with one line a step, listed, and removed', async (t) => {
  const { tools, env } = workshop();
  const build = taskchart(['engine', 'build'], env);
  t.is(await build.exit, 0, build.stderr());
  t.regex(
    build.stdout(),
    /^llama-server: \/\S+\/llamacpp\/[0-9a-f]{16}\/bin\/llama-server \(7 \(fake\)\)\n$/,
  );
  t.is(
    build.stderr(),
    ['cloning', 'configuring', 'building', 'prepared'].map((phase) => `llama-server: ${phase}\n`).join(''),
  );
  const list = taskchart(['engine', 'list'], env);
  t.is(await list.exit, 0);
  const [, id = ''] = /^([0-9a-f]{16}) {2}llamacpp {2}7 \(fake\) /.exec(list.stdout()) ?? [];
  t.regex(id, /./);
  const again = taskchart(['engine', 'build'], env);
  t.is(await again.exit, 0);
  t.is(tools.calls().filter((call) => call.includes('--build')).length, 1);
  const remove = taskchart(['engine', 'remove', id], env);
  t.is(await remove.exit, 0);
  t.is(remove.stdout(), `${id} is removed (llamacpp 7 (fake))\n`);
  const gone = taskchart(['engine', 'remove', id], env);
  t.is(await gone.exit, 1);
  t.regex(gone.stderr(), /there is no engine [0-9a-f]{16}; taskchart engine list/);
});

test('a dry run prints the steps and their commands, and does none of them', async (t) => {
  const { tools, env } = workshop();
  const dry = taskchart(['engine', 'build', '--dry-run'], env);
  t.is(await dry.exit, 0);
  t.regex(
    dry.stdout(),
    /^llama-server:\n {2}preflight-tools .*\n {2}git-clone .*\n +\$ git clone --quiet -- \S+ src\n/,
  );
  t.regex(dry.stdout(), /\$ cmake --build build --target llama-server --parallel \d+\n$/);
  t.deepEqual(tools.calls(), []);
});

test('a machine that cannot build says why, with exit code 1', async (t) => {
  const { env } = workshop();
  const build = taskchart(['engine', 'build'], { ...env, PATH: '/nowhere' });
  t.is(await build.exit, 1);
  t.regex(build.stderr(), /POOL_UNAVAILABLE: llama\.cpp cannot be built on this machine: git, cmake, /);
});

test('the daemon prints what every pool would need, down to the command that starts its engine', async (t) => {
  const { tools, env } = workshop();
  tools.add('docker');
  const config = configFile(`
pools:
  - { id: built, engine: llamacpp, model: storyteller, slots: 2, ctx: 128, provisioning: { mode: source, ports: [9000], flags: [-ngl, '3'] } }
  - { id: split, engine: llamacpp, model: storyteller, ctx: 128, devices: [1, 0], tensor_split: [3, 1], provisioning: { mode: binary, binary: { path: ./llama-server } } }
  - { id: boxed, engine: vllm, model: 'hf:org/repo', devices: [0], provisioning: { mode: container, container: { image: vllm/vllm-openai, tag: v1 } } }
  - { id: away, engine: llamacpp, model: m, provisioning: { mode: external, external: { url: 'http://127.0.0.1:8000' } } }
  - { id: here, engine: llamacpp, model: storyteller }`);
  const dry = taskchart(['serve', '--dry-run', '--config', config], env);
  t.is(await dry.exit, 0, dry.stderr());
  const plan = dry.stdout();
  t.regex(
    plan,
    /pool built:\n(.*\n)+ {2}run +Start the engine of pool built\.\n +\$ \/\S+\/bin\/llama-server --model \S+storyteller\.gguf --host 127\.0\.0\.1 --port 9000 --parallel 2 --ctx-size 256 --threads 1 --no-webui --metrics --n-gpu-layers 3\n/,
  );
  t.regex(plan, /llama-server --model .* --tensor-split 3,1\n/);
  t.regex(plan, /\$ docker pull vllm\/vllm-openai:v1\n {2}model-fetch +Fetch the model hf:org\/repo\.\n/);
  t.regex(plan, /\$ docker run --rm .* --gpus '"device=0"' vllm\/vllm-openai:v1 --model \/model/);
  t.regex(plan, /pool away:\n {2}run +Attach pool away to http:\/\/127\.0\.0\.1:8000\.\n/);
  t.regex(
    plan,
    /pool here:\n {2}model-fetch .*\n {2}run +Load the model of pool here in a child process\.\n$/,
  );
  t.deepEqual(tools.calls(), []);
});
