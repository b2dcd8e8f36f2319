import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { MemoryCatalog } from '../../src/catalog/memory-catalog.ts';
import type { CatalogModel } from '../../src/contract/generated/types.ts';
import type { OrchestratorPortOptions } from '../../src/embed.ts';
import type { ConfigInput } from '../../src/config.ts';
import { StoreError } from '../../src/sqlite/store-error.ts';
import { request, startTestServer, SYNTHETIC, type TestServer } from '../helpers/server.ts';
import { until } from '../helpers/until.ts';
import { call, type Answer } from './wire.ts';

const DIGEST = `sha256:${'a'.repeat(64)}`;
const SIGNED = [{ signer: 'somebody', algo: 'ed25519', verified: true, timestamp_ms: 7 }];
const FULL = {
  id: 'org/model:Q4',
  digest: DIGEST,
  source_url: 'https://huggingface.co/org/model',
  tags: ['small'],
  manifests: [{ digest: DIGEST, size_bytes: 12 }],
  signatures: SIGNED,
  sbom: { uri: 'https://example.org/sbom.json', digest: DIGEST },
  trust_policy: { mode: 'strict', allowed_registries: ['huggingface.co'], require_signature: true },
} as const;

async function serverOf(
  t: ExecutionContext,
  settings: ConfigInput = {},
  ports: OrchestratorPortOptions = {},
): Promise<TestServer> {
  const server = await startTestServer({ ...SYNTHETIC, ...settings }, ports);
  t.teardown(server.close);
  return server;
}

const path = (id: string, more = ''): string => `/v1/catalog/models/${encodeURIComponent(id)}${more}`;
const add = (server: TestServer, model: unknown, headers = {}): Promise<Answer> =>
  call(server, 'POST', '/v1/catalog/models', model, headers);
const read = async (server: TestServer, id: string): Promise<CatalogModel> =>
  (await call(server, 'GET', path(id))).body as unknown as CatalogModel;
const metrics = async (server: TestServer): Promise<string> => (await server.fetch('/metrics')).text();

