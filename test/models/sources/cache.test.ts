import { existsSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { SimulatedClock } from '../../helpers/simulated-clock.ts';
import { until } from '../../helpers/until.ts';
import { createSourceRig, gguf, POLICY, provisionWith, type SourceRig } from './rig.ts';

const NEVER = new AbortController().signal;

/** Models of 1000 bytes, each fetched by a process of its own that is over, a second after the one before. */
async function withModels(t: ExecutionContext, names: readonly string[]) {
  const rig = await createSourceRig(t);
  const clock = new SimulatedClock();
  const use = async (name: string, options: Parameters<SourceRig['library']>[0] = {}) => {
    clock.advance(1000);
    const library = rig.library({ clock, ...options });
    const { path } = await provisionWith(library, `hf:org/${name}/m.gguf`);
    await library.close();
    return path;
  };
  const paths: Record<string, string> = {};
  for (const [at, name] of names.entries()) {
    rig.registry.addRepository(`org/${name}`, { 'm.gguf': gguf(1000, at) });
    paths[name] = await use(name);
  }
  const left = () => names.filter((name) => existsSync(paths[name] ?? ''));
  return { ...rig, clock, use, left };
}

test('what was not used for longest goes first, and no more than has to', async (t) => {
  const { registry, use, left, cache_dir } = await withModels(t, ['a', 'b', 'c', 'd']);
  await use('a');
  await use('c');
  registry.addRepository('org/new', { 'm.gguf': gguf(1000, 9) });
  await use('new', { max_bytes: 3000 });
  t.deepEqual(left(), ['a', 'c']);
  t.deepEqual(readdirSync(join(cache_dir, 'hf/org')).toSorted(), ['a', 'c', 'new']);
  registry.addRepository('org/larger', { 'm.gguf': gguf(1500, 9) });
  await use('larger', { max_bytes: 3000 });
  t.deepEqual(left(), []);
  t.deepEqual(readdirSync(join(cache_dir, 'hf/org')).toSorted(), ['larger', 'new']);
});

test('a model that was evicted is fetched again', async (t) => {
  const { registry, use, left } = await withModels(t, ['a', 'b']);
  registry.addRepository('org/new', { 'm.gguf': gguf(1000, 9) });
  await use('new', { max_bytes: 2000 });
  t.deepEqual(left(), ['b']);
  await use('a', { max_bytes: 2000 });
  t.deepEqual(left(), ['a']);
});

test('what somebody uses is never evicted, and it is told which setting is in the way', async (t) => {
  const { registry, library, use, left } = await withModels(t, ['a', 'b']);
  // Another process, as far as locks go.
  const user = library();
  await provisionWith(user, 'hf:org/a/m.gguf');
  registry.addRepository('org/new', { 'm.gguf': gguf(1000, 9) });
  registry.addRepository('org/more', { 'm.gguf': gguf(1500, 9) });
  await use('new', { max_bytes: 2000 });
  t.deepEqual(left(), ['a']);
  const error = await t.throwsAsync(use('more', { max_bytes: 2000 }), {
    message: /^models\.max_bytes \(2000\) is taken up by models in use \(1000 bytes\)/,
  });
  t.like(error, { failure: { code: 'POOL_UNAVAILABLE', retriable: true } });
  await user.close();
  await use('more', { max_bytes: 2000 });
  t.deepEqual(left(), []);
});

test('what is being fetched is never evicted', async (t) => {
  const { registry, library, use, cache_dir } = await withModels(t, ['a']);
  const commit = registry.addRepository('org/slow', { 'm.gguf': gguf(1000, 5) });
  registry.addRepository('org/new', { 'm.gguf': gguf(1000, 9) });
  const faults = [{ stall_after: 500 }];
  registry.fault = () => faults.shift();
  const stop = new AbortController();
  const slow = provisionWith(library(), 'hf:org/slow/m.gguf', {}, undefined, stop.signal);
  const part = join(cache_dir, 'hf/org/slow', commit, 'm.gguf.part');
  await until(() => statSync(part, { throwIfNoEntry: false })?.size === 500);
  await use('new', { max_bytes: 1500 });
  t.true(existsSync(part));
  stop.abort(new Error('enough'));
  await t.throwsAsync(slow, { message: 'enough' });
  await use('a', { max_bytes: 1000 });
  // Given up, it is worth no more than others.
  t.false(existsSync(part));
});

test('a model larger than the whole cache is refused before anything is fetched or evicted', async (t) => {
  const { registry, use, left } = await withModels(t, ['a']);
  registry.addRepository('org/huge', { 'm.gguf': gguf(5000) });
  const before = registry.requests('storage').length;
  const error = await t.throwsAsync(use('huge', { max_bytes: 4000 }), {
    message: /has 5000 bytes, models\.max_bytes allows 4000 for all of them; raise it/,
  });
  t.like(error, { failure: { retriable: false } });
  t.is(registry.requests('storage').length, before);
  t.deepEqual(left(), ['a']);
});

test('a disk without room is told before anything is fetched, and what is there counts', async (t) => {
  const { registry, provision } = await createSourceRig(t);
  registry.addRepository('org/repo', { 'm.gguf': gguf(10_000) });
  let free = 10_000;
  const options = { free_space: async () => free, reserve_bytes: 1000 };
  const error = await t.throwsAsync(provision('hf:org/repo/m.gguf', options), {
    message: /models\.cache_dir has 10000 bytes free; the model needs 10000 more, and 1000 stay free/,
  });
  t.like(error, { failure: { code: 'POOL_UNAVAILABLE', retriable: true } });
  t.is(registry.requests('storage').length, 0);
  const cuts = [{ cut_after: 4000 }, { cut_after: 0 }, { cut_after: 0 }, { cut_after: 0 }, { cut_after: 0 }];
  registry.fault = () => cuts.shift();
  free = 11_000;
  await t.throwsAsync(provision('hf:org/repo/m.gguf', options), { message: /broke the connection off/ });
  free = 7000;
  t.is((await provision('hf:org/repo/m.gguf', options)).verification, 'pass');
});

for (const [key, policy, message] of [
  ['policy.offline', { offline: true }, /is not on this machine, and policy\.offline forbids to fetch it/],
  ['policy.auto_fetch', { auto_fetch: false }, /and policy\.auto_fetch: false forbids to fetch it/],
  [
    'policy.allowlist',
    { allowlist: ['example.org'] },
    /^policy\.allowlist does not have the host 127\.0\.0\.1:\d+; add it there/,
  ],
] as const)
  test(`${key} is kept to, and named`, async (t) => {
    const { registry, provision } = await createSourceRig(t);
    registry.addRepository('org/repo', { 'm.gguf': gguf(1000) });
    const url = registry.addFile('m.gguf', gguf(1000));
    for (const reference of ['hf:org/repo/m.gguf', url, `oci://${registry.host}/a:v1`])
      t.like(await t.throwsAsync(provision(reference, { policy: { ...POLICY, ...policy } }), { message }), {
        failure: { code: 'POOL_UNREADY', retriable: false },
      });
    t.deepEqual(registry.seen, []);
  });

test('the allow-list holds for redirects too', async (t) => {
  const { registry, provision } = await createSourceRig(t);
  registry.addRepository('org/repo', { 'm.gguf': gguf(1000) });
  const allowed = (...allowlist: string[]) => ({ policy: { ...POLICY, allowlist } });
  await t.throwsAsync(provision('hf:org/repo/m.gguf', allowed('127.0.0.1')), {
    message: /does not have the host localhost:\d+/,
  });
  t.is(registry.requests('storage').length, 0);
  t.is((await provision('hf:org/repo/m.gguf', allowed(registry.host, 'LOCALHOST'))).verification, 'pass');
});

test('an index that cannot be read is as good as none', async (t) => {
  const { registry, provision, cache_dir, library } = await createSourceRig(t);
  registry.addRepository('org/repo', { 'm.gguf': gguf(1000) });
  await provision('hf:org/repo/m.gguf');
  for (const kind of ['entries', 'refs'])
    for (const name of readdirSync(join(cache_dir, 'index', kind)))
      writeFileSync(join(cache_dir, 'index', kind, name), '{"path":');
  t.is(await library().source().locate('hf:org/repo/m.gguf'), undefined);
  t.is((await provision('hf:org/repo/m.gguf')).verification, 'pass');
  // The file was whole: it had only to be hashed.
  t.is(registry.requests('storage').length, 1);
  t.is((await library().source().resolve('hf:org/repo/m.gguf', NEVER)).present, true);
});
