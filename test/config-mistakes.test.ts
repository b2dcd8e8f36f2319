import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { ConfigError, loadConfig, type ConfigSources } from '../src/config.ts';

const folder = mkdtempSync(join(tmpdir(), 'taskchart-config-'));
test.after.always(() => rmSync(folder, { recursive: true }));

let files = 0;

function write(text: string): string {
  const path = join(folder, `${++files}.yaml`);
  writeFileSync(path, text);
  return path;
}

/** The message without the file's folder and name. */
function refusal(sources: ConfigSources): string {
  try {
    loadConfig(sources);
  } catch (thrown) {
    if (!(thrown instanceof ConfigError)) throw thrown;
    return sources.file === undefined ? thrown.message : thrown.message.replace(sources.file, 'FILE');
  }
  return 'accepted';
}

const poolWith = (settings: string) =>
  `pools:\n  - { id: a, engine: llamacpp, model: storyteller, ${settings} }`;

const mistakes: [title: string, text: string, message: string | RegExp][] = [
  ['broken YAML', 'server:\n  bind_addr: "127', /^FILE:2: .*quote/],
  ['a key twice', 'log: {}\nlog: {}', 'FILE:2: Map keys must be unique'],
  ['an alias to nowhere', 'log: *nowhere', /^FILE: .*nowhere/],
  ['a list', '- server', 'FILE: must be a map of settings'],
  ['an unknown key', 'sever: {}', 'FILE:1: sever: is not a known key; did you mean server?'],
  [
    'an unknown key inside',
    'server:\n  bind_addr: localhost:1\n  bind_adr: localhost:2',
    'FILE:3: server.bind_adr: is not a known key; did you mean bind_addr?',
  ],
  [
    'a key like no other',
    'sse: { zzz: 1 }',
    'FILE:1: sse.zzz: is not a known key; known here: heartbeat_ms, metrics_period_ms, cancel_on_disconnect, disconnect_grace_ms, narration_enabled, narration_period_ms, microbatch, microbatch_window_ms',
  ],
  [
    'a word for a number',
    'sse: { heartbeat_ms: often }',
    'FILE:1: sse.heartbeat_ms: must be an integer ≥ 0, got "often"',
  ],
  ['a section that is empty', 'sse:', 'FILE:1: sse: must be an object, got null'],
  ['a share above one', 'supervision: { jitter: 2 }', 'FILE:1: supervision.jitter: must be ≤ 1, got 2'],
  [
    'a longest wait below the first',
    'supervision: { max_ms: 10 }',
    'FILE:1: supervision.max_ms: must be at least supervision.initial_ms (1000), got 10',
  ],
  [
    'a pool that never fits',
    'memory: { host_bytes: 100 }\n' + poolWith('memory_bytes: 60, replicas: 2'),
    'FILE:3: pools[0].memory_bytes: must leave its 2 engines within the 100 bytes of memory.host_bytes, got 60 each',
  ],
  [
    'a device twice',
    'memory: { devices: [{ id: 0, bytes: 1 }, { id: 0, bytes: 2 }] }',
    'FILE:1: memory.devices[1].id: must be unique, got 0 twice',
  ],
  [
    'an unknown level',
    'log: { level: loud }',
    'FILE:1: log.level: must be one of fatal, error, warn, info, debug, trace, silent, got "loud"',
  ],
  [
    'a policy that does not exist',
    'admission: { policy: drop-old }',
    'FILE:1: admission.policy: must be one of reject, drop-lru, shed-low-priority, got "drop-old"',
  ],
  [
    'an address without a port',
    'server: { bind_addr: localhost }',
    'FILE:1: server.bind_addr: must be host:port such as 127.0.0.1:8080 or [::1]:8080, got "localhost"',
  ],
  [
    'an address that others can reach',
    'server: { bind_addr: "0.0.0.0:8080" }',
    'FILE:1: server.bind_addr: must be a loopback address (127.0.0.0/8, ::1 or localhost) as long as there is no token; set auth.token (TASKCHART_AUTH__TOKEN) to listen on "0.0.0.0:8080"',
  ],
  ['no pools', 'pools: []', 'FILE:1: pools: must not be empty'],
  [
    'a pool without an engine',
    'pools:\n  - id: a\n    model: storyteller',
    'FILE:2: pools[0].engine: is required (engine family: llamacpp, vllm, tgi, triton, openai or synthetic)',
  ],
  [
    'an engine that there is not',
    'pools:\n  - id: a\n    engine: mlx',
    'FILE:3: pools[0].engine: must be one of llamacpp, vllm, tgi, triton, openai, synthetic, got "mlx"',
  ],
  [
    'a pool without a name',
    'pools: [{ engine: synthetic }]',
    'FILE:1: pools[0].id: is required (name of the pool)',
  ],
  [
    'a name with a blank',
    'pools: [{ id: "a b", engine: synthetic }]',
    'FILE:1: pools[0].id: must be 1 to 64 letters, digits, dots, underscores or dashes, got "a b"',
  ],
  [
    'a name twice',
    'pools:\n  - { id: a, engine: synthetic }\n  - { id: a, engine: synthetic }',
    'FILE:3: pools[1].id: must be unique; "a" is already the id of pools[0]',
  ],
  [
    'a pool without a model',
    'pools: [{ id: a, engine: llamacpp }]',
    'FILE:1: pools[0].model: is required (the model: storyteller, the path of a GGUF file, or a reference to one that is fetched, such as hf:org/repo:QUANT)',
  ],
  [
    'a whole repository for an engine that takes one file',
    'pools: [{ id: a, engine: llamacpp, model: "hf:org/repo" }]',
    'FILE:1: pools[0].model: must be one GGUF of the repository: hf:org/repo/path/file.gguf or hf:org/repo:QUANT, such as hf:org/repo:Q4_K_M, got "hf:org/repo"',
  ],
  [
    'a model by a scheme that there is not',
    'pools: [{ id: a, engine: llamacpp, model: "ftp://host/m.gguf" }]',
    'FILE:1: pools[0].model: must be storyteller, file:/path/model.gguf or the path of a GGUF file, hf:org/repo/path/file.gguf, hf:org/repo:QUANT, https://host/file.gguf, s3://bucket/key, oci://registry/repo:tag, or a model of the catalog: its id, catalog:id or sha256: and 64 hex digits, got "ftp://host/m.gguf"',
  ],
  [
    'a model over plain HTTP',
    'pools: [{ id: a, engine: llamacpp, model: "http://example.org/m.gguf" }]',
    'FILE:1: pools[0].model: must be an https:// URL (http:// only goes with this machine itself), got "http://example.org/m.gguf"',
  ],
  [
    'a checksum of another kind',
    poolWith('checksum: "md5:00"'),
    'FILE:2: pools[0].checksum: must be sha256: and 64 hex digits in lower case, got "md5:00"',
  ],
  [
    'a checksum for a server that loads its model itself',
    poolWith(
      `checksum: "sha256:${'0'.repeat(64)}", provisioning: { mode: external, external: { url: "http://127.0.0.1:1" } }`,
    ),
    'FILE:2: pools[0].checksum: does not go with provisioning.mode external; such a server loads its model itself',
  ],
  [
    'an allow-list of addresses',
    'policy: { allowlist: ["https://huggingface.co"] }',
    'FILE:1: policy.allowlist[0]: must be a host such as huggingface.co, got "https://huggingface.co"',
  ],
  [
    'synthetic settings on another engine',
    poolWith('synthetic: {}'),
    'FILE:2: pools[0].synthetic: does not go with the rest (how the synthetic engine behaves; only for pools with engine synthetic)',
  ],
  [
    'a failure that is none',
    'pools: [{ id: a, engine: synthetic, synthetic: { fail: often } }]',
    'FILE:1: pools[0].synthetic.fail: must be never, load or { at_token: N }, got "often"',
  ],
  ['no slots', poolWith('slots: 0'), 'FILE:2: pools[0].slots: must be an integer from 1 to 1024, got 0'],
  [
    'a typo in a pool',
    poolWith('thread: 2'),
    'FILE:2: pools[0].thread: is not a known key; did you mean threads?',
  ],
  [
    'an external server without an address',
    poolWith('provisioning: { mode: external }'),
    'FILE:2: pools[0].provisioning.external.url: is required with provisioning.mode external (base URL of the llama-server)',
  ],
  [
    'an external server whose address is none',
    poolWith('provisioning: { mode: external, external: { url: "localhost:8000" } }'),
    'FILE:2: pools[0].provisioning.external.url: must be an http or https URL, got "localhost:8000"',
  ],
  [
    'an external server for an embedded engine',
    poolWith('provisioning: { external: { url: "http://localhost:8000" } }'),
    'FILE:2: pools[0].provisioning.external: only goes with provisioning.mode external',
  ],
  [
    'threads for an external server',
    poolWith('threads: 4, provisioning: { mode: external, external: { url: "http://localhost:8000" } }'),
    'FILE:2: pools[0].threads: does not go with provisioning.mode external; such a server has its own',
  ],
];