/** A file, its digest, and the model that it is. */
function fileOf(t: ExecutionContext, text: string): { file: string; model: CatalogModel } {
  const folder = mkdtempSync(join(tmpdir(), 'taskchart-catalog-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, 'm.gguf');
  writeFileSync(file, text);
  const digest = `sha256:${createHash('sha256').update(text).digest('hex')}`;
  return { file, model: { id: 'mine', digest, source_url: `file:${file}` } };
}

async function verified(server: TestServer, id: string): Promise<CatalogModel> {
  const before = (await read(server, id)).last_verified_ms ?? -1;
  const answer = await call(server, 'POST', path(id, '/verify'));
  if (answer.status !== 202 || answer.body['status'] !== 'started') throw new Error(JSON.stringify(answer));
  await until(async () => ((await read(server, id)).last_verified_ms ?? -1) > before);
  return read(server, id);
}

test('a model is added, and read with everything that was given', async (t) => {
  const server = await serverOf(t);
  const before = Date.now();
  const added = await add(server, { ...FULL, unknown: 1, sbom: { ...FULL.sbom, more: 1 } });
  t.is(added.status, 201);
  const { state, created_ms, ...rest } = added.body as unknown as CatalogModel;
  t.deepEqual(rest, FULL as unknown);
  t.is(state, 'Active');
  t.true((created_ms ?? 0) >= before && (created_ms ?? 0) <= Date.now());
  const got = await call(server, 'GET', path(FULL.id));
  t.is(got.status, 200);
  t.deepEqual(got.body, added.body);
});

test('what can only be read is not believed when it is given', async (t) => {
  const server = await serverOf(t);
  const claims = {
    state: 'Retired',
    created_ms: 1,
    verification: 'pass',
    last_verified_ms: 1,
    local_path: '/etc/passwd',
  };
  const { body } = await add(server, { id: 'm', digest: DIGEST, ...claims });
  t.deepEqual(Object.keys(body).toSorted(), ['created_ms', 'digest', 'id', 'state']);
  t.is(body['state'], 'Active');
  t.not(body['created_ms'], 1);
});

test('a mistake is a 400 that names the field', async (t) => {
  const server = await serverOf(t);
  for (const [model, message] of [
    [{ digest: DIGEST }, /^id: is required/],
    [{ id: 'm' }, /^digest: is required/],
    [{ id: ' ', digest: DIGEST }, /^id: must be a name/],
    [{ id: 'm', digest: 'sha256:12' }, /^digest: must be sha256: and 64 hex digits/],
    [{ id: 'm', digest: DIGEST.toUpperCase() }, /^digest: /],
    [{ id: '../../etc/passwd', digest: DIGEST }, /^id: must be .*parts that are \. or \.\./],
    [{ id: 'a/../b', digest: DIGEST }, /^id: /],
    [{ id: 'file:../b', digest: DIGEST }, /^id: /],
    [{ id: 'a\\b', digest: DIGEST }, /^id: /],
    [{ id: 'a\nb', digest: DIGEST }, /^id: /],
    [{ id: 'a'.repeat(513), digest: DIGEST }, /^id: must be a name of at most 512/],
    [{ id: DIGEST, digest: DIGEST }, /^id: must not begin with sha256:/],
    [
      { id: 'm', digest: DIGEST, source_url: 'https://me:secret@h/x' },
      /^source_url: must be without user name/,
    ],
    [{ id: 'm', digest: DIGEST, tags: [1] }, /^tags\[0\]: /],
    [{ id: 'm', digest: DIGEST, trust_policy: { mode: 'some' } }, /^trust_policy\.mode: /],
    ['', /^body: /],
    ['[]', /^the body /],
  ] as const) {
    const answer = await add(server, model);
    t.is(answer.status, 400, JSON.stringify(model));
    t.is(answer.body['code'], 'INVALID_PARAMS');
    t.regex(answer.body['message'] as string, message);
    t.notRegex(answer.body['message'] as string, /secret/);
  }
  t.is((await add(server, FULL, { 'X-Trust-Policy': 'some' })).status, 400);
  for (const query of ['?limit=0', '?limit=x', '?cursor=x', '?cursor=Li4', '?cursor=%00'])
    t.is((await call(server, 'GET', `/v1/catalog/models${query}`)).status, 400, query);
  t.deepEqual((await call(server, 'GET', '/v1/catalog/models')).body, { models: [] });
});

test('a model that is not known, or no name at all, is a 404 for every verb', async (t) => {
  const server = await serverOf(t);
  for (const id of ['m', '../../etc/passwd', '..', '%2e%2e', '__proto__', 'a'.repeat(2000), DIGEST]) {
    for (const [method, more, body] of [
      ['GET', ''],
      ['DELETE', ''],
      ['POST', '/verify'],
      ['POST', '/state', { state: 'Retired' }],
    ] as const) {
      if (id === '..' && more === '') continue;
      const answer = await call(server, method, path(id, more), body);
      t.is(answer.status, 404, `${method} ${id}`);
      t.is(answer.body['code'], 'NOT_FOUND');
    }
  }
});

test('a catalog that cannot be written refuses the change, says nothing of the disk, and stays as it was', async (t) => {
  const catalog_store = new MemoryCatalog();
  const server = await serverOf(t, {}, { catalog_store });
  await add(server, FULL);
  catalog_store.change = () =>
    Promise.reject(new StoreError('unusable', 'cannot write /secret/catalog.json'));
  for (const answer of [
    await add(server, { id: 'm', digest: DIGEST }),
    await call(server, 'POST', path(FULL.id, '/state'), { state: 'Retired' }),
    await call(server, 'DELETE', path(FULL.id)),
  ]) {
    t.is(answer.status, 500);
    t.is(answer.body['code'], 'INTERNAL');
    t.notRegex(answer.body['message'] as string, /secret/);
  }
  t.is((await read(server, FULL.id)).state, 'Active');
  t.is((await server.post()).status, 202);
});

test('the list goes page by page, by id', async (t) => {
  const server = await serverOf(t);
  const ids = ['a', 'b/c', 'd:e', 'hf:org/repo', 'z é'];
  for (const id of ids.toReversed()) await add(server, { id, digest: DIGEST });
  const seen: string[] = [];
  let cursor: string | undefined;
  do {
    const query: string = cursor === undefined ? '?limit=2' : `?limit=2&cursor=${cursor}`;
    const { body } = await call(server, 'GET', `/v1/catalog/models${query}`);
    seen.push(...(body['models'] as CatalogModel[]).map(({ id }) => id));
    cursor = body['next_cursor'] as string | undefined;
  } while (cursor !== undefined);
  t.deepEqual(seen, ids.toSorted());
});

test('a model that is added again is replaced, and keeps its state and when it was made', async (t) => {
  const server = await serverOf(t);
  const first = (await add(server, FULL)).body;
  await call(server, 'POST', path(FULL.id, '/state'), { state: 'Retired', deadline_ms: 0 });
  const { body } = await add(server, { id: FULL.id, digest: DIGEST, signatures: SIGNED });
  t.deepEqual(body as object, {
    id: FULL.id,
    digest: DIGEST,
    signatures: SIGNED,
    state: 'Retired',
    created_ms: first['created_ms'],
  });
});

test('strict trust of a request, of the configuration or of the model refuses what is not signed', async (t) => {
  const server = await serverOf(t);
  const plain = { id: 'm', digest: DIGEST };
  const strict = { 'X-Trust-Policy': 'strict' };
  for (const [model, headers, message] of [
    [plain, strict, /^model "m" is not trusted: signatures: the model is not signed$/],
    [{ ...plain, signatures: [{ ...SIGNED[0], verified: false }] }, strict, /none of them is verified/],
    [{ ...plain, trust_policy: { mode: 'strict' } }, {}, /not signed/],
    [
      { ...FULL, source_url: 'https://example.org/m.gguf' },
      {},
      /example\.org is not among the allowed registries/,
    ],
  ] as const) {
    const answer = await add(server, model, headers);
    t.is(answer.status, 400);
    t.is(answer.body['code'], 'UNTRUSTED_ARTIFACT');
    t.is(answer.body['retriable'], false);
    t.regex(answer.body['message'] as string, message);
  }
  t.is((await add(server, { ...plain, signatures: SIGNED }, strict)).status, 201);
  t.is((await add(server, plain)).status, 201);
  const careful = await serverOf(t, { catalog: { trust_policy: { mode: 'strict', require_sbom: true } } });
  t.regex(
    (await add(careful, { ...plain, signatures: SIGNED })).body['message'] as string,
    /^model "m" .*sbom/,
  );
  t.is((await add(careful, { ...plain, signatures: SIGNED, sbom: FULL.sbom })).status, 201);
});

test('under strict trust, work on a model that the catalog does not vouch for is refused, in a preview too', async (t) => {
  const server = await serverOf(t, {
    catalog: { trust_policy: { mode: 'strict' } },
    supervision: { initial_ms: 5, max_ms: 20 },
  });
  const refused = await server.post();
  t.is(refused.status, 400);
  t.like(await refused.json(), { code: 'UNTRUSTED_ARTIFACT', engine: 'synthetic', retriable: false });
  t.like((await call(server, 'POST', '/v1/tasks/preview', request)).body, {
    feasible: false,
    code: 'UNTRUSTED_ARTIFACT',
  });
  const health = await call(server, 'GET', '/v1/pools/fast/health');
  t.regex(health.body['last_error'] as string, /^model "synthetic" is not trusted/);
  await add(server, { id: 'synthetic', digest: DIGEST, signatures: SIGNED });
  // The pool looks again by itself.
  await until(() => server.orchestrator.core.pools.get('fast')?.isReady);
  t.like((await server.events(await server.submit())).at(-1), { event: 'end' });
});

test('a verification reads the file, and stamps what came of it', async (t) => {
  const server = await serverOf(t);
  const { file, model } = fileOf(t, 'some weights');
  await add(server, model);
  t.is((await read(server, 'mine')).verification, undefined);
  const before = Date.now();
  const passed = await verified(server, 'mine');
  t.like(passed, { verification: 'pass', local_path: file });
  t.true((passed.last_verified_ms ?? 0) >= before);
  t.regex(
    await metrics(server),
    /catalog_verifications_total\{result="pass",reason="digest_match",engine=""\} 1/,
  );
});

test('a file that was changed fails, its model takes no work, and passes once the file is back', async (t) => {
  const server = await serverOf(t);
  const { file, model } = fileOf(t, 'some weights');
  await add(server, { ...model, id: 'synthetic' });
  t.like(await verified(server, 'synthetic'), { verification: 'pass' });
  writeFileSync(file, 'same weights');
  t.like(await verified(server, 'synthetic'), { verification: 'fail' });
  const refused = await server.post();
  t.is(refused.status, 400);
  t.like(await refused.json(), { code: 'UNTRUSTED_ARTIFACT' });
  t.regex(
    await metrics(server),
    /catalog_verifications_total\{result="fail",reason="digest_mismatch",engine="synthetic"\} 1/,
  );
  writeFileSync(file, 'some weights');
  t.like(await verified(server, 'synthetic'), { verification: 'pass' });
  t.is((await server.post()).status, 202);
});

test('without a file there is only a warning, and a folder has no digest', async (t) => {
  const server = await serverOf(t);
  const { file, model } = fileOf(t, 'x');
  await add(server, { id: 'far', digest: DIGEST, source_url: 'hf:org/repo/a.gguf' });
  await add(server, { id: 'gone', digest: DIGEST, source_url: 'file:/nowhere/a.gguf' });
  await add(server, { id: 'nowhere', digest: DIGEST });
  for (const id of ['far', 'gone', 'nowhere']) {
    t.like(await verified(server, id), { verification: 'warn' });
    t.is((await read(server, id)).local_path, undefined);
  }
  await add(server, { ...model, source_url: `file:${join(file, '..')}` });
  t.like(await verified(server, 'mine'), { verification: 'fail' });
  t.regex(await metrics(server), /result="warn",reason="absent",engine=""\} 3/);
  t.regex(await metrics(server), /result="fail",reason="directory",engine=""\} 1/);
});

