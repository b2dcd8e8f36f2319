import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { sha256 } from '../../helpers/fake-registry.ts';
import { createSourceRig, gguf } from './rig.ts';

const MODEL = gguf(50_000);
const TOKEN = 'hf_a-secret';

test('a file of a repository is fetched, held against its digest, and noted', async (t) => {
  const { registry, provision, provenance, cache_dir } = await createSourceRig(t);
  const commit = registry.addRepository('org/repo', {
    'sub/model.gguf': MODEL,
    'README.md': Buffer.from('x'),
  });
  const model = await provision('hf:org/repo/sub/model.gguf');
  t.is(model.path, join(cache_dir, 'hf/org/repo', commit, 'sub/model.gguf'));
  t.like(model, {
    id: 'hf:org/repo/sub/model.gguf',
    size_bytes: MODEL.length,
    digest: `sha256:${sha256(MODEL)}`,
    revision: commit,
    verification: 'pass',
  });
  t.deepEqual(readFileSync(model.path), MODEL);
  t.false(existsSync(`${model.path}.part`) || existsSync(`${model.path}.part.json`));
  const [line, ...rest] = provenance();
  t.deepEqual(rest, []);
  t.deepEqual(Object.keys(line ?? {}), [
    'ts_ms',
    'model_id',
    'path',
    'size_bytes',
    'revision',
    'digest',
    'outcome',
  ]);
  t.like(line, { model_id: model.id, path: model.path, revision: commit, outcome: 'pass' });
});

test('what is here is used without asking anybody', async (t) => {
  const { registry, provision, library } = await createSourceRig(t);
  registry.addRepository('org/repo', { 'model.gguf': MODEL });
  const reference = 'hf:org/repo/model.gguf';
  t.is(await library().source().locate(reference), undefined);
  const first = await provision(reference);
  const asked = registry.seen.length;
  const offline = { offline: true, auto_fetch: false, allowlist: ['nowhere.example'] };
  t.deepEqual(await provision(reference, { policy: offline }), first);
  t.is(await library({ policy: offline }).source().locate(reference), first.path);
  t.is(registry.seen.length, asked);
});

test('a branch that moved is another version; one that is named by its commit stays', async (t) => {
  const { registry, provision } = await createSourceRig(t);
  const old = registry.addRepository('org/repo', { 'model.gguf': MODEL });
  registry.addRepository('org/repo', { 'model.gguf': gguf(1000, 2) });
  registry.addRepository('org/repo', { 'model.gguf': gguf(2000, 3) }, { revision: 'refs/pr/1' });
  t.is((await provision('hf:org/repo/model.gguf')).size_bytes, 1000);
  t.is((await provision(`hf:org/repo/model.gguf@${old}`)).size_bytes, MODEL.length);
  t.is((await provision('hf:org/repo/model.gguf@refs/pr/1')).size_bytes, 2000);
});

const QUANTS = {
  'Repo-Q4_K_M.gguf': gguf(100, 1),
  'Repo-Q4_K.gguf': gguf(200, 2),
  'Repo-IQ4_XS.gguf': gguf(300, 3),
  'mmproj-Q4_K_M.gguf': gguf(400, 4),
  'big/Repo-Q8_0-00001-of-00003.gguf': gguf(500, 5),
  'big/Repo-Q8_0-00002-of-00003.gguf': gguf(600, 6),
  'big/Repo-Q8_0-00003-of-00003.gguf': gguf(700, 7),
  'BF16/Repo.gguf': gguf(800, 8),
  'Repo-Q2_K-00001-of-00002.gguf': gguf(900, 9),
};

for (const [quant, name, size] of [
  ['Q4_K_M', 'Repo-Q4_K_M.gguf', 100],
  ['q4_k', 'Repo-Q4_K.gguf', 200],
  ['IQ4_XS', 'Repo-IQ4_XS.gguf', 300],
  ['BF16', 'BF16/Repo.gguf', 800],
] as const)
  test(`the one GGUF of quantisation ${quant} is found`, async (t) => {
    const { registry, provision } = await createSourceRig(t);
    registry.page_size = 2;
    registry.addRepository('org/repo', QUANTS);
    const model = await provision(`hf:org/repo:${quant}`);
    t.true(model.path.endsWith(`/${name}`));
    t.is(model.size_bytes, size);
  });

for (const reference of ['hf:org/repo:Q8_0', 'hf:org/repo/big/Repo-Q8_0-00001-of-00003.gguf'])
  test(`all parts come with ${reference}, and the first one is what the engine is given`, async (t) => {
    const { registry, provision } = await createSourceRig(t);
    registry.addRepository('org/repo', QUANTS);
    const model = await provision(reference);
    t.true(model.path.endsWith('/big/Repo-Q8_0-00001-of-00003.gguf'));
    t.is(model.size_bytes, 1800);
    for (const part of [1, 2, 3])
      t.deepEqual(
        readFileSync(model.path.replace('00001', `0000${part}`)),
        QUANTS[`big/Repo-Q8_0-0000${part as 1}-of-00003.gguf`],
      );
  });