for (const [title, text, message] of mistakes) {
  test(`a file is refused and the mistake named: ${title}`, (t) => {
    const said = refusal({ file: write(text) });
    if (typeof message === 'string') t.is(said, message);
    else t.regex(said, message);
    t.notRegex(said, /[\r\n]/);
  });
}

test('a file that is not there is named', (t) => {
  t.is(refusal({ file: join(folder, 'none.yaml') }), 'FILE: there is no such file');
  t.regex(refusal({ file: folder }), /^FILE: it cannot be read \(EISDIR\)$/);
});

const variables: [name: string, value: string, message: string][] = [
  [
    'TASKCHART_SSE__HEARTBEAT_MS',
    'often',
    'TASKCHART_SSE__HEARTBEAT_MS: sse.heartbeat_ms: must be an integer ≥ 0, got "often"',
  ],
  [
    'TASKCHART_SERVER__BIND_ADR',
    'x',
    'TASKCHART_SERVER__BIND_ADR: there is no such setting; did you mean TASKCHART_SERVER__BIND_ADDR?',
  ],
  [
    'TASKCHART_SERVER_BIND_ADDR',
    'x',
    'TASKCHART_SERVER_BIND_ADDR: there is no such setting; did you mean TASKCHART_SERVER__BIND_ADDR?',
  ],
  [
    'TASKCHART_POOLS__0__ID',
    'x',
    'TASKCHART_POOLS__0__ID: pools is a list; set it in the configuration file',
  ],
];

for (const [name, value, message] of variables) {
  test(`a variable is refused and the mistake named: ${name}=${value}`, (t) => {
    t.is(refusal({ env: { [name]: value } }), message);
  });
}

test('a mistake of the caller is called one', (t) => {
  const file = write('sse: { heartbeat_ms: 1 }');
  const overrides = { sse: { heartbeat_ms: -1 } };
  t.is(refusal({ file, overrides }), 'options: sse.heartbeat_ms: must be an integer ≥ 0, got -1');
});