test('the event loop is free while a large file is read', async (t) => {
  const server = await serverOf(t);
  const { file, model } = fileOf(t, '');
  const megabyte = Buffer.alloc(1024 * 1024, 'x');
  const hash = createHash('sha256');
  for (let n = 0; n < 200; n++) hash.update(megabyte);
  const { open } = await import('node:fs/promises');
  const handle = await open(file, 'w');
  for (let n = 0; n < 200; n++) await handle.write(megabyte);
  await handle.close();
  await add(server, { ...model, digest: `sha256:${hash.digest('hex')}` });
  const before = performance.eventLoopUtilization();
  const { finished } = await server.orchestrator.catalog.verify('mine');
  t.is(await finished, 'pass');
  const { utilization } = performance.eventLoopUtilization(before);
  t.true(utilization < 0.5, `${utilization}`);
});

test('a state that there is not is a 400, and so is a deadline that is none', async (t) => {
  const server = await serverOf(t);
  await add(server, FULL);
  for (const [body, message] of [
    [{ state: 'Draft' }, /^state: must be one of Active, Retired/],
    [{}, /^state: is required/],
    [{ state: 'Retired', deadline_ms: -1 }, /^deadline_ms: /],
    ['', /^body: /],
  ] as const) {
    const answer = await call(server, 'POST', path(FULL.id, '/state'), body);
    t.is(answer.status, 400, JSON.stringify(body));
    t.regex(answer.body['message'] as string, message);
  }
  t.is((await read(server, FULL.id)).state, 'Active');
});

