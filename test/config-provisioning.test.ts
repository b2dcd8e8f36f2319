import { homedir } from 'node:os';
import { resolve } from 'node:path';
import { inspect } from 'node:util';
import test from 'ava';
import { loadConfig, type ConfigInput, type PoolConfig } from '../src/config.ts';
import { programEnvironment } from '../src/config/program-environment.ts';

type LlamacppInput = Extract<NonNullable<ConfigInput['pools']>[number], { engine: 'llamacpp' }>;

function load(pool: object, env = {}): PoolConfig | undefined {
  const complete = { id: 'a', engine: 'llamacpp', model: '/m.gguf', ...pool } as LlamacppInput;
  return loadConfig({ overrides: { pools: [complete] }, env }).pools[0];
}

function provisioningOf(pool: object, env = {}) {
  const loaded = load(pool, env);
  if (loaded?.engine !== 'llamacpp') throw new Error('not a llamacpp pool');
  return loaded.provisioning;
}

function refusal(pool: object, env = {}): string {
  try {
    load(pool, env);
  } catch (thrown) {
    return (thrown as Error).message.replace('options: pools[0].', '');
  }
  return 'accepted';
}

test('source mode needs nothing more: the llama.cpp of this package, in the common folder', (t) => {
  t.like(provisioningOf({ provisioning: { mode: 'source' } }), {
    mode: 'source',
    ports: [8080],
    flags: [],
    source: {
      submodules: false,
      build: { cmake_flags: [], cache_dir: resolve(homedir(), '.cache/taskchart/engines') },
    },
  });
});

test('a build has its own folder where it says so, and a program is found from where it was written', (t) => {
  const source = { repo: 'https://git.example/x', ref: 'b1', build: { cache_dir: 'engines' } };
  const { source: built } = provisioningOf({ provisioning: { mode: 'source', source } });
  t.is(built?.build.cache_dir, resolve('engines'));
  const { binary } = provisioningOf({
    provisioning: { mode: 'binary', binary: { path: 'bin/llama-server' } },
  });
  t.is(binary?.path, resolve('bin/llama-server'));
});

test('variables for an engine may come from the environment, and are shown to nobody', (t) => {
  const pool = { provisioning: { mode: 'binary', env: { A: 'plain-secret', B: '${FROM}' } } };
  const provisioning = provisioningOf(pool, { FROM: 'other-secret' });
  t.deepEqual({ ...provisioning.env }, { A: 'plain-secret', B: 'other-secret' });
  t.notRegex(inspect(provisioning, { depth: null }) + JSON.stringify(provisioning), /secret/);
  t.is(refusal(pool), 'provisioning.env.B: the environment variable FROM is not set');
});

test('programs get the environment without what is ours and what is secret', (t) => {
  const env = {
    PATH: '/bin',
    TASKCHART_LOG__LEVEL: 'info',
    HF_TOKEN: 'x',
    AWS_SECRET_ACCESS_KEY: 'y',
    CUDA_HOME: '/c',
  };
  t.deepEqual(programEnvironment(env), { PATH: '/bin', CUDA_HOME: '/c' });
});

