import test, { type ExecutionContext } from 'ava';
import type { CatalogEntry, CatalogStore } from '../../src/catalog/catalog-store.ts';
import { StoreError } from '../../src/sqlite/store-error.ts';

export const digestOf = (n: number): string => `sha256:${n.toString(16).padStart(64, '0')}`;

export function entryOf(id: string, more: Partial<CatalogEntry> = {}): CatalogEntry {
  return { id, digest: digestOf(1), state: 'Active', created_ms: 1_700_000_000_000, ...more };
}

/** An entry with everything that an entry can have. */
export const FULL: CatalogEntry = entryOf('org/model:Q4', {
  source_url: 'hf:org/model:Q4',
  tags: ['small', 'chat'],
  manifests: [{ digest: digestOf(1), size_bytes: 12 }],
  signatures: [{ signer: 'somebody', algo: 'ed25519', verified: true, timestamp_ms: 5 }],
  sbom: { uri: 'https://example.org/sbom.json', digest: digestOf(2) },
  trust_policy: { mode: 'strict', allowed_registries: ['huggingface.co'], require_signature: true },
  state: 'Retired',
  local_path: '/models/model.gguf',
  verification: 'pass',
  last_verified_ms: 1_700_000_000_001,
  file: { size_bytes: 12, mtime_ms: 1_700_000_000_000.5 },
});

const put = (store: CatalogStore, entry: CatalogEntry): Promise<CatalogEntry | undefined> =>
  store.change(entry.id, () => entry);
const ids = (entries: readonly CatalogEntry[]): string[] => entries.map(({ id }) => id);

/** What every store of the catalog has to do. `open` gives an empty one that ends with the test. */
export function testCatalogStore(name: string, open: (t: ExecutionContext) => Promise<CatalogStore>): void {
  test(`${name}: an entry is got back with everything that it had`, async (t) => {
    const store = await open(t);
    t.deepEqual(await put(store, FULL), FULL);
    t.deepEqual(store.get(FULL.id), FULL);
    await store.refresh();
    t.deepEqual(store.get(FULL.id), FULL);
  });

  test(`${name}: names may have slashes and colons, and be those of JavaScript`, async (t) => {
    const store = await open(t);
    const names = [
      'hf:org/repo/path/a.gguf@main',
      'file:/a b',
      'https://h/a?x=1',
      '__proto__',
      'constructor',
      'é',
    ];
    for (const id of names) await put(store, entryOf(id));
    t.deepEqual(ids(store.entries()), names.toSorted());
    for (const id of names) t.is(store.get(id)?.id, id);
    t.is(store.get('toString'), undefined);
  });

  test(`${name}: entries are listed by id, and found by digest`, async (t) => {
    const store = await open(t);
    for (const id of ['c', 'a', 'b']) await put(store, entryOf(id, { digest: digestOf(id === 'b' ? 2 : 1) }));
    t.deepEqual(ids(store.entries()), ['a', 'b', 'c']);
    t.deepEqual(ids(store.withDigest(digestOf(1))), ['a', 'c']);
    t.deepEqual(store.withDigest(digestOf(3)), []);
  });

  test(`${name}: a change gets what is there, and undefined removes it`, async (t) => {
    const store = await open(t);
    await put(store, entryOf('a'));
    t.like(await store.change('a', (current) => current && { ...current, state: 'Retired' }), {
      state: 'Retired',
      digest: digestOf(1),
    });
    t.is(await store.change('a', () => undefined), undefined);
    t.is(store.get('a'), undefined);
    t.deepEqual(store.withDigest(digestOf(1)), []);
    t.is(await store.change('b', (current) => current), undefined);
    t.deepEqual(store.entries(), []);
  });

  test(`${name}: changes come one after the other, and none is lost`, async (t) => {
    const store = await open(t);
    await Promise.all(
      Array.from({ length: 20 }, (_, n) =>
        store.change('a', (current) => entryOf('a', { tags: [...(current?.tags ?? []), `${n}`] })),
      ),
    );
    t.deepEqual(
      store.get('a')?.tags,
      Array.from({ length: 20 }, (_, n) => `${n}`),
    );
  });

  test(`${name}: a change that throws changes nothing, and is no reason to stop`, async (t) => {
    const store = await open(t);
    await put(store, entryOf('a'));
    await t.throwsAsync(
      store.change('a', () => {
        throw new Error('no');
      }),
      { message: 'no' },
    );
    t.deepEqual(store.get('a'), entryOf('a'));
    await put(store, entryOf('b'));
    t.deepEqual(ids(store.entries()), ['a', 'b']);
  });

  test(`${name}: nobody changes an entry by holding it`, async (t) => {
    const store = await open(t);
    const mine = entryOf('a', { tags: ['x'] });
    await put(store, mine);
    mine.tags?.push('y');
    t.deepEqual(store.get('a')?.tags, ['x']);
    t.throws(() => store.get('a')?.tags?.push('y'), { instanceOf: TypeError });
    t.throws(() => Object.assign(store.get('a') as object, { state: 'Retired' }), { instanceOf: TypeError });
  });

  test(`${name}: whoever looks while a change is made does not bring back what was before`, async (t) => {
    const store = await open(t);
    for (let n = 0; n < 20; n++) {
      const looks = [store.refresh(), store.refresh()];
      const change = put(store, entryOf('a', { tags: [`${n}`] }));
      looks.push(store.refresh());
      await change;
      await Promise.all(looks);
      t.deepEqual(store.get('a')?.tags, [`${n}`]);
    }
  });

  test(`${name}: once closed it can be read and not changed`, async (t) => {
    const store = await open(t);
    const last = put(store, entryOf('a'));
    await store.close();
    await store.close();
    t.deepEqual(await last, entryOf('a'));
    t.deepEqual(ids(store.entries()), ['a']);
    await t.throwsAsync(put(store, entryOf('b')), { instanceOf: StoreError });
  });
}