test('the state of a model is told in its entry and in the metrics', async (t) => {
  const server = await serverOf(t);
  await add(server, FULL);
  t.regex(await metrics(server), /model_state\{model_id="org\/model:Q4",state="Active"\} 1/);
  const answer = await call(server, 'POST', path(FULL.id, '/state'), { state: 'Retired' });
  t.is(answer.status, 202);
  t.deepEqual(answer.body, { status: 'accepted' });
  t.is((await read(server, FULL.id)).state, 'Retired');
  const after = await metrics(server);
  t.regex(after, /model_state\{model_id="org\/model:Q4",state="Retired"\} 1/);
  t.notRegex(after, /model_state\{[^}]*Active/);
});

test('a removed model is gone, and a file that was never fetched stays', async (t) => {
  const server = await serverOf(t);
  const { file, model } = fileOf(t, 'mine');
  await add(server, model);
  const removed = new Promise((resolve) =>
    server.orchestrator.observe((observation) => {
      if (observation.type === 'model.removed') resolve(observation);
    }),
  );
  t.is((await call(server, 'DELETE', path('mine'))).status, 204);
  t.like(await removed, { model_id: 'mine', files: 'kept' } as object);
  t.is((await call(server, 'GET', path('mine'))).status, 404);
  t.is((await call(server, 'DELETE', path('mine'))).status, 404);
  t.is(readFileSync(file, 'utf8'), 'mine');
});
