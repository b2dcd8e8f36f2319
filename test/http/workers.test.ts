import test, { type ExecutionContext } from 'ava';
import type { Observation } from '../../src/actors/observation.ts';
import type { WorkerDescription } from '../../src/actors/workers.ts';
import { loadConfig } from '../../src/config.ts';
import { orchestrate } from '../../src/embed.ts';
import { pino } from 'pino';
import { startServer } from '../../src/server.ts';
import { startFakeLlamaServer } from '../helpers/fake-llama-server.ts';
import { request, startTestServer } from '../helpers/server.ts';
import { until } from '../helpers/until.ts';
import { call, type Answer } from './wire.ts';

const TOKEN = 'correct-horse-battery';
const WORKER = { pool_id: 'fast', url: 'http://127.0.0.1:8081', engine: 'vllm', engine_version: '0.11.0' };

interface Registry {
  /** What the pools were told: what was attached in whose place, and what was detached. */
  attached: { worker: WorkerDescription; before: WorkerDescription | undefined }[];
  seen: Observation[];
  log: () => string;
  register(body: unknown): Promise<Answer>;
}

async function registry(t: ExecutionContext): Promise<Registry> {
  const config = loadConfig({
    overrides: {
      auth: { token: TOKEN },
      server: { bind_addr: '127.0.0.1:0' },
      pools: [
        {
          id: 'fast',
          engine: 'vllm',
          model: 'm',
          preload: false,
          provisioning: { mode: 'external', external: { url: 'http://127.0.0.1:9' } },
        },
      ],
    },
  });
  const orchestrator = orchestrate(config);
  const seen: Observation[] = [];
  const attached: Registry['attached'] = [];
  orchestrator.observe((observation) => {
    seen.push(observation);
    if (observation.type === 'worker.bound') attached.push(observation);
  });
  let log = '';
  const server = await startServer(
    orchestrator,
    pino({ level: 'info' }, { write: (line) => void (log += line) }),
  );
  t.teardown(() => server.close(0));
  const asked = { fetch: (path: string, init?: RequestInit) => fetch(server.url + path, init) };
  return {
    attached,
    seen,
    log: () => log,
    register: (body) =>
      call(asked, 'POST', '/v1/workers/register', body, { Authorization: `Bearer ${TOKEN}` }),
  };
}

test('an engine registers, and hears under which name it is known', async (t) => {
  const { register, attached, log } = await registry(t);
  const { status, body } = await register({
    ...WORKER,
    slots_total: 4,
    device_mask: 'gpu:0',
    more: 'ignored',
  });
  t.is(status, 200);
  t.deepEqual(body, { ok: true, identity: 'token:622493', pool_id: 'fast', replica_id: 'r0' });
  t.like(attached[0], {
    worker: { ...WORKER, replica_id: 'r0', slots_total: 4, device_mask: 'gpu:0' } as WorkerDescription,
    before: undefined,
  });
  t.regex(
    log(),
    /"action":"bind".*Pool fast has vllm 0\.11\.0 at http:\/\/127\.0\.0\.1:8081 as replica r0\./,
  );
  t.false(log().includes(TOKEN));
});

test('saying the same again changes nothing; the latest of a place wins, and another engine there is warned of', async (t) => {
  const { register, attached, seen, log } = await registry(t);
  await register(WORKER);
  await register(WORKER);
  t.is(attached.length, 1);
  await register({ ...WORKER, slots_total: 2 });
  t.false(log().includes('another engine'));
  await register({ ...WORKER, slots_total: 2, engine_version: '0.12.0' });
  await register({ ...WORKER, replica_id: 'r1' });
  t.deepEqual(
    attached.map(({ worker, before }) => [
      worker.replica_id,
      worker.engine_version,
      before?.slots_total,
      before?.engine_version,
    ]),
    [
      ['r0', '0.11.0', undefined, undefined],
      ['r0', '0.11.0', undefined, '0.11.0'],
      ['r0', '0.12.0', 2, '0.11.0'],
      ['r1', '0.11.0', undefined, undefined],
    ],
  );
  t.is(seen.filter(({ type }) => type === 'worker.bound').length, 4);
  const warnings = log()
    .split('\n')
    .filter((line) => line.includes('"level":40'));
  t.is(warnings.length, 1);
  t.regex(String(warnings[0]), /is another engine now: vllm 0\.12\.0/);
});

