import test, { type ExecutionContext } from 'ava';
import { pino } from 'pino';
import type { ConfigInput } from '../../src/config.ts';
import { request, startTestServer, type TestServer } from '../helpers/server.ts';
import { until } from '../helpers/until.ts';
import { call } from './wire.ts';

type Line = Record<string, unknown>;

async function loggingServer(
  t: ExecutionContext,
  level: string,
  settings?: ConfigInput,
): Promise<TestServer & { lines: (action: string) => Line[] }> {
  const lines: Line[] = [];
  const logger = pino({ level }, { write: (line: string) => void lines.push(JSON.parse(line) as Line) });
  const server = await startTestServer(settings, {}, logger);
  t.teardown(server.close);
  await until(() => [...server.orchestrator.core.pools.values()].every((pool) => pool.isReady));
  return { ...server, lines: (action) => lines.filter((line) => line['action'] === action) };
}

const POOLS: ConfigInput = {
  pools: [
    { id: 'a', engine: 'synthetic', model: 'synthetic', ctx: 4096 },
    { id: 'b', engine: 'synthetic', model: 'synthetic', ctx: 128 },
  ],
};

test('the line of an admission says where the task stands, and how its pool was found', async (t) => {
  const server = await loggingServer(t, 'info', POOLS);
  await server.submit();
  await server.submit({ ctx: 100, placement: { mode: 'pin', pin_pool_id: 'b' } });
  await server.submit({ placement: { mode: 'prefer', prefer_pools: ['b'] } });
  const [free, pinned, fallback] = server.lines('admit');
  t.like(free, {
    queue_position: 0,
    predicted_start_ms: 0,
    pool_id: 'a',
    decision_reason: 'only_feasible',
    pinned: false,
    fallback_used: false,
    candidates_total: 2,
    candidates_feasible: 1,
  });
  t.like(pinned, { pool_id: 'b', decision_reason: 'pinned', pinned: true, candidates_total: 1 });
  t.like(fallback, { pool_id: 'a', fallback_used: true });
});

const refusals: [title: string, fields: object, reason: string, decision: object][] = [
  ['a model that nobody serves', { model_ref: 'none' }, 'NO_CAPACITY', { candidates_total: 2 }],
  ['a context that nobody has', { ctx: 5000 }, 'INSUFFICIENT_CTX', { candidates_feasible: 0 }],
  [
    'a grammar that nobody can hold to',
    { sampling: { grammar: 'root ::= "a"' } },
    'EXTENSIONS_UNSATISFIED',
    { candidates_total: 2, candidates_feasible: 0 },
  ],
  [
    'a pinned pool that cannot',
    { placement: { mode: 'pin', pin_pool_id: 'b' } },
    'pinned_pool_infeasible',
    { pinned: true, candidates_total: 1, candidates_feasible: 0 },
  ],
  [
    'preferred pools that cannot',
    { placement: { mode: 'prefer', prefer_pools: ['b'], allow_fallback: false } },
    'no_preferred_feasible',
    { candidates_total: 2, candidates_feasible: 1 },
  ],
];

for (const [title, fields, reason, decision] of refusals)
  test(`the line of a refusal has the reason of the placement: ${title}`, async (t) => {
    const server = await loggingServer(t, 'info', POOLS);
    const { body } = await call(server, 'POST', '/v1/tasks', { ...request, ...fields });
    t.like(server.lines('refuse')[0], {
      error_kind: body['code'],
      decision_reason: reason,
      fallback_used: false,
      ...decision,
    });
  });

test('a pool that is not ready is told as such', async (t) => {
  const lines: Line[] = [];
  const logger = pino({}, { write: (line: string) => void lines.push(JSON.parse(line) as Line) });
  const gone = { id: 'gone', engine: 'llamacpp', model: 'file:/nowhere/model.gguf' } as const;
  const server = await startTestServer({ pools: [gone] }, {}, logger);
  t.teardown(server.close);
  await until(() => server.orchestrator.core.pools.get('gone')?.phase === 'unready');
  await server.post({ engine: 'llamacpp', model_ref: gone.model, ctx: 100 });
  const refused = lines.find(({ action }) => action === 'refuse');
  t.like(refused, { error_kind: 'POOL_UNREADY', decision_reason: 'POOL_UNREADY' });
});

test('a request that makes no task is logged with its code, and without a word of it', async (t) => {
  const server = await loggingServer(t, 'info');
  const headers = { 'X-Correlation-Id': 'mine' };
  await call(server, 'POST', '/v1/tasks', { ...request, ctx: 0, prompt: 'my secret' }, headers);
  await call(server, 'POST', '/v1/tasks', '{"prompt":"my secret",', headers);
  const refused = server.lines('refuse');
  t.is(refused.length, 2);
  for (const line of refused) t.like(line, { error_kind: 'INVALID_PARAMS', x_correlation_id: 'mine' });
  t.notRegex(JSON.stringify(refused), /secret/);
});

test('fields that nobody knows are named where somebody debugs, cut and counted', async (t) => {
  const server = await loggingServer(t, 'debug');
  const many = Object.fromEntries(Array.from({ length: 30 }, (_, i) => [`x${i}`, 'my secret']));
  await server.post();
  await server.post({ temperature: 1, ['y'.repeat(1000)]: 2 } as never);
  await server.post(many as never);
  const [few, cut, ...more] = server.lines('ignore').map(({ fields }) => fields as string[]);
  t.deepEqual(few, ['temperature', 'y'.repeat(40)]);
  t.is(cut?.length, 20);
  t.deepEqual(more, []);
  t.notRegex(JSON.stringify(server.lines('ignore')), /secret/);
});
