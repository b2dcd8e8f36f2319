import test from 'ava';
import { startTestServer, type TestServer } from '../helpers/server.ts';
import { call } from './wire.ts';

let server: TestServer;

test.before(async () => {
  server = await startTestServer({
    server: { body_limit_bytes: 4096 },
    pools: [
      { id: 'fast', engine: 'synthetic', model: 'synthetic' },
      { id: 'cold', engine: 'synthetic', model: 'other', preload: false },
      { id: 'shared-cold', engine: 'synthetic', model: 'shared', preload: false },
      { id: 'shared', engine: 'synthetic', model: 'shared' },
      { id: 'words', engine: 'llamacpp', model: 'storyteller', preload: false },
    ],
  });
});
test.after.always(() => server.close());

test('a text has the same number of tokens by GET and by POST', async (t) => {
  const text = 'Once upon a time, 100% of the foxes & hens';
  for (const model_ref of ['synthetic', 'storyteller']) {
    const query = new URLSearchParams({ model_ref, text });
    const short = await call(server, 'GET', `/v1/tokenize?${query}`);
    const long = await call(server, 'POST', '/v1/tokenize', { model_ref, text });
    t.is(short.status, 200);
    t.like(short.body, { exact: true });
    t.true((short.body['count'] as number) > 0);
    t.deepEqual(long.body, short.body);
  }
});

test('an empty text can be counted', async (t) => {
  t.like((await call(server, 'POST', '/v1/tokenize', { model_ref: 'synthetic', text: '' })).body, {
    count: 0,
  });
});

test('a chat is counted as the engine would see it', async (t) => {
  const messages = [{ role: 'user', content: 'Once upon a time' }];
  const { status, body } = await call(server, 'POST', '/v1/tokenize', { model_ref: 'synthetic', messages });
  t.is(status, 200);
  t.true((body['count'] as number) >= 4);
});

test('of several pools with the model, one that is up counts', async (t) => {
  t.is((await call(server, 'POST', '/v1/tokenize', { model_ref: 'shared', text: 'a fox' })).status, 200);
});

test('what nobody can count now is 503 and retriable, what nobody will is not', async (t) => {
  const cold = await call(server, 'POST', '/v1/tokenize', { model_ref: 'other', text: 'a' });
  t.is(cold.status, 503);
  t.like(cold.body, { code: 'POOL_UNREADY', retriable: true, pool_id: 'cold', engine: 'synthetic' });
  t.is(cold.headers.get('retry-after'), '1');
  const none = await call(server, 'POST', '/v1/tokenize', { model_ref: 'none', text: 'a' });
  t.is(none.status, 503);
  t.like(none.body, { code: 'POOL_UNAVAILABLE', retriable: false });
  t.regex(none.body['message'] as string, /^model_ref: .*"none"/);
});

const wrong: [title: string, body: unknown, message: RegExp][] = [
  ['no model', { text: 'a' }, /^model_ref: is required/],
  ['no text', { model_ref: 'synthetic' }, /^text or messages: one of them is required/],
  [
    'both a text and a chat',
    { model_ref: 'synthetic', text: 'a', messages: [{ role: 'user', content: 'b' }] },
    /^text and messages: only one of them/,
  ],
  ['a number', { model_ref: 'synthetic', text: 5 }, /^text: must be a string/],
  [
    'a message without a role',
    { model_ref: 'synthetic', messages: [{ content: 'a' }] },
    /^messages\[0\]\.role: /,
  ],
  ['no object', [], /^the body must be/],
  ['no JSON', 'text', /^body: is not valid JSON/],
];

for (const [title, body, message] of wrong)
  test(`a count of ${title} is 400 and says what would be right`, async (t) => {
    const answer = await call(server, 'POST', '/v1/tokenize', body);
    t.is(answer.status, 400);
    t.like(answer.body, { code: 'INVALID_PARAMS' });
    t.regex(answer.body['message'] as string, message);
  });

test('a query without its fields is 400, and a body above the limit 413', async (t) => {
  t.is((await call(server, 'GET', '/v1/tokenize')).status, 400);
  t.is((await call(server, 'GET', '/v1/tokenize?model_ref=synthetic')).status, 400);
  const { status, body } = await call(server, 'POST', '/v1/tokenize', {
    model_ref: 'synthetic',
    text: 'x'.repeat(5000),
  });
  t.is(status, 413);
  t.regex(body['message'] as string, /4096 bytes/);
});
