import test from 'ava';
import { validateResponse } from '../helpers/contract.ts';
import { request, startTestServer, type TestServer } from '../helpers/server.ts';

let server: TestServer;

test.before(async () => {
  server = await startTestServer({
    server: { body_limit_bytes: 4096 },
    pools: [
      { id: 'fast', engine: 'synthetic', model: 'synthetic', ctx: 128, max_tokens_out: 64 },
      { id: 'gone', engine: 'llamacpp', model: 'file:/nowhere/model.gguf' },
    ],
  });
});
test.after.always(() => server.close());

interface Answer {
  status: number;
  body: { code: string; message: string; retriable: boolean; engine?: string };
}

async function send(body: string): Promise<Answer> {
  const response = await server.fetch('/v1/tasks', { method: 'POST', body });
  const json = (await response.json()) as Answer['body'];
  validateResponse('submitTask', response.status, json);
  if (!response.headers.get('x-correlation-id')) throw new Error('no correlation id');
  return { status: response.status, body: json };
}

const cases: [
  title: string,
  fields: Record<string, unknown>,
  status: number,
  code: string,
  message: RegExp,
][] = [
  ['a wrong type', { max_tokens: 'ten' }, 400, 'INVALID_PARAMS', /^max_tokens: .*"ten"/],
  ['ctx 0', { ctx: 0 }, 400, 'INVALID_PARAMS', /^ctx: .*1/],
  ['max_tokens 0', { max_tokens: 0 }, 400, 'INVALID_PARAMS', /^max_tokens: .*1/],
  ['an unknown priority', { priority: 'urgent' }, 400, 'INVALID_PARAMS', /^priority: .*interactive.*batch/],
  ['an unknown engine', { engine: 'gpt' }, 400, 'INVALID_PARAMS', /^engine: .*llamacpp/],
  ['an id that is no UUID', { task_id: 'abc' }, 400, 'INVALID_PARAMS', /^task_id: .*UUID/],
  [
    'a prompt beside its pieces',
    { inputs: ['a'] },
    400,
    'INVALID_PARAMS',
    /^prompt and inputs: only one of them goes with workload completion$/,
  ],
  [
    'nothing to embed',
    { workload: 'embedding', prompt: '' },
    400,
    'INVALID_PARAMS',
    /^prompt: must not be empty/,
  ],
  [
    'nothing to embed in one of the inputs',
    { workload: 'embedding', prompt: undefined, inputs: ['a', ''] },
    400,
    'INVALID_PARAMS',
    /^inputs\[1\]: must not be empty/,
  ],
  [
    'an empty grammar',
    { sampling: { grammar: ' ' } },
    400,
    'INVALID_PARAMS',
    /^sampling\.grammar: .*not empty/,
  ],
  [
    'a schema that is none',
    { sampling: { json_schema: { type: 'nonsense' } } },
    400,
    'INVALID_PARAMS',
    /^sampling\.json_schema\.type: must be one of string/,
  ],
  [
    'a deadline in another age',
    { deadline_ms: 1e300 },
    400,
    'INVALID_PARAMS',
    /^deadline_ms: must be ≤ 31536000000/,
  ],
  ['a seed that JSON cannot carry', { seed: -(2 ** 53) }, 400, 'INVALID_PARAMS', /^seed: /],
  [
    'preferred pools that do not exist',
    { placement: { mode: 'prefer', prefer_pools: ['x'], allow_fallback: false } },
    503,
    'POOL_UNAVAILABLE',
    /^placement\.prefer_pools: .*"x"/,
  ],
  ['no input at all', { prompt: undefined }, 400, 'INVALID_PARAMS', /prompt.*inputs.*messages/],
  ['a deadline that has passed', { deadline_ms: 0 }, 400, 'DEADLINE_UNMET', /^deadline_ms: .*above 0/],
  [
    'an unknown pinned pool',
    { placement: { mode: 'pin', pin_pool_id: 'x' } },
    400,
    'INVALID_PARAMS',
    /^placement\.pin_pool_id: .*"x".*"fast"/,
  ],
  [
    'a workload nobody serves',
    { workload: 'rerank' },
    400,
    'INVALID_PARAMS',
    /^inputs: is required for workload rerank/,
  ],
  ['a context no pool has', { ctx: 4096 }, 400, 'INVALID_PARAMS', /^ctx: must be at most 128/],
  [
    'more output than allowed',
    { ctx: 128, max_tokens: 65 },
    400,
    'INVALID_PARAMS',
    /^max_tokens: must be at most 64/,
  ],
  [
    'a prompt that does not fit',
    { ctx: 20, max_tokens: 10, prompt: 'x'.repeat(200) },
    400,
    'INVALID_PARAMS',
    /^prompt: has 50 tokens, at most 10 fit beside max_tokens 10 in ctx 20/,
  ],
  ['an engine without a pool', { engine: 'vllm' }, 503, 'POOL_UNAVAILABLE', /^engine: no pool runs "vllm"/],
  ['an unknown model', { model_ref: 'big' }, 503, 'POOL_UNAVAILABLE', /^model_ref: .*"big".*"synthetic"/],
];