const external = { url: 'http://127.0.0.1:8000' };
const container = { image: 'ghcr.io/ggml-org/llama.cpp' };
const mistakes: [title: string, pool: object, message: string | RegExp][] = [
  [
    'an unknown key',
    { provisioning: { mode: 'source', sources: {} } },
    /^provisioning\.sources: .*did you mean/,
  ],
  [
    'a part of another mode',
    { provisioning: { mode: 'binary', source: {} } },
    'provisioning.source: only goes with provisioning.mode source',
  ],
  [
    'a part without its mode',
    { provisioning: { external } },
    'provisioning.external: only goes with provisioning.mode external',
  ],
  [
    'a download without a checksum',
    { provisioning: { mode: 'binary', binary: { url: 'https://get.example/llama.tar.gz' } } },
    'provisioning.binary.checksum: is required with binary.url (sha256: and 64 hex digits): what is downloaded is run',
  ],
  [
    'a checksum of nothing',
    { provisioning: { mode: 'binary', binary: { checksum: `sha256:${'0'.repeat(64)}` } } },
    'provisioning.binary.checksum: only goes with binary.url',
  ],
  [
    'two programs',
    { provisioning: { mode: 'binary', binary: { path: '/bin/x', url: 'https://get.example/x' } } },
    'provisioning.binary.url: does not go with binary.path, which is a program that is here already',
  ],
  [
    'a download that anybody on the way could change',
    { provisioning: { mode: 'binary', binary: { url: 'http://get.example/x' } } },
    'provisioning.binary.url: must be an https URL, got "http://get.example/x"',
  ],
  [
    'no package',
    { provisioning: { mode: 'package' } },
    'provisioning.package.name: is required with provisioning.mode package (name of the package that has llama-server)',
  ],
  [
    'a package that is an option',
    { provisioning: { mode: 'package', package: { name: '-Syu' } } },
    'provisioning.package.name: must be the name of a package, got "-Syu"',
  ],
  [
    'leave for what does not happen',
    { provisioning: { mode: 'source', allow_package_installs: true } },
    'provisioning.allow_package_installs: only goes with provisioning.mode package',
  ],
  [
    'no image',
    { provisioning: { mode: 'container' } },
    'provisioning.container.image: is required with provisioning.mode container (name of the image)',
  ],
  [
    'an image with its tag',
    { provisioning: { mode: 'container', container: { image: 'ghcr.io/ggml-org/llama.cpp:server' } } },
    /^provisioning\.container\.image: must be the name of an image without tag and digest/,
  ],
  [
    'a digest that is none',
    { provisioning: { mode: 'container', container: { ...container, digest: 'sha256:1' } } },
    /^provisioning\.container\.digest: must be sha256: and 64 hex digits/,
  ],
  [
    'a repository without a version',
    { provisioning: { mode: 'source', source: { repo: 'https://git.example/x' } } },
    'provisioning.source.ref: is required with source.repo (a commit, a tag or a branch)',
  ],
  [
    'a version of nothing',
    { provisioning: { mode: 'source', source: { ref: 'b1' } } },
    /^provisioning\.source\.ref: only goes with source\.repo/,
  ],
  [
    'a repository with a password',
    { provisioning: { mode: 'source', source: { repo: 'https://me:pw@git.example/x', ref: 'b1' } } },
    'provisioning.source.repo: must be without a user and a password; git has places of its own for them',
  ],
  [
    'a cmake flag that is none',
    { provisioning: { mode: 'source', source: { build: { cmake_flags: ['GGML_CUDA'] } } } },
    'provisioning.source.build.cmake_flags[0]: must be -DNAME=VALUE, got "GGML_CUDA"',
  ],
  [
    'flags of an engine in this process',
    { provisioning: { flags: ['-ngl', '1'] } },
    'provisioning.flags: only goes with provisioning.mode binary, source, package or container, whose server is started here',
  ],
  [
    'devices of somebody else’s server',
    { devices: [0], provisioning: { mode: 'external', external } },
    'devices: only goes with provisioning.mode binary, source, package or container, whose server is started here',
  ],
  [
    'a port that is none',
    { provisioning: { mode: 'binary', ports: [0] } },
    'provisioning.ports[0]: must be an integer from 1 to 65535, got 0',
  ],
  [
    'a flag that another key says, in any spelling',
    { provisioning: { mode: 'binary', flags: ['--flash-attn', 'on', '-np', '4'] } },
    'provisioning.flags[2]: must not be --parallel: slots says that',
  ],
  [
    'two contexts',
    { ctx: 512, provisioning: { mode: 'binary', flags: ['-c', '4'] } },
    'provisioning.flags[0]: must not be --ctx-size: ctx says that',
  ],
  [
    'a word before every flag',
    { provisioning: { mode: 'binary', flags: ['on'] } },
    'provisioning.flags[0]: must be a flag such as --n-gpu-layers, got "on"',
  ],
  [
    'a container for an API',
    { engine: 'openai', provisioning: { mode: 'container', container } },
    'provisioning.mode: must be external for an openai pool',
  ],
  [
    'a container with a name for a model',
    { engine: 'vllm', model: 'https://host/x.gguf', provisioning: { mode: 'container', container } },
    /^model: must be hf:org\/repo or file: and a folder/,
  ],
];
for (const [title, pool, message] of mistakes)
  test(`a way to an engine is refused and the mistake named: ${title}`, (t) => {
    const said = refusal(pool);
    if (typeof message === 'string') t.is(said, message);
    else t.regex(said, message);
  });

test('a model is split over several devices only in the shares that were said, one for each', (t) => {
  const started = { provisioning: { mode: 'source' } };
  t.is(
    refusal({ ...started, devices: [0, 1] }),
    'tensor_split: is required with several devices: the share of the model on each of the 2, such as [1, 1]',
  );
  t.is(refusal({ ...started, devices: [0, 1], tensor_split: [2, 1] }), 'accepted');
  t.is(refusal({ ...started, devices: [0, 1], tensor_split: [0, 1] }), 'accepted');
  t.is(
    refusal({ ...started, devices: [0, 1], tensor_split: [2, 1, 1] }),
    'tensor_split: must have one share for each of the 2 devices, got 3',
  );
  t.is(
    refusal({ ...started, devices: [0, 1], tensor_split: [0, 0] }),
    'tensor_split: must have a share above 0',
  );
  t.is(
    refusal({ ...started, devices: [0], tensor_split: [1] }),
    'tensor_split: only goes with several devices',
  );
  t.is(
    refusal({ ...started, devices: [0, 1], tensor_split: [1, -1] }),
    'tensor_split[1]: must be a number from 0 to 1000000, got -1',
  );
  t.regex(refusal({ tensor_split: [1] }), /^tensor_split: only goes with provisioning.mode binary/);
  t.is(
    refusal({ provisioning: { mode: 'source', flags: ['-ts', '1,1'] } }),
    'provisioning.flags[0]: must not be --tensor-split: tensor_split says that',
  );
});
