import { inspect } from 'node:util';
import test from 'ava';
import { loadConfig, type ConfigInput, type PoolConfig } from '../src/config.ts';

type RemoteInput = Extract<NonNullable<ConfigInput['pools']>[number], { engine: 'vllm' | 'openai' }>;

function pools(pool: object): ConfigInput {
  const external = { url: 'http://127.0.0.1:8000' };
  const complete = { id: 'a', engine: 'vllm', model: 'm', provisioning: { external }, ...pool };
  return { pools: [complete as RemoteInput] };
}

function keyOf(pool: PoolConfig | undefined): string | undefined {
  return pool?.engine === 'synthetic' ? undefined : pool?.provisioning.external?.api_key;
}

function refusal(pool: object, env = {}): string {
  try {
    loadConfig({ overrides: pools(pool), env });
  } catch (thrown) {
    return (thrown as Error).message;
  }
  return 'accepted';
}

const withExternal = (external: object) => ({ provisioning: { mode: 'external', external } });
const url = 'https://engine.example/v1';

for (const engine of ['vllm', 'tgi', 'triton', 'openai'] as const) {
  test(`a pool of ${engine} is configured with an address and a few words`, (t) => {
    const [pool] = loadConfig({
      overrides: pools({ engine, ctx: 2048, ...withExternal({ url, model: 'org/m' }) }),
    }).pools;
    t.like(pool, { engine, model: 'm', ctx: 2048, slots: 8, preload: true });
    t.deepEqual(pool?.engine === 'synthetic' ? undefined : pool?.provisioning, {
      mode: 'external',
      external: { url, model: 'org/m' },
      ports: [8080],
      flags: [],
    });
  });
}

test('a key may stand in the file, or in an environment variable that the file names', (t) => {
  const env = { ENGINE_KEY: ' sk-secret\n' };
  const [given] = loadConfig({ overrides: pools(withExternal({ url, api_key: 'sk-secret' })) }).pools;
  const [named] = loadConfig({
    overrides: pools(withExternal({ url, api_key: '${ENGINE_KEY}' })),
    env,
  }).pools;
  t.is(keyOf(given), 'sk-secret');
  t.is(keyOf(named), 'sk-secret');
  const llama = { engine: 'llamacpp', ...withExternal({ url, api_key: '${ENGINE_KEY}' }) };
  t.is(keyOf(loadConfig({ overrides: pools(llama), env }).pools[0]), 'sk-secret');
});

test('a key is not shown by whoever prints the configuration, or a mistake in it', (t) => {
  const config = loadConfig({ overrides: pools(withExternal({ url, api_key: 'sk-secret' })) });
  t.false(JSON.stringify(config).includes('sk-secret'));
  t.false(inspect(config, { depth: null }).includes('sk-secret'));
  t.true(Object.isFrozen(config.pools[0]?.engine === 'vllm' && config.pools[0].provisioning.external));
  const said = [
    refusal(withExternal({ url, api_key: 'sk secret' })),
    refusal(withExternal({ url, api_key: ['sk-secret'] })),
    refusal(withExternal({ url: 'https://me:sk-secret@engine.example', api_key: 'x' })),
    refusal(withExternal({ url, api_key: '${KEY}' }), { KEY: 'sk secret' }),
  ];
  for (const message of said) t.notRegex(message, /secret/u);
});

const mistakes: [title: string, pool: object, message: string][] = [
  [
    'no server',
    { provisioning: {} },
    'options: pools[0].provisioning.external: is required (the server for mode external)',
  ],
  [
    'a mode that this engine does not have',
    { provisioning: { mode: 'source', external: { url } } },
    'options: pools[0].provisioning.mode: must be embedded, binary, source, package, container, external or announced for llamacpp, external, announced or container for vllm, tgi and triton, external or announced for openai, got "source"',
  ],
  [
    'an address that is none',
    withExternal({ url: 'engine.example' }),
    'options: pools[0].provisioning.external.url: must be an http or https URL, got "engine.example"',
  ],
  [
    'an address with a password',
    withExternal({ url: 'https://me:pw@engine.example' }),
    'options: pools[0].provisioning.external.url: must be without a user and a password; a key goes into api_key',
  ],
  [
    'an address with a query',
    withExternal({ url: 'https://engine.example/?key=k' }),
    'options: pools[0].provisioning.external.url: must end with the path: what follows a ? or a # has no meaning here',
  ],
  [
    'a variable that is not set',
    withExternal({ url, api_key: '${NO_SUCH}' }),
    'options: pools[0].provisioning.external.api_key: the environment variable NO_SUCH is not set',
  ],
  [
    'a key with a blank',
    withExternal({ url, api_key: 'a b' }),
    'options: pools[0].provisioning.external.api_key: must be a key without blanks, or ${NAME} for the environment variable that holds it, got a string',
  ],
  [
    'a Triton without a context',
    { engine: 'triton' },
    'options: pools[0].ctx: is required for triton, which does not tell it (tokens)',
  ],
  [
    'threads',
    { threads: 2 },
    'options: pools[0].threads: does not go with the rest (compute threads of an engine that is started here; small models are fastest on one, large ones on one per core)',
  ],
];

for (const [title, pool, message] of mistakes) {
  test(`a pool over HTTP is refused and the mistake named: ${title}`, (t) => {
    t.is(refusal(pool), message);
  });
}