for (const [title, fields, status, code, message] of cases)
  test(`${title} is refused with ${code}, naming the field`, async (t) => {
    const answer = await send(JSON.stringify({ ...request, ctx: 100, ...fields }));
    t.is(answer.status, status);
    t.is(answer.body.code, code);
    t.regex(answer.body.message, message);
    if (fields['engine'] === undefined) t.is(answer.body.engine, 'synthetic');
    t.false(answer.body.retriable);
  });

test('malformed JSON is refused with its place, and without a word of it', async (t) => {
  const { status, body } = await send('{"prompt": "my secret", oops}');
  t.is(status, 400);
  t.regex(body.message, /^body: is not valid JSON/);
  t.notRegex(body.message, /secret|oops/);
});

test('an empty body, and a body that is no object, are refused', async (t) => {
  t.regex((await send('')).body.message, /^body: is empty/);
  t.regex((await send('[]')).body.message, /body/);
});

test('a body above the limit is refused with 413 and the limit', async (t) => {
  const { status, body } = await send(JSON.stringify({ ...request, prompt: 'x'.repeat(5000) }));
  t.is(status, 413);
  t.regex(body.message, /4096 bytes/);
});

test('a missing model file makes an unready pool with its cause, and work for it is refused with the cause', async (t) => {
  const health = (await (await server.fetch('/v1/pools/gone/health')).json()) as Record<string, unknown>;
  validateResponse('getPoolHealth', 200, health);
  t.false(health['ready']);
  t.is(health['last_error'], 'model file /nowhere/model.gguf does not exist');
  const { status, body } = await send(
    JSON.stringify({ ...request, engine: 'llamacpp', model_ref: 'file:/nowhere/model.gguf', ctx: 100 }),
  );
  t.is(status, 503);
  t.is(body.code, 'POOL_UNREADY');
  t.regex(body.message, /model file \/nowhere\/model\.gguf does not exist/);
});

test('a path that does not exist is 404 in the same envelope', async (t) => {
  for (const path of ['/v2/tasks', '/v1/pools/none/health']) {
    const response = await server.fetch(path);
    t.is(response.status, 404);
    t.like(await response.json(), { code: 'NOT_FOUND', retriable: false });
    t.truthy(response.headers.get('x-correlation-id'));
  }
});

test('a correlation id that is too long or not printable is replaced', async (t) => {
  const response = await server.fetch('/healthz', { headers: { 'X-Correlation-Id': 'x'.repeat(500) } });
  t.regex(response.headers.get('x-correlation-id') ?? '', /^[0-9a-f-]{36}$/);
});

test('a negative seed is a seed like any other, and is told as it was sent', async (t) => {
  const task = async (seed: number): Promise<{ started: unknown; text: string }> => {
    const fields = { ctx: 100, seed, sampling: { temperature: 1 } };
    const events = await server.events(await server.submit(fields));
    const tokens = events.filter(({ event }) => event === 'token');
    return { started: events[0]?.data['seed'], text: tokens.map(({ data }) => data['t']).join('') };
  };
  for (const seed of [-1, -Number.MAX_SAFE_INTEGER]) {
    const [one, other] = [await task(seed), await task(seed)];
    t.is(one.started, seed);
    t.is(one.text, other.text);
  }
});