const mistakes: [title: string, body: unknown, message: RegExp][] = [
  ['no address', { ...WORKER, url: undefined }, /^url: is required/],
  ['an address of another kind', { ...WORKER, url: 'ftp://x' }, /^url: must be an http or https URL/],
  [
    'an address with a password',
    { ...WORKER, url: 'http://me:pw@x' },
    /^url: must be an http or https URL without a user/,
  ],
  ['an address that cannot be', { ...WORKER, url: 'http://[' }, /^url: must be an http or https URL$/],
  [
    'a made-up engine',
    { ...WORKER, engine: 'synthetic' },
    /^engine: must be one of llamacpp, vllm, tgi, triton, openai, got "synthetic"$/,
  ],
  ['no version', { ...WORKER, engine_version: ' ' }, /^engine_version: must be a version/],
  ['no slots', { ...WORKER, slots_total: 0 }, /^slots_total: must be an integer from 1 to 65536, got 0$/],
  ['a name that leads elsewhere', { ...WORKER, replica_id: '../x' }, /^replica_id: must be letters/],
  ['a list', [WORKER], /^the body must be/],
  ['no such pool', { ...WORKER, pool_id: undefined }, /^pool_id: there is no pool "default"$/],
];

for (const [title, body, message] of mistakes)
  test(`a registration is refused and the mistake named: ${title}`, async (t) => {
    const { register, attached } = await registry(t);
    const answer = await register(body);
    t.is(answer.status, 400);
    t.is(answer.body['code'], 'INVALID_PARAMS');
    t.regex(String(answer.body['message']), message);
    t.is(attached.length, 0);
  });

test('what a pool does not take is not bound, and can be tried again', async (t) => {
  const { register, attached } = await registry(t);
  const refused = await register({ ...WORKER, engine: 'tgi' });
  t.is(refused.status, 400);
  t.like(refused.body, { message: 'engine: pool fast has engines of vllm, got tgi', pool_id: 'fast' });
  t.is((await register(WORKER)).status, 200);
  t.is(attached.length, 1);
});

test('an engine that registers gets the work of its pool, and one that takes its place gets it then', async (t) => {
  const [first, second] = [await startFakeLlamaServer(), await startFakeLlamaServer()];
  t.teardown(() => Promise.all([first.kill(), second.kill()]));
  const server = await startTestServer({
    auth: { token: TOKEN },
    pools: [
      {
        id: 'default',
        engine: 'llamacpp',
        model: 'm',
        preload: false,
        provisioning: { mode: 'external', external: { url: 'http://127.0.0.1:9' } },
      },
    ],
  });
  t.teardown(server.close);
  const headers = { Authorization: `Bearer ${TOKEN}` };
  const asked = { fetch: (path: string, init?: RequestInit) => fetch(server.url + path, init) };
  const pool = server.orchestrator.core.pools.get('default');
  const run = async (): Promise<string> => {
    const { body } = await call(
      asked,
      'POST',
      '/v1/tasks',
      { ...request, engine: 'llamacpp', model_ref: 'm', ctx: 64, max_tokens: 4 },
      headers,
    );
    const stream = await asked.fetch(`/v1/tasks/${String(body['task_id'])}/stream`, { headers });
    return stream.text();
  };
  for (const { url } of [first, second]) {
    const worker = { url, engine: 'llamacpp', engine_version: 'b1' };
    t.is((await call(asked, 'POST', '/v1/workers/register', worker, headers)).status, 200);
    await until(() => pool?.replicas.some((replica) => replica.isReady));
    t.regex(await run(), /event: end/);
    await first.kill();
  }
});
