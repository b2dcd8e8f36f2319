import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { Catalog } from '../../../src/actors/catalog.ts';
import { catalogedSource } from '../../../src/actors/cataloged-source.ts';
import type { Observation } from '../../../src/actors/observation.ts';
import type { CatalogEntry } from '../../../src/catalog/catalog-store.ts';
import type { TrustDemands } from '../../../src/catalog/trust.ts';
import { createFileHasher } from '../../../src/catalog/file-hasher.ts';
import { MemoryCatalog } from '../../../src/catalog/memory-catalog.ts';
import { createOrchestrator, type OrchestratorOptions } from '../../../src/embed.ts';
import type { PreparedModel } from '../../../src/machines/provisioner.ts';
import { Models } from '../../../src/models/models.ts';
import { BUNDLED_DIGEST } from '../../../src/models/source.ts';
import { until } from '../../helpers/until.ts';
import { createSourceRig, FAST, gguf, POLICY, STORYTELLER, type SourceRig } from './rig.ts';

const digestOf = (bytes: Buffer): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const never = new AbortController().signal;

interface CatalogRig extends SourceRig {
  catalog: Catalog;
  store: MemoryCatalog;
  models: Models;
  observations: Observation[];
  /** All steps of a pool's provisioning. */
  prepare(model_ref: string, checksum?: string): Promise<PreparedModel>;
  /** An entry, once it is there and as it should be. */
  entry(id: string, isRight?: (entry: CatalogEntry) => boolean): Promise<CatalogEntry>;
}

async function createCatalogRig(
  t: ExecutionContext,
  trust: TrustDemands = { mode: 'permissive' },
): Promise<CatalogRig> {
  const rig = await createSourceRig(t);
  const { cache_dir, folder, registry } = rig;
  const models = new Models({
    cache_dir,
    provenance_file: join(folder, 'provenance/models.jsonl'),
    policy: POLICY,
    hub: { endpoint: registry.url },
    retry: FAST,
    reserve_bytes: 0,
  });
  const store = new MemoryCatalog();
  const observations: Observation[] = [];
  const catalog = new Catalog({
    store,
    trust,
    files: { locate: (ref) => models.source().locate(ref), remove: (ref) => models.remove(ref) },
    hasher: createFileHasher(),
    wall: Date.now,
    drain_ms: 0,
    tell: (observation) => observations.push(observation),
    retired: () => undefined,
    activated: () => undefined,
  });
  t.teardown(async () => {
    await catalog.close();
    await models.close();
  });
  return Object.assign(rig, {
    catalog,
    store,
    models,
    observations,
    async prepare(model_ref: string, checksum?: string) {
      const source = catalogedSource(catalog, (demanded) => models.source({ checksum: demanded }), checksum);
      const resolved = await source.resolve(model_ref, never);
      const here = resolved.present ? resolved : await source.fetch(resolved, never, () => undefined);
      return source.verify(here, never, () => undefined);
    },
    async entry(id: string, isRight: (entry: CatalogEntry) => boolean = () => true) {
      const find = (): CatalogEntry | undefined => {
        const entry = store.get(id);
        return entry && isRight(entry) ? entry : undefined;
      };
      await until(find, `an entry for ${id}`);
      return find() as CatalogEntry;
    },
  });
}

function localModel(rig: SourceRig, bytes = gguf(5000)): { file: string; reference: string; digest: string } {
  mkdirSync(rig.folder, { recursive: true });
  const file = join(rig.folder, 'mine.gguf');
  writeFileSync(file, bytes);
  return { file, reference: `file:${file}`, digest: digestOf(bytes) };
}

test('what the bundled model has is what its file has', (t) => {
  t.is(digestOf(readFileSync(STORYTELLER)), BUNDLED_DIGEST);
});

test('a model that was fetched is in the catalog: Active, with its digest, its origin and its place', async (t) => {
  const rig = await createCatalogRig(t);
  const bytes = gguf(50_000);
  rig.registry.addRepository('org/repo', { 'a.gguf': bytes });
  const before = Date.now();
  const prepared = await rig.prepare('hf:org/repo/a.gguf');
  const entry = await rig.entry('hf:org/repo/a.gguf');
  t.like(entry, {
    digest: digestOf(bytes),
    source_url: 'hf:org/repo/a.gguf',
    state: 'Active',
    local_path: prepared.path,
    manifests: [{ digest: digestOf(bytes), size_bytes: bytes.length }],
  });
  t.true(entry.created_ms >= before && (entry.last_verified_ms ?? 0) >= before);
  t.deepEqual(
    rig.observations.filter(({ type }) => type === 'model.ingested'),
    [{ type: 'model.ingested', model_id: 'hf:org/repo/a.gguf', origin: 'provisioning', warnings: [] }],
  );
});

