import { readFileSync } from 'node:fs';
import test from 'ava';
import { sha256 } from '../../helpers/fake-registry.ts';
import { createSourceRig, gguf } from './rig.ts';

const GGUF = 'application/vnd.docker.ai.gguf.v3';
const MODEL = gguf(60_000);

test('the layer that is a GGUF is fetched with a token, which goes to the registry only', async (t) => {
  const { registry, provision } = await createSourceRig(t);
  const digest = registry.addImage('ai/small', 'v1', [
    { bytes: Buffer.from('license'), media_type: 'application/vnd.docker.ai.license' },
    { bytes: gguf(100), media_type: `${GGUF}.mmproj` },
    { bytes: MODEL, media_type: GGUF },
  ]);
  const model = await provision(`oci://${registry.host}/ai/small:v1`);
  t.deepEqual(readFileSync(model.path), MODEL);
  t.true(model.path.endsWith('/model.gguf'));
  t.like(model, { digest: `sha256:${sha256(MODEL)}`, revision: digest, verification: 'pass' });
  const [token] = registry.requests('hub', /^\/token/);
  t.regex(token?.path ?? '', /service=fake&scope=repository%3Aai%2Fsmall%3Apull$/);
  t.is(registry.requests('hub', /^\/token/).length, 1);
  t.true(registry.requests('storage').every(({ headers }) => headers.authorization === undefined));
});

test('a tag and the digest behind it are the same model; an index leads to it', async (t) => {
  const { registry, provision } = await createSourceRig(t);
  const digest = registry.addImage('small', 'v1', [{ bytes: MODEL, media_type: GGUF }]);
  registry.addIndex('small', 'any', digest);
  const paths = [];
  for (const end of [':v1', `@${digest}`, ':any'])
    paths.push((await provision(`oci://${registry.host}/small${end}`)).path);
  t.is(new Set(paths).size, 1);
  t.is(registry.requests('storage').length, 1);
});

test('a token that expires in the middle is renewed, and the fetch goes on', async (t) => {
  const { registry, provision } = await createSourceRig(t);
  registry.addImage('small', 'v1', [{ bytes: MODEL, media_type: GGUF }]);
  let files = 0;
  registry.fault = () => {
    if (files++ > 0) return undefined;
    registry.expireTokens();
    return { cut_after: MODEL.length / 2 };
  };
  const model = await provision(`oci://${registry.host}/small:v1`);
  t.deepEqual(readFileSync(model.path), MODEL);
  t.deepEqual(registry.offsets(), [0, MODEL.length / 2]);
  t.is(registry.requests('hub', /^\/token/).length, 2);
});

test('layers are parts in the order of the manifest, or by their titles', async (t) => {
  const { registry, provision } = await createSourceRig(t);
  const parts = [gguf(100, 1), gguf(200, 2)];
  registry.addImage(
    'split',
    'plain',
    parts.map((bytes) => ({ bytes, media_type: GGUF })),
  );
  registry.addImage(
    'split',
    'titled',
    parts
      .map((bytes, at) => ({ bytes, media_type: 'x/y', title: `m-0000${at + 1}-of-00002.gguf` }))
      .toReversed(),
  );
  for (const [tag, name] of [
    ['plain', 'model'],
    ['titled', 'm'],
  ]) {
    const { path } = await provision(`oci://${registry.host}/split:${tag}`);
    t.true(path.endsWith(`/${name}-00001-of-00002.gguf`));
    t.deepEqual(readFileSync(path), parts[0]);
    t.deepEqual(readFileSync(path.replace('00001-of', '00002-of')), parts[1]);
  }
});

for (const [what, layers, code, message] of [
  [
    'a title that leads out of its folder',
    [{ bytes: MODEL, media_type: 'x/y', title: '../../escaped.gguf' }],
    'UNTRUSTED_ARTIFACT',
    /leads out of its folder/,
  ],
  ['no GGUF', [{ bytes: MODEL, media_type: 'x/y' }], 'POOL_UNAVAILABLE', /small has no layer that is a GGUF/],
  [
    'several GGUFs',
    [
      { bytes: MODEL, media_type: 'x/y', title: 'a.gguf' },
      { bytes: gguf(100), media_type: 'x/y', title: 'b.gguf' },
    ],
    'POOL_UNAVAILABLE',
    /has several GGUFs \(a\.gguf, b\.gguf\); give a tag that has one/,
  ],
] as const)
  test(`${what} is refused`, async (t) => {
    const { registry, provision } = await createSourceRig(t);
    registry.addImage('small', 'v1', [...layers]);
    t.like(await t.throwsAsync(provision(`oci://${registry.host}/small:v1`), { message }), {
      failure: { code, retriable: false },
    });
  });

test('a tag that there is not is named', async (t) => {
  const { registry, provision } = await createSourceRig(t);
  await t.throwsAsync(provision(`oci://${registry.host}/small:v2`), { message: /has no small:v2$/ });
});
