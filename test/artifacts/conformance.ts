import test, { type ExecutionContext } from 'ava';
import { parseArtifact } from '../../src/artifacts/artifact.ts';
import type { ArtifactStore } from '../../src/artifacts/artifact-store.ts';
import { TaskchartError } from '../../src/errors.ts';
import type { Artifact } from '../../src/contract/generated/types.ts';

export const DAY_MS = 24 * 3_600_000;
export const PLAN: Artifact = { kind: 'plan', content: { steps: ['a', 'b'], cost: 1.5 }, tags: ['x', 'y'] };

/** The n-th of artifacts that all take the same number of bytes. */
export const numbered = (n: number, tags: string[] = []): Artifact => ({
  kind: n % 2 === 0 ? 'summary' : 'diff',
  content: { n: String(n).padStart(4, '0'), text: 'é'.repeat(50) },
  ...(tags.length > 0 ? { tags } : {}),
});

/** A clock that the test moves. */
export interface Wall {
  now: number;
}

export type OpenArtifacts = (t: ExecutionContext, wall: Wall) => Promise<ArtifactStore>;

/** What every store of artifacts has to do. `open` gives an empty one that ends with the test. */
export function testArtifactStore(name: string, open: OpenArtifacts): void {
  const opened = async (t: ExecutionContext): Promise<{ store: ArtifactStore; wall: Wall }> => {
    const wall = { now: 1_700_000_000_000 };
    return { store: await open(t, wall), wall };
  };
  /** Ids of all pages, in order. */
  const listed = async (store: ArtifactStore, query: object = {}, limit = 3): Promise<string[]> => {
    const ids: string[] = [];
    for (let cursor: string | undefined; ;) {
      const page = await store.list({ ...query, limit, cursor });
      ids.push(...page.artifacts.map(({ id }) => id));
      if (page.next_cursor === undefined) return ids;
      if (page.artifacts.length !== limit) throw new Error('a page that is not full has a next one');
      cursor = page.next_cursor;
    }
  };

  test(`${name}: what was put is got back under the digest of what it says`, async (t) => {
    const { store, wall } = await opened(t);
    const ref = await store.put(PLAN);
    t.regex(ref.id, /^sha256:[0-9a-f]{64}$/);
    t.deepEqual(ref, { id: ref.id, kind: 'plan', digest: ref.id, created_ms: wall.now, tags: ['x', 'y'] });
    t.deepEqual(await store.get(ref.id), PLAN);
    const got = (await store.get(ref.id)) as Artifact;
    got.content['steps'] = [];
    t.deepEqual(await store.get(ref.id), PLAN, 'what a caller does with its copy is its own affair');
  });

  test(`${name}: the same again is the same, however its keys are ordered, and no newer`, async (t) => {
    const { store, wall } = await opened(t);
    const first = await store.put(PLAN);
    wall.now += 1000;
    const again: Artifact = { tags: ['x', 'y'], content: { cost: 1.5, steps: ['a', 'b'] }, kind: 'plan' };
    t.deepEqual(await store.put(again), first);
    const together = await Promise.all([1, 2, 3].map(() => store.put(numbered(1))));
    t.is(new Set(together.map(({ id }) => id)).size, 1);
    t.is((await listed(store)).length, 2);
    t.not((await store.put({ ...PLAN, tags: ['x'] })).id, first.id);
  });

  test(`${name}: what is not known, or no id, is not there`, async (t) => {
    const { store } = await opened(t);
    const { id } = await store.put(PLAN);
    const hex = id.slice('sha256:'.length);
    for (const wrong of [
      '',
      hex,
      id.toUpperCase(),
      `${id} `,
      `${id}\n`,
      `sha256:${'0'.repeat(64)}`,
      `sha256:../${hex.slice(3)}`,
      'sha256:../../../../etc/passwd',
      'sha256:',
      '../tasks.db',
      '__proto__',
    ])
      t.is(await store.get(wrong), undefined, wrong);
  });

  test(`${name}: lists newest first, page by page, by kind and by tag`, async (t) => {
    const { store, wall } = await opened(t);
    t.deepEqual(await store.list({ limit: 10 }), { artifacts: [] });
    const ids: string[] = [];
    for (let n = 0; n < 20; n++) {
      // Some in the same millisecond.
      if (n % 3 === 0) wall.now++;
      ids.push((await store.put(numbered(n, n % 5 === 0 ? ['fifth', `n${n}`] : []))).id);
    }
    const all = await listed(store);
    t.deepEqual(all.toSorted(), ids.toSorted());
    for (let group = 0; group < 6; group++)
      t.deepEqual(
        all.slice(20 - 3 * (group + 1), 20 - 3 * group).toSorted(),
        ids
          .slice(3 * group, 3 * group + 3)
          .toSorted()
          .slice(0, 3),
      );
    for (const limit of [1, 7, 20, 100]) t.deepEqual(await listed(store, {}, limit), all);
    const of = (wanted: (n: number) => boolean): string[] => all.filter((id) => wanted(ids.indexOf(id)));
    t.deepEqual(
      await listed(store, { kind: 'diff' }),
      of((n) => n % 2 === 1),
    );
    t.deepEqual(
      await listed(store, { tag: 'fifth' }),
      of((n) => n % 5 === 0),
    );
    t.deepEqual(await listed(store, { tag: 'n10', kind: 'summary' }), [ids[10]]);
    t.deepEqual(await listed(store, { tag: 'fif' }), []);
    t.deepEqual(await listed(store, { kind: 'plan' }), []);
    for (const cursor of ['', 'x', '../..', '12-', `-1-${'0'.repeat(64)}`])
      await t.throwsAsync(store.list({ limit: 3, cursor }), {
        instanceOf: TaskchartError,
        message: /^cursor: /,
      });
  });

  test(`${name}: pages go on where they were while others are put`, async (t) => {
    const { store, wall } = await opened(t);
    const ids: string[] = [];
    for (let n = 0; n < 6; n++) {
      wall.now++;
      ids.unshift((await store.put(numbered(n))).id);
    }
    const { artifacts, next_cursor } = await store.list({ limit: 2 });
    wall.now++;
    await store.put(numbered(100));
    const rest = await store.list({ limit: 10, cursor: next_cursor });
    t.deepEqual(
      [...artifacts, ...rest.artifacts].map(({ id }) => id),
      ids,
    );
  });

  test(`${name}: where there are too many bytes the oldest leave, and one that is too large is refused`, async (t) => {
    const { store, wall } = await opened(t);
    const bytes = Buffer.byteLength(JSON.stringify(numbered(0)));
    store.limit({ max_bytes: 5 * bytes, retention_ms: 0 });
    const ids: string[] = [];
    for (let n = 0; n < 12; n++) {
      wall.now++;
      ids.unshift((await store.put(numbered(2 * n))).id);
    }
    t.deepEqual(await listed(store), ids.slice(0, 5));
    t.is(await store.get(ids[5] as string), undefined);
    t.truthy(await store.get(ids[4] as string));
    const large: Artifact = { kind: 'other', content: { text: 'x'.repeat(6 * bytes) } };
    const error = await t.throwsAsync(store.put(large), { instanceOf: TaskchartError });
    t.is((error as TaskchartError).status, 413);
    t.deepEqual(await listed(store), ids.slice(0, 5));
    t.is((await store.put(numbered(0))).id, ids[11] as string);
    t.deepEqual(await store.get(ids[11] as string), numbered(0));
  });

  test(`${name}: what is too old leaves`, async (t) => {
    const { store, wall } = await opened(t);
    const old = await store.put(numbered(0));
    wall.now += 20 * DAY_MS;
    const young = await store.put(numbered(1));
    wall.now += 10 * DAY_MS;
    t.is(await store.get(old.id), undefined);
    t.deepEqual(await listed(store), [young.id]);
    store.limit({ max_bytes: 1e6, retention_ms: 0 });
    wall.now += 1000 * DAY_MS;
    t.truthy(await store.get(young.id));
  });

  test(`${name}: a value of any shape that JSON has comes back as it was`, async (t) => {
    const { store } = await opened(t);
    let deep: Record<string, unknown> = {};
    for (let level = 0; level < 60; level++) deep = { deep };
    const content = JSON.parse(
      `{"__proto__":{"a":1},"2":[],"10":null,"":"","é\\ud800\\n":[1e21,-0.5,1e-7,true,{}],"deep":${JSON.stringify(deep)}}`,
    ) as Record<string, unknown>;
    const artifact = parseArtifact({
      kind: 'other',
      content,
      metadata: {},
      parent: `sha256:${'a'.repeat(64)}`,
    });
    const { id } = await store.put(artifact);
    t.is(JSON.stringify((await store.get(id))?.content['10']), 'null');
    t.deepEqual(await store.get(id), artifact);
    t.true(Object.hasOwn((await store.get(id))?.content ?? {}, '__proto__'));
  });

  test(`${name}: a closed one takes nothing more`, async (t) => {
    const { store } = await opened(t);
    const putting = store.put(PLAN);
    await store.close();
    await putting;
    await store.close();
    await t.throwsAsync(store.put(numbered(1)), { instanceOf: TaskchartError, message: /shutting down/ });
  });
}