test('the bundled model is in the catalog without being read', async (t) => {
  const rig = await createCatalogRig(t);
  await rig.prepare('storyteller');
  const entry = await rig.entry('storyteller');
  t.like(entry, { digest: BUNDLED_DIGEST, state: 'Active', local_path: STORYTELLER });
  t.is(entry.verification, undefined);
  t.is(await (await rig.catalog.verify('storyteller')).finished, 'pass');
});

test('a file of this machine is read once, in the background, and is known the next time', async (t) => {
  const rig = await createCatalogRig(t);
  const { file, reference, digest } = localModel(rig);
  t.like(await rig.prepare(reference), { path: file, verification: 'warn' });
  const entry = await rig.entry(reference);
  t.like(entry, { digest, local_path: file, source_url: reference });
  t.like(await rig.prepare(reference), { path: file, digest });
  t.deepEqual(rig.store.get(reference), entry, 'a start that finds nothing new writes nothing');
});

test('a file that has become another one is not what the catalog has, and fails', async (t) => {
  const rig = await createCatalogRig(t);
  const { file, reference, digest } = localModel(rig);
  await rig.prepare(reference);
  await rig.entry(reference);
  writeFileSync(file, gguf(6000, 2));
  const error = await t.throwsAsync(rig.prepare(reference));
  t.like(error, { code: 'UNTRUSTED_ARTIFACT' } as object);
  t.like(rig.observations.at(-1), {
    type: 'model.verified',
    result: 'fail',
    reason: 'digest_mismatch',
  } as object);
  // Whoever put it there says so.
  await rig.catalog.add({ id: reference, digest: digestOf(gguf(6000, 2)) });
  t.not((await rig.prepare(reference)).digest, digest);
  t.like(await rig.entry(reference, ({ verification }) => verification !== undefined), {
    verification: 'pass',
  });
});

for (const [what, model_ref] of [
  ['id', 'small'],
  ['id after catalog:', 'catalog:small'],
  ['digest', 'sha256'],
] as const)
  test(`a pool may name a model by its ${what}, and gets it from its source_url`, async (t) => {
    const rig = await createCatalogRig(t);
    const bytes = gguf(50_000);
    rig.registry.addRepository('org/repo', { 'a.gguf': bytes });
    const digest = digestOf(bytes);
    await rig.catalog.add({ id: 'small', digest, source_url: 'hf:org/repo/a.gguf', tags: ['x'] });
    const prepared = await rig.prepare(model_ref === 'sha256' ? digest : model_ref);
    t.like(prepared, { digest, verification: 'pass' });
    t.true(existsSync(prepared.path));
    const entry = await rig.entry('small', ({ local_path }) => local_path !== undefined);
    t.like(entry, { local_path: prepared.path, verification: 'pass', tags: ['x'] });
    t.is(rig.store.entries().length, 1, 'under the name that it has');
  });

test('another file than the catalog says is fetched by nobody', async (t) => {
  const rig = await createCatalogRig(t);
  rig.registry.addRepository('org/repo', { 'a.gguf': gguf(50_000) });
  await rig.catalog.add({ id: 'small', digest: digestOf(gguf(100)), source_url: 'hf:org/repo/a.gguf' });
  t.like(await t.throwsAsync(rig.prepare('small')), { code: 'UNTRUSTED_ARTIFACT' } as object);
  t.like(rig.observations.at(-1), { type: 'model.verified', model_id: 'small', result: 'fail' } as object);
});

test('a checksum of the configuration that is not that of the catalog is refused', async (t) => {
  const rig = await createCatalogRig(t);
  const { reference, digest } = localModel(rig);
  await rig.catalog.add({ id: 'small', digest, source_url: reference });
  const other = digestOf(gguf(100));
  t.like(await t.throwsAsync(rig.prepare('small', other)), {
    code: 'UNTRUSTED_ARTIFACT',
    message: `model "small" has the digest ${digest} in the catalog, checksum says ${other}`,
  } as object);
  t.like(await rig.prepare('small', digest), { digest, verification: 'pass' });
});

test('a name that the catalog does not have, or has without a place, says what to do', async (t) => {
  const rig = await createCatalogRig(t);
  await t.throwsAsync(rig.prepare('small'), {
    message:
      /^model "small": there is no such model in the catalog \(POST \/v1\/catalog\/models\), and no such file$/,
  });
  await rig.catalog.add({ id: 'small', digest: BUNDLED_DIGEST, source_url: 'ftp://host/a.gguf' });
  await t.throwsAsync(rig.prepare('small'), { message: /its source_url is nothing that can be loaded/ });
});

