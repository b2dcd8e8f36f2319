import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { engineOutput } from '../../src/observe/engine-output.ts';
import { fingerprint, redact } from '../../src/observe/redact.ts';
import { program } from '../helpers/cli.ts';
import { startFakeLlamaServer } from '../helpers/fake-llama-server.ts';
import { startFakeVllmServer } from '../helpers/fake-vllm-server.ts';
import { startTestServer } from '../helpers/server.ts';
import { until } from '../helpers/until.ts';

const SECRET = 'sk-live-0123456789';
const BLANKED = `****${createHash('sha256').update(SECRET).digest('hex').slice(0, 6)}`;

test('a fingerprint is the first 6 hex digits of the SHA-256', (t) => {
  t.is(`****${fingerprint(SECRET)}`, BLANKED);
});

for (const text of [
  `Authorization: Bearer ${SECRET}`,
  `authorization: ${SECRET}`,
  `Proxy-Authorization: Basic ${SECRET}`,
  `{"Authorization":"Bearer ${SECRET}"}`,
  `refused Bearer ${SECRET}, try again`,
  `X-API-Key: ${SECRET}`,
  `curl -H 'x-api-key: ${SECRET}' http://x`,
  `http://x/?token=${SECRET}&a=b`,
  `{"token":"${SECRET}","n":1}`,
  `{"error":"{\\"api_key\\":\\"${SECRET}\\"}"}`,
  `api_key = '${SECRET}'`,
  `apiKey: ${SECRET}`,
  `HF_TOKEN=${SECRET} python`,
  `access_token: ${SECRET}\nnext line`,
])
  test(`a credential is blanked, and nothing else: ${JSON.stringify(text)}`, (t) => {
    t.is(redact(text), text.replace(SECRET, BLANKED));
    t.is(redact(redact(text)), redact(text));
  });

for (const text of [
  'A task joins the queue of pool storyteller with 3 ahead of it.',
  'max_tokens: 12345678',
  'n_tokens = 12345678, tokens_out=123456789',
  `Unexpected token '<', "<html>..." is not valid JSON`,
  'token=short',
  'the token: is missing',
  'authorization failed for everybody',
])
  test(`what is none stays: ${text}`, (t) => {
    t.is(redact(text), text);
  });

test('an engine’s log has no credential, however it is cut, and the last words of an engine too', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'taskchart-'));
  t.teardown(() => rm(dir, { recursive: true, force: true }));
  const write = engineOutput(dir, 'pool/0');
  const output = Buffer.from(
    `loading ✓ token=${SECRET}\nready ✓\n--api_key ${SECRET} api_key: ${SECRET}, n_tokens <= n_batch`,
  );
  for (const byte of output) write(Buffer.of(byte));
  const read = async (): Promise<string> =>
    readFile(join(dir, 'engines', 'pool-0.log'), 'utf8').catch(() => '');
  await until(async () => (await read()).endsWith('n_batch'));
  t.is(
    await read(),
    `loading ✓ token=${BLANKED}\nready ✓\n--api_key ${SECRET} api_key: ${BLANKED}, n_tokens <= n_batch`,
  );
});

const body = { error: { message: `Incorrect key: api_key=${SECRET}`, type: 'invalid_request_error' } };
const refuse = { status: 400, body };

const servers = {
  llamacpp: async () => {
    const fake = await startFakeLlamaServer({ refuse });
    return {
      fake,
      pool: { engine: 'llamacpp', provisioning: { mode: 'external', external: { url: fake.url } } } as const,
    };
  },
  vllm: async () => {
    const fake = await startFakeVllmServer({ refuse });
    return { fake, pool: { engine: 'vllm', provisioning: { external: { url: fake.url } } } as const };
  },
};

for (const [engine, start] of Object.entries(servers))
  test(`what a server of ${engine} says of a failure is told without the credential in it`, async (t) => {
    const { fake, pool } = await start();
    t.teardown(() => fake.kill());
    const server = await startTestServer({ pools: [{ id: 'p', model: 'story', ...pool }] });
    t.teardown(server.close);
    const task = { engine: engine as 'vllm', model_ref: 'story', ctx: 256 };
    const said = String((await server.events(await server.submit(task))).at(-1)?.data['message']);
    t.false(said.includes(SECRET), said);
    t.true(said.includes(BLANKED), said);
  });

test('an error in the log is read through', async (t) => {
  const source = `
    const { createLogger } = await import('./src/observe/logger.ts');
    const { logger, flush } = await createLogger({ level: 'info', format: 'json' });
    logger.error({ err: new Error('Authorization: Bearer ${SECRET}'), human: 'It failed.' });
    logger.error({ err: 'token=${SECRET}', human: 'It failed.' });
    flush();`;
  const { exit, stdout } = program(['--conditions=taskchart-source', '--input-type=module', '-e', source]);
  t.is(await exit, 0);
  t.false(stdout().includes(SECRET), stdout());
  t.is(stdout().split(BLANKED).length, 4, stdout());
});