test('two references to the same file are fetched once', async (t) => {
  const { registry, provision } = await createSourceRig(t);
  registry.addRepository('org/repo', QUANTS);
  const one = await provision('hf:org/repo:Q4_K_M');
  const other = await provision('hf:org/repo/Repo-Q4_K_M.gguf');
  t.is(one.path, other.path);
  t.is(registry.requests('storage').length, 1);
});

test('a whole repository comes as a folder, where the engine wants one', async (t) => {
  const { registry, provision } = await createSourceRig(t);
  const files = {
    'config.json': Buffer.from('{}'),
    'sub/tokenizer.json': Buffer.from('{"a":1}'),
    'model.safetensors': gguf(9000),
    'empty.txt': Buffer.alloc(0),
    '.gitattributes': Buffer.from('x'),
  };
  registry.addRepository('org/repo', files);
  const model = await provision('hf:org/repo', { form: 'folder' });
  for (const [name, bytes] of Object.entries(files))
    if (name === '.gitattributes') t.false(existsSync(join(model.path, name)));
    else t.deepEqual(readFileSync(join(model.path, name)), bytes);
  // Files that are in git itself have no sha256.
  t.is(model.verification, 'warn');
  await t.throwsAsync(provision('hf:org/repo'), {
    message: /is a whole repository; this engine takes one GGUF/,
  });
});

for (const [reference, message] of [
  ['hf:org/repo:Q5_K_M', /has no GGUF of quantisation Q5_K_M; it has Q4_K_M, Q4_K, IQ4_XS, Q8_0, BF16$/],
  ['hf:org/repo:Q2_K', /has no GGUF of quantisation Q2_K/],
  ['hf:org/repo/Repo-Q2_K-00001-of-00002.gguf', /does not have all 2 parts/],
  ['hf:org/repo/other.gguf', /org\/repo has no file other\.gguf; it has Q4_K_M/],
  ['hf:org/repo:Q4_K_M@v9', /org\/repo has no revision v9/],
  ['hf:org/other/a.gguf', /has no public repository org\/other; set HF_TOKEN if it is a private one/],
  ['hf:org/gated/a.gguf', /org\/gated is gated: accept its terms on .*, and set HF_TOKEN/],
] as const)
  test(`${reference} is refused for good, and the cause named`, async (t) => {
    const { registry, provision } = await createSourceRig(t);
    registry.addRepository('org/repo', QUANTS);
    registry.addRepository('org/gated', { 'a.gguf': MODEL }, { gated: true });
    const error = await t.throwsAsync(provision(reference), { message });
    t.like(error, { failure: { code: 'POOL_UNAVAILABLE', retriable: false } });
  });

test('the token goes to the hub, and to nobody else', async (t) => {
  const { registry, provision } = await createSourceRig(t);
  registry.addRepository('org/private', { 'a.gguf': MODEL }, { token: TOKEN });
  const hub = { endpoint: registry.url, token: TOKEN };
  t.is((await provision('hf:org/private/a.gguf', { hub })).verification, 'pass');
  t.true(registry.requests('hub').every(({ headers }) => headers.authorization === `Bearer ${TOKEN}`));
  t.true(registry.requests('storage').length > 0);
  t.true(registry.requests('storage').every(({ headers }) => headers.authorization === undefined));
});

test('the token is in no message', async (t) => {
  const { registry, provision } = await createSourceRig(t);
  registry.addRepository('org/private', { 'a.gguf': MODEL }, { token: 'another' });
  const hub = { endpoint: registry.url, token: TOKEN };
  const error = await t.throwsAsync(provision(`hf:org/private/${TOKEN}.gguf`, { hub }), {
    message: /has no repository org\/private that HF_TOKEN may read/,
  });
  t.false(String(error).includes(TOKEN));
  registry.addRepository('org/open', { 'a.gguf': MODEL });
  const named = await t.throwsAsync(provision(`hf:org/open/${TOKEN}.gguf`, { hub }), {
    message: /has no file \*\*\*/,
  });
  t.false(String(named).includes(TOKEN));
});

test('a repository whose file names lead out of it is not trusted', async (t) => {
  const { registry, provision, folder } = await createSourceRig(t);
  registry.addRepository('org/repo', { '../../../../escaped-Q4_0.gguf': MODEL });
  for (const [reference, form] of [
    ['hf:org/repo:Q4_0', 'gguf'],
    ['hf:org/repo', 'folder'],
  ] as const) {
    const error = await t.throwsAsync(provision(reference, { form }), { message: /leads out of its folder/ });
    t.like(error, { code: 'UNTRUSTED_ARTIFACT' });
  }
  t.false(existsSync(join(folder, '../escaped-Q4_0.gguf')));
});

test('progress is told by phase, never backwards, and to the end', async (t) => {
  const { registry, provision } = await createSourceRig(t);
  registry.addRepository('org/repo', { 'a.gguf': MODEL });
  const told: [phase: string, done: number, total: number | undefined][] = [];
  await provision('hf:org/repo/a.gguf', {}, ({ phase, bytes_done, bytes_total }) =>
    told.push([phase, bytes_done, bytes_total]),
  );
  t.deepEqual(told[0], ['fetching', 0, MODEL.length]);
  t.deepEqual(told.at(-1), ['fetching', MODEL.length, MODEL.length]);
  t.deepEqual(
    told,
    told.toSorted(([, a], [, b]) => a - b),
  );
});
