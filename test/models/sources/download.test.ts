import { existsSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import { sha256, type BodyFault } from '../../helpers/fake-registry.ts';
import { SimulatedClock } from '../../helpers/simulated-clock.ts';
import { until } from '../../helpers/until.ts';
import { createSourceRig, FAST, gguf, provisionWith } from './rig.ts';

const SIZE = 200_000;
const MODEL = gguf(SIZE);
const REFERENCE = 'hf:org/repo/a.gguf';
const NEVER = new AbortController().signal;

/** Faults one after the other, then none. */
function inTurn(faults: readonly BodyFault[]): () => BodyFault | undefined {
  const left = [...faults];
  return () => left.shift();
}

for (const tenth of [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
  test(`cut after ${tenth} tenths, it goes on where it was`, async (t) => {
    const { registry, provision } = await createSourceRig(t);
    registry.addRepository('org/repo', { 'a.gguf': MODEL });
    const at = (SIZE / 10) * tenth;
    registry.fault = inTurn([{ cut_after: at }]);
    const model = await provision(REFERENCE);
    t.deepEqual(readFileSync(model.path), MODEL);
    t.deepEqual(registry.offsets(), [0, at]);
    t.like(model, { digest: `sha256:${sha256(MODEL)}`, verification: 'pass' });
  });

test('wherever and however often it is cut, the bytes are right and none came twice', async (t) => {
  const { registry, library } = await createSourceRig(t);
  let run = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(fc.integer({ min: SIZE / 50, max: SIZE }), { maxLength: 5 }), async (cuts) => {
      const name = `m${run++}.gguf`;
      const bytes = gguf(SIZE, run);
      const url = registry.addFile(name, bytes);
      registry.seen.length = 0;
      // The first request only asks what there is.
      registry.fault = inTurn([{}, ...cuts.map((cut_after) => ({ cut_after }))]);
      const model = await provisionWith(library(), url);
      t.deepEqual(readFileSync(model.path), bytes);
      t.is(model.digest, `sha256:${sha256(bytes)}`);
      const [, ...offsets] = registry.offsets('hub');
      t.deepEqual(
        offsets,
        offsets.toSorted((a, b) => a - b),
      );
      t.is(new Set(offsets).size, offsets.length);
    }),
    { numRuns: 30 },
  );
});

test('a body that ends early and says that this was all is gone on with', async (t) => {
  const { registry, provision } = await createSourceRig(t);
  registry.addRepository('org/repo', { 'a.gguf': MODEL });
  registry.fault = inTurn([{ end_after: SIZE / 2 }]);
  await t.notThrowsAsync(provision(REFERENCE));
  t.is(registry.requests('storage').length, 2);
});

test('a server that falls silent in the middle is left, and asked again', async (t) => {
  const { registry, provision } = await createSourceRig(t);
  registry.addRepository('org/repo', { 'a.gguf': MODEL });
  registry.fault = inTurn([{ stall_after: SIZE / 4 }]);
  const model = await provision(REFERENCE, { stall_ms: 200 });
  t.deepEqual(readFileSync(model.path), MODEL);
  // On a busy machine it may seem silent more than once.
  t.deepEqual([...new Set(registry.offsets())], [0, SIZE / 4]);
});

test('a server without ranges is asked for all of it again', async (t) => {
  const { registry, provision } = await createSourceRig(t);
  registry.addRepository('org/repo', { 'a.gguf': MODEL });
  registry.fault = inTurn([{ cut_after: SIZE / 2 }, { ignores_range: true }]);
  const model = await provision(REFERENCE);
  t.deepEqual(readFileSync(model.path), MODEL);
  t.is(registry.requests('storage').length, 2);
});

test('a file that changed between two parts is begun anew', async (t) => {
  const { registry, provision } = await createSourceRig(t);
  const url = registry.addFile('a.gguf', MODEL);
  const changed = gguf(SIZE + 5, 7);
  registry.fault = inTurn([{}, { cut_after: SIZE / 2 }, { body: changed }, { body: changed }]);
  const model = await provision(url);
  t.deepEqual(readFileSync(model.path), changed);
  t.is(registry.requests('hub').at(-1)?.headers['if-range'], `"${sha256(MODEL).slice(0, 16)}"`);
  t.is(model.verification, 'warn');
});

test('a server that goes on with another file all the same is not believed', async (t) => {
  const { registry, provision } = await createSourceRig(t);
  registry.addRepository('org/repo', { 'a.gguf': MODEL });
  registry.fault = inTurn([
    { cut_after: SIZE / 2 },
    // It takes the old tag for its own, and answers with a new one.
    { body: gguf(SIZE, 9), headers: { etag: '"new"' }, etag: `"${sha256(MODEL).slice(0, 16)}"` },
  ]);
  const model = await provision(REFERENCE);
  t.deepEqual(readFileSync(model.path), MODEL);
  t.deepEqual(registry.offsets(), [0, SIZE / 2, 0]);
});

test('signed addresses that expire in the middle are signed again, and it goes on', async (t) => {
  const { registry, provision } = await createSourceRig(t);
  registry.uses_of_address = 1;
  registry.addRepository('org/repo', { 'a.gguf': MODEL });
  registry.fault = inTurn([{ cut_after: SIZE / 2 }, { status: 403 }, { cut_after: SIZE / 4 }]);
  const model = await provision(REFERENCE);
  t.deepEqual(readFileSync(model.path), MODEL);
  t.deepEqual(registry.offsets(), [0, SIZE / 2, SIZE / 2, (SIZE / 4) * 3]);
  const signatures = registry.requests('storage').map(({ path }) => path.split('=')[1]);
  t.is(new Set(signatures).size, 4);
});

for (const [how, fault, code] of [
  ['other bytes', { body: gguf(SIZE, 5) }, 'UNTRUSTED_ARTIFACT'],
  ['a byte too many', { body: gguf(SIZE + 1) }, 'POOL_UNAVAILABLE'],
] as const)
  test(`${how} than the hub promised are thrown away`, async (t) => {
    const { registry, provision, cache_dir, provenance } = await createSourceRig(t);
    const commit = registry.addRepository('org/repo', { 'a.gguf': MODEL });
    registry.fault = () => fault;
    const error = await t.throwsAsync(provision(REFERENCE));
    t.is((error as unknown as { code: string }).code, code);
    const path = join(cache_dir, 'hf/org/repo', commit, 'a.gguf');
    t.false(existsSync(path));
    if (code === 'UNTRUSTED_ARTIFACT') {
      t.false(existsSync(`${path}.part`));
      t.like(provenance().at(-1), { outcome: 'fail' });
      t.regex(String(error), /has the digest sha256:[0-9a-f]{64}, but sha256:[0-9a-f]{64} was promised/);
    }
    registry.fault = () => undefined;
    t.is((await provision(REFERENCE)).verification, 'pass');
  });

test('a checksum decides where the origin tells none, and against the origin where it does', async (t) => {
  const { registry, provision } = await createSourceRig(t);
  const url = registry.addFile('a.gguf', MODEL);
  registry.addRepository('org/repo', { 'a.gguf': MODEL });
  const right = `sha256:${sha256(MODEL)}`;
  const wrong = `sha256:${'0'.repeat(64)}`;
  await t.throwsAsync(provision(url, { checksum: wrong }), { message: /was promised; it was deleted/ });
  await t.throwsAsync(provision(REFERENCE, { checksum: wrong }), { message: /at its origin, checksum says/ });
  t.is(registry.requests('storage').length, 0);
  t.is((await provision(url)).verification, 'warn');
  t.is((await provision(url, { checksum: right })).verification, 'pass');
  t.is((await provision(REFERENCE, { checksum: right })).verification, 'pass');
  for (const reference of [url, REFERENCE])
    t.like(await t.throwsAsync(provision(reference, { checksum: wrong }), { message: /checksum says/ }), {
      code: 'UNTRUSTED_ARTIFACT',
    });
});

test('a checksum holds for a file of this machine too', async (t) => {
  const { provision, folder } = await createSourceRig(t);
  const path = join(folder, 'mine.gguf');
  writeFileSync(path, MODEL);
  const right = `sha256:${sha256(MODEL)}`;
  t.like(await provision(`file:${path}`, { checksum: right }), { digest: right, verification: 'pass' });
  await t.throwsAsync(provision(path, { checksum: `sha256:${'1'.repeat(64)}` }), {
    message: /checksum says/,
  });
  t.true(existsSync(path));
  t.is((await provision(path)).verification, 'warn');
});

test('a part that was damaged meanwhile is begun anew instead of being refused', async (t) => {
  const { registry, provision, cache_dir } = await createSourceRig(t);
  const commit = registry.addRepository('org/repo', { 'a.gguf': MODEL });
  registry.fault = inTurn([{ cut_after: SIZE / 2 }, ...Array.from({ length: 4 }, () => ({ cut_after: 0 }))]);
  await t.throwsAsync(provision(REFERENCE), { message: /broke the connection off/ });
  const part = join(cache_dir, 'hf/org/repo', commit, 'a.gguf.part');
  t.is(statSync(part).size, SIZE / 2);
  writeFileSync(part, gguf(SIZE / 2, 3));
  t.is((await provision(REFERENCE)).verification, 'pass');
  t.deepEqual(registry.offsets().slice(-2), [SIZE / 2, 0]);
});

test('a wait that a server asks for is kept to, and others vary at random', async (t) => {
  const { registry, library } = await createSourceRig(t);
  const url = registry.addFile('a.gguf', MODEL);
  const clock = new SimulatedClock();
  const source = library({
    clock,
    random: () => 0.5,
    retry: { ...FAST, base_ms: 100, cap_ms: 300 },
  }).source();
  registry.fault = inTurn([
    { status: 429, headers: { 'retry-after': '7' } },
    { status: 503 },
    { status: 429, headers: { ratelimit: '"api";r=0;t=3' } },
  ]);
  const resolved = source.resolve(url, NEVER);
  for (const [ms, asked] of [
    [7000, 1],
    [100, 2],
    [3000, 3],
  ] as const) {
    await until(() => clock.pending === 1);
    t.is(registry.seen.length, asked);
    clock.advance(ms - 1);
    t.is(clock.pending, 1);
    clock.advance(1);
  }
  t.is((await resolved).present, false);
  t.is(registry.seen.length, 4);
  t.is(clock.pending, 0);
});

test('after four tries in vain it is told what went wrong, and when to come again', async (t) => {
  const { registry, provision } = await createSourceRig(t);
  const url = registry.addFile('a.gguf', MODEL);
  registry.fault = () => ({ status: 503, headers: { 'retry-after': '0' } });
  const error = await t.throwsAsync(provision(url), { message: /^127\.0\.0\.1:\d+ answered 503$/ });
  t.like(error, { failure: { code: 'POOL_UNAVAILABLE', retriable: true, retry_after_ms: 0 } });
  t.is(registry.seen.length, 4);
});

for (const status of [400, 401, 403, 404, 422])
  test(`a ${status} is meant, and not asked for twice`, async (t) => {
    const { registry, provision } = await createSourceRig(t);
    const url = registry.addFile('a.gguf', MODEL);
    registry.fault = () => ({ status });
    t.like(await t.throwsAsync(provision(url)), { failure: { retriable: false } });
    t.is(registry.seen.length, 1);
  });

test('more than five redirects, and one to plain HTTP elsewhere, are refused', async (t) => {
  const { registry, provision } = await createSourceRig(t);
  registry.addRepository('org/repo', { 'a.gguf': MODEL });
  registry.redirect = () => '/org/repo/resolve/main/a.gguf';
  await t.throwsAsync(provision(REFERENCE), { message: /redirects more than 5 times/ });
  registry.redirect = (path) => `http://storage.example${path}`;
  await t.throwsAsync(provision(REFERENCE), {
    message: /redirects from https to http:\/\/, which is refused/,
  });
  registry.redirect = () => 'file:///etc/passwd';
  await t.throwsAsync(provision(REFERENCE), { message: /which is refused/ });
});

test('a caller who gives up ends the fetch, and the next one goes on with what is there', async (t) => {
  const { registry, library, cache_dir } = await createSourceRig(t);
  const commit = registry.addRepository('org/repo', { 'a.gguf': MODEL });
  registry.fault = inTurn([{ stall_after: SIZE / 2 }]);
  const stop = new AbortController();
  const shared = library();
  const given_up = provisionWith(shared, REFERENCE, {}, undefined, stop.signal);
  const part = join(cache_dir, 'hf/org/repo', commit, 'a.gguf.part');
  await until(() => statSync(part, { throwIfNoEntry: false })?.size === SIZE / 2);
  stop.abort(new Error('no longer'));
  await t.throwsAsync(given_up, { message: 'no longer' });
  t.deepEqual(readFileSync((await provisionWith(shared, REFERENCE)).path), MODEL);
  t.deepEqual(registry.offsets(), [0, SIZE / 2]);
});

test('two who want the same share one fetch, and one of them may leave', async (t) => {
  const { registry, library } = await createSourceRig(t);
  registry.addRepository('org/repo', { 'a.gguf': MODEL });
  const shared = library();
  const stop = new AbortController();
  const [left, ...stayed] = await Promise.allSettled([
    provisionWith(shared, REFERENCE, {}, () => stop.abort(new Error('left')), stop.signal),
    provisionWith(shared, REFERENCE),
    provisionWith(shared, REFERENCE),
  ]);
  t.is(left.status, 'rejected');
  t.deepEqual(
    stayed.map(({ status }) => status),
    ['fulfilled', 'fulfilled'],
  );
  t.is(registry.requests('storage').length, 1);
});

test('nothing is written through a link that somebody put into the cache', async (t) => {
  const { registry, provision, cache_dir, folder } = await createSourceRig(t);
  const commit = registry.addRepository('org/repo', { 'a.gguf': MODEL });
  const path = join(cache_dir, 'hf/org/repo', commit, 'a.gguf');
  const outside = join(folder, 'outside');
  mkdirSync(outside);
  writeFileSync(join(outside, 'precious'), 'mine');
  mkdirSync(dirname(path), { recursive: true });
  symlinkSync(join(outside, 'precious'), `${path}.part`);
  await t.throwsAsync(provision(REFERENCE), {
    message: /^models\.cache_dir has a link where a file should go/,
  });
  t.is(readFileSync(join(outside, 'precious'), 'utf8'), 'mine');

  registry.addRepository('org/other', { 'a.gguf': MODEL });
  symlinkSync(outside, join(cache_dir, 'hf/org/other'));
  await t.throwsAsync(provision('hf:org/other/a.gguf'), {
    message: /has a link where a model’s folder should be/,
  });
});

test('a cache folder that is itself a link is a folder like any other', async (t) => {
  const { registry, provision, folder } = await createSourceRig(t);
  registry.addRepository('org/repo', { 'a.gguf': MODEL });
  mkdirSync(join(folder, 'disk'));
  symlinkSync(join(folder, 'disk'), join(folder, 'linked'));
  t.is((await provision(REFERENCE, { cache_dir: join(folder, 'linked') })).verification, 'pass');
});

test('a cached file that somebody wrote to is hashed again, and fetched again where it is another', async (t) => {
  const { registry, provision } = await createSourceRig(t);
  registry.addRepository('org/repo', { 'a.gguf': MODEL });
  const { path } = await provision(REFERENCE);
  writeFileSync(path, MODEL);
  t.is((await provision(REFERENCE)).verification, 'pass');
  t.is(registry.requests('storage').length, 1);
  writeFileSync(path, gguf(SIZE, 4));
  await t.throwsAsync(provision(REFERENCE), {
    message: /not whole in the cache any more; it is fetched again/,
  });
  t.deepEqual(readFileSync((await provision(REFERENCE)).path), MODEL);
});