test('retired and distrusted models are not provisioned', async (t) => {
  const rig = await createCatalogRig(t);
  const { reference, digest } = localModel(rig);
  await rig.catalog.add({ id: 'small', digest, source_url: reference });
  await rig.catalog.setState('small', 'Retired');
  for (const name of ['small', digest])
    t.like(await t.throwsAsync(rig.prepare(name)), { code: 'MODEL_DEPRECATED' } as object);
  const strict = await createCatalogRig(t, { mode: 'strict' });
  t.like(await t.throwsAsync(strict.prepare('storyteller')), { code: 'UNTRUSTED_ARTIFACT' } as object);
  t.deepEqual(strict.store.entries(), []);
});

test('removing a model deletes what was fetched for it, unless it is in use or another entry has it', async (t) => {
  const rig = await createCatalogRig(t);
  rig.registry.addRepository('org/repo', { 'a.gguf': gguf(50_000) });
  const { path, digest } = await rig.prepare('hf:org/repo/a.gguf');
  await rig.entry('hf:org/repo/a.gguf');
  await rig.catalog.add({ id: 'small', digest: digest as string, source_url: 'hf:org/repo/a.gguf' });
  const filesOf = async (id: string): Promise<unknown> => {
    await rig.catalog.remove(id);
    return (rig.observations.at(-1) as { files?: string }).files;
  };
  t.is(await filesOf('hf:org/repo/a.gguf'), 'kept');
  t.true(existsSync(path), 'small has it, too');
  t.is(await filesOf('small'), 'kept');
  t.true(existsSync(path), 'this process uses it');
  await rig.models.close();

  await rig.catalog.add({ id: 'small', digest: digest as string, source_url: 'hf:org/repo/a.gguf' });
  t.is(await filesOf('small'), 'removed');
  t.false(existsSync(path));
  await rig.catalog.add({ id: 'small', digest: digest as string, source_url: 'hf:org/repo/a.gguf' });
  t.is(await filesOf('small'), 'none');
});

test('a verification finds the file of a model that was fetched, and sees that it was changed', async (t) => {
  const rig = await createCatalogRig(t);
  const bytes = gguf(50_000);
  rig.registry.addRepository('org/repo', { 'a.gguf': bytes });
  const { path } = await rig.prepare('hf:org/repo/a.gguf');
  await rig.catalog.add({ id: 'small', digest: digestOf(bytes), source_url: 'hf:org/repo/a.gguf' });
  const verify = async (): Promise<string> => (await rig.catalog.verify('small')).finished;
  t.is(await verify(), 'pass');
  t.is(rig.store.get('small')?.local_path, path);
  writeFileSync(path, gguf(50_000, 7));
  t.is(await verify(), 'fail');
  rmSync(path);
  t.is(await verify(), 'warn');
});

test('verifications of one model that are asked for together read it once', async (t) => {
  const rig = await createCatalogRig(t);
  const { reference, digest } = localModel(rig);
  await rig.catalog.add({ id: 'small', digest, source_url: reference });
  const asked = await Promise.all([1, 2, 3].map(() => rig.catalog.verify('small')));
  for (const { finished } of asked) t.is(await finished, 'pass');
  t.is(rig.observations.filter(({ type }) => type === 'model.verified').length, 1);
});

test('a catalog that is closed in the middle of a verification keeps no outcome of it', async (t) => {
  const rig = await createCatalogRig(t);
  const { reference } = localModel(rig, Buffer.alloc(100 * 1024 * 1024));
  await rig.catalog.add({ id: 'small', digest: BUNDLED_DIGEST, source_url: reference });
  await rig.catalog.verify('small');
  await rig.catalog.close();
  t.is(rig.store.get('small')?.verification, undefined);
});

test('a pool with a model of the catalog tells its story, and the catalog lists what is here', async (t) => {
  const options: OrchestratorOptions = {
    pools: [{ id: 'stories', engine: 'llamacpp', model: 'a-story', preload: false }],
  };
  const orchestrator = createOrchestrator(options);
  t.teardown(() => orchestrator.close(0));
  await orchestrator.catalog.add({
    id: 'a-story',
    digest: BUNDLED_DIGEST,
    source_url: `file:${STORYTELLER}`,
  });
  const task = await orchestrator.submit({
    prompt: 'Once upon a time',
    max_tokens: 4,
    model_ref: BUNDLED_DIGEST,
  });
  const types = [];
  for await (const { type } of task.events()) types.push(type);
  t.is(types.at(-1), 'end');
  await until(async () => (await orchestrator.catalog.get('a-story')).local_path !== undefined);
  const { models } = await orchestrator.catalog.list({ limit: 10 });
  t.like(models, [{ id: 'a-story', local_path: STORYTELLER, verification: 'pass' }] as object);
});
