import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import test from 'ava';
import { readHub } from '../src/config/hub.ts';
import { loadConfig, parseBindAddr, type ConfigInput } from '../src/config.ts';

const folder = mkdtempSync(join(tmpdir(), 'taskchart-config-'));
test.after.always(() => rmSync(folder, { recursive: true }));

let files = 0;

function write(text: string, extension = 'yaml'): string {
  const path = join(folder, `${++files}.${extension}`);
  writeFileSync(path, text);
  return path;
}

/** What only the configuration may allow. */
const NOTHING_ALLOWED = { allow_binary_downloads: false, allow_package_installs: false };

test('without any source there is one pool with the bundled model', (t) => {
  const config = loadConfig();
  t.like(config, {
    server: { bind_addr: '127.0.0.1:8080', body_limit_bytes: 10 * 1024 * 1024, shutdown_ms: 10_000 },
    sse: { heartbeat_ms: 15_000, metrics_period_ms: 1000 },
    retention: { max_tasks: 10_000 },
    runtime: { dir: resolve('.runtime') },
    log: { level: 'info', format: 'auto' },
    supervision: { initial_ms: 1000, max_ms: 60_000, factor: 2, max_restarts: 10, stable_s: 300 },
  });
  t.deepEqual(config.pools, [
    {
      id: 'storyteller',
      engine: 'llamacpp',
      model: 'storyteller',
      slots: 1,
      threads: 1,
      replicas: 1,
      devices: [],
      tensor_split: [],
      pinned: false,
      preload: true,
      queue: { capacity: 256, full_policy: 'reject' },
      admission: { priorities: [] },
      timeouts: { first_token_ms: 120_000, idle_ms: 30_000 },
      sampler_profile_version: 'v1',
      provisioning: { mode: 'embedded', ports: [8080], flags: [], ...NOTHING_ALLOWED },
    },
  ]);
});

test('the configuration is frozen and its sources are left alone', (t) => {
  const overrides: ConfigInput = { pools: [{ id: 'a', engine: 'synthetic' }] };
  const config = loadConfig({ overrides });
  t.deepEqual(overrides, { pools: [{ id: 'a', engine: 'synthetic' }] });
  t.true(Object.isFrozen(config) && Object.isFrozen(config.pools[0]?.queue));
});

test('a file may be YAML or JSON, and empty', (t) => {
  t.is(loadConfig({ file: write('sse: { heartbeat_ms: 0 }') }).sse.heartbeat_ms, 0);
  t.is(
    loadConfig({ file: write('{\n\t"sse": {\n\t\t"heartbeat_ms": 5\n\t}\n}', 'json') }).sse.heartbeat_ms,
    5,
  );
  t.is(loadConfig({ file: write('# nothing yet\n') }).pools[0]?.id, 'storyteller');
});

test('the environment wins over the file, and the caller over both', (t) => {
  const file = write('sse: { heartbeat_ms: 1, metrics_period_ms: 10 }\nlog: { level: warn }');
  const env = {
    TASKCHART_SSE__HEARTBEAT_MS: '2',
    TASKCHART_SUPERVISION__JITTER: '0.5',
    TASKCHART_LOG__LEVEL: 'debug',
    TASKCHART_LOG__FORMAT: '',
    TASKCHART_PORT_8080_TCP: 'tcp://10.0.0.1:8080',
    PATH: '/bin',
  };
  const config = loadConfig({ file, env, overrides: { log: { level: 'error' } } });
  t.like(config.sse, { heartbeat_ms: 2, metrics_period_ms: 10 });
  t.is(config.supervision.jitter, 0.5);
  t.deepEqual(config.log, { level: 'error', format: 'auto' });
});

test('a pool without a queue of its own has the one of admission', (t) => {
  const { pools } = loadConfig({
    overrides: {
      admission: { capacity: 3 },
      pools: [
        { id: 'a', engine: 'synthetic' },
        { id: 'b', engine: 'synthetic', queue: { capacity: 7 } },
      ],
    },
  });
  t.deepEqual(
    pools.map(({ queue }) => queue.capacity),
    [3, 7],
  );
});

test('relative paths belong to the place where they are written', (t) => {
  const models = [
    'tiny.gguf',
    './sub/tiny.gguf',
    'file:tiny.gguf',
    'file:///models/tiny.gguf',
    '/models/t.gguf',
  ];
  const pools = models.map((model, index) => `  - { id: p${index}, engine: llamacpp, model: "${model}" }`);
  const text = ['runtime: { dir: run }', 'pools:', ...pools].join('\n');
  const config = loadConfig({ file: write(text) });
  t.is(config.runtime.dir, join(folder, 'run'));
  t.deepEqual(
    config.pools.map(({ model }) => model),
    [
      `file:${join(folder, 'tiny.gguf')}`,
      `file:${join(folder, 'sub/tiny.gguf')}`,
      `file:${join(folder, 'tiny.gguf')}`,
      'file:/models/tiny.gguf',
      'file:/models/t.gguf',
    ],
  );
  const fromHere = loadConfig({ file: write('log: {}'), env: { TASKCHART_RUNTIME__DIR: 'run' } });
  t.is(fromHere.runtime.dir, resolve('run'));
});

test('the folder of fetched models is below home, or relative to the place where it is written', (t) => {
  t.is(loadConfig().models.cache_dir, join(homedir(), '.cache/models'));
  t.is(loadConfig({ file: write('models: { cache_dir: cache }') }).models.cache_dir, join(folder, 'cache'));
  t.is(loadConfig({ env: { TASKCHART_MODELS__CACHE_DIR: 'cache' } }).models.cache_dir, resolve('cache'));
  t.is(loadConfig({ overrides: { models: { cache_dir: '~/m' } } }).models.cache_dir, join(homedir(), 'm'));
  t.deepEqual(loadConfig().policy, { offline: false, auto_fetch: true, allowlist: [] });
});

test('references of models that are fetched stay as they are written', (t) => {
  const models = [
    'hf:org/repo/sub/tiny.gguf@refs/pr/1',
    'hf:org/repo:Q4_K_M',
    'https://host/a.gguf',
    's3://bucket/a/b.gguf',
    'oci://ghcr.io/org/repo:v1',
  ];
  const { pools } = loadConfig({
    overrides: { pools: models.map((model, index) => ({ id: `p${index}`, engine: 'llamacpp', model })) },
  });
  t.deepEqual(
    pools.map(({ model }) => model),
    models,
  );
});

test('the hub is told as its own tools are told', (t) => {
  t.deepEqual(readHub({ HF_TOKEN: ' hf_x\n', HF_ENDPOINT: 'http://127.0.0.1:1' }), {
    endpoint: 'http://127.0.0.1:1',
    token: 'hf_x',
  });
  t.deepEqual(readHub({ HF_TOKEN: '', HF_ENDPOINT: '' }), {});
  t.throws(() => readHub({ HF_ENDPOINT: 'http://mirror.example' }), {
    message: 'HF_ENDPOINT: must be an https URL such as https://huggingface.co, got "http://mirror.example"',
  });
});

test('a synthetic pool has its behaviour filled in, and its model is only a name', (t) => {
  const [pool] = loadConfig({
    overrides: {
      pools: [{ id: 's', engine: 'synthetic', model: 'a/b:c', synthetic: { fail: { at_token: 3 } } }],
    },
  }).pools;
  t.is(pool?.model, 'a/b:c');
  t.deepEqual(pool?.engine === 'synthetic' ? pool.synthetic : undefined, {
    load_ms: 0,
    first_token_ms: 0,
    tokens_per_second: 0,
    memory_bytes: 0,
    fail: { at_token: 3 },
  });
});

test('an external pool keeps the address of its server', (t) => {
  const [pool] = loadConfig({
    file: write(
      'pools:\n  - { id: e, engine: llamacpp, model: m.gguf, provisioning: { mode: external, external: { url: "http://127.0.0.1:8000" } } }',
    ),
  }).pools;
  t.deepEqual(pool?.engine === 'llamacpp' ? pool.provisioning : undefined, {
    mode: 'external',
    external: { url: 'http://127.0.0.1:8000' },
    ports: [8080],
    flags: [],
    ...NOTHING_ALLOWED,
  });
});

test('an address is a host and a port, and tells whether others can reach it', (t) => {
  t.deepEqual(parseBindAddr('127.0.0.1:8080'), { host: '127.0.0.1', port: 8080, loopback: true });
  t.deepEqual(parseBindAddr('[::1]:0'), { host: '::1', port: 0, loopback: true });
  t.deepEqual(parseBindAddr('localhost:65535'), { host: 'localhost', port: 65_535, loopback: true });
  t.deepEqual(parseBindAddr('127.1.2.3:1'), { host: '127.1.2.3', port: 1, loopback: true });
  t.deepEqual(parseBindAddr('[::]:80'), { host: '::', port: 80, loopback: false });
  t.deepEqual(parseBindAddr('127.example.org:80'), { host: '127.example.org', port: 80, loopback: false });
  for (const text of [
    '',
    '8080',
    ':8080',
    'localhost:',
    '::1:80',
    '[::1]',
    '[127.0.0.1]:80',
    '1.2.3:80',
    'a:65536',
  ]) {
    t.is(parseBindAddr(text), undefined, text);
  }
});

test('yes and no may be written in a file as in a variable, in lists too', (t) => {
  const yes = ['true', '1', '"true"', '"TRUE"', '"1"'];
  const no = ['false', '0', '"False"'];
  for (const [texts, expected] of [
    [yes, true],
    [no, false],
  ] as const)
    for (const text of texts) {
      const file = write(
        `sse: { microbatch: ${text} }\npools: [{ id: a, engine: synthetic, model: m, preload: ${text} }]`,
      );
      const { sse, pools } = loadConfig({ file });
      t.is(sse.microbatch, expected, text);
      t.is(pools[0]?.preload, expected, text);
    }
  const error = t.throws(() => loadConfig({ file: write('sse: { microbatch: 2 }') }));
  t.regex(error?.message ?? '', /sse\.microbatch: .*got 2/);
});
