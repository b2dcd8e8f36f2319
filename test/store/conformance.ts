import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import type { Commit, Fact, Store } from '../../src/store/store.ts';

export async function factsOf(store: Store): Promise<Fact[]> {
  const facts: Fact[] = [];
  for await (const batch of store.fold()) facts.push(...batch);
  return facts;
}

/** What every store has to do. `open` gives an empty one that is closed with the test. */
export function testStore(name: string, open: (t: ExecutionContext) => Promise<Store>): void {
  test(`${name}: keeps the latest fact of each key, in the order of their first`, async (t) => {
    const store = await open(t);
    t.deepEqual(await factsOf(store), []);
    t.is(
      await store.commit({
        facts: [
          { key: 'b', data: 1 },
          { key: 'a', data: { deep: ['ü'] } },
        ],
      }),
      'ok',
    );
    t.is(
      await store.commit({
        facts: [
          { key: 'c', data: null },
          { key: 'b', data: 2 },
        ],
      }),
      'ok',
    );
    t.deepEqual(await factsOf(store), [
      { key: 'b', data: 2 },
      { key: 'a', data: { deep: ['ü'] } },
      { key: 'c', data: null },
    ]);
  });

  test(`${name}: a forgotten key begins anew, at the end`, async (t) => {
    const store = await open(t);
    await store.commit({
      facts: [
        { key: 'a', data: 1 },
        { key: 'b', data: 1 },
      ],
    });
    await store.commit({ facts: [{ key: 'a', data: 2 }] });
    await store.commit({
      facts: [
        { key: 'a', data: undefined },
        { key: 'never', data: undefined },
      ],
    });
    t.deepEqual(await factsOf(store), [{ key: 'b', data: 1 }]);
    t.is(await store.commit({ checks: [{ key: 'a', version: 0 }], facts: [{ key: 'a', data: 3 }] }), 'ok');
    t.is(await store.commit({ checks: [{ key: 'a', version: 1 }], facts: [{ key: 'a', data: 4 }] }), 'ok');
    t.deepEqual(await factsOf(store), [
      { key: 'b', data: 1 },
      { key: 'a', data: 4 },
    ]);
  });

  test(`${name}: a commit whose check does not hold changes nothing`, async (t) => {
    const store = await open(t);
    await store.commit({ facts: [{ key: 'a', data: 1 }] });
    const refused: Commit[] = [
      { checks: [{ key: 'a', version: 0 }], facts: [{ key: 'a', data: 2 }] },
      { checks: [{ key: 'a', version: 2 }], facts: [{ key: 'a', data: 2 }] },
      {
        checks: [{ key: 'b', version: 1 }],
        facts: [
          { key: 'b', data: 2 },
          { key: 'c', data: 2 },
        ],
      },
      {
        checks: [
          { key: 'a', version: 1 },
          { key: 'b', version: 1 },
        ],
        facts: [{ key: 'a', data: undefined }],
      },
    ];
    for (const commit of refused) t.is(await store.commit(commit), 'conflict');
    t.deepEqual(await factsOf(store), [{ key: 'a', data: 1 }]);
  });

  test(`${name}: of two that want a new key at once, the first gets it, and others go on`, async (t) => {
    const store = await open(t);
    const want = (data: number): Commit => ({
      checks: [{ key: 'new', version: 0 }],
      facts: [
        { key: 'new', data },
        { key: `other ${data}`, data },
      ],
    });
    const answers = [want(1), want(2), { facts: [{ key: 'free', data: 3 }] }].map((commit) =>
      store.commit(commit),
    );
    t.deepEqual(await Promise.all(answers), ['ok', 'conflict', 'ok']);
    t.deepEqual(
      (await factsOf(store)).map(({ key }) => key),
      ['new', 'other 1', 'free'],
    );
  });

  test(`${name}: any commits, in any groups, do what a list of facts does`, async (t) => {
    const key = fc.constantFrom('a', 'b', 'c', 'd');
    const commits = fc.array(
      fc.record({
        checks: fc.array(fc.record({ key, version: fc.nat(3) }), { maxLength: 1 }),
        facts: fc.array(fc.record({ key, data: fc.option(fc.jsonValue(), { nil: undefined }) }), {
          maxLength: 3,
        }),
        waits: fc.boolean(),
      }),
      { maxLength: 20 },
    );
    const store = await open(t);
    await fc.assert(
      fc.asyncProperty(commits, async (steps) => {
        await store.commit({ facts: ['a', 'b', 'c', 'd'].map((each) => ({ key: each, data: undefined })) });
        const model: { key: string; version: number; data: unknown }[] = [];
        const answers: unknown[] = [];
        const expected: string[] = [];
        for (const { checks, facts, waits } of steps) {
          const answer = store.commit({ checks, facts });
          answers.push(waits ? await answer : answer);
          const holds = checks.every(
            (check) => (model.find((each) => each.key === check.key)?.version ?? 0) === check.version,
          );
          expected.push(holds ? 'ok' : 'conflict');
          if (!holds) continue;
          for (const { key, data } of facts) {
            const known = model.findIndex((each) => each.key === key);
            if (data === undefined && known >= 0) model.splice(known, 1);
            else if (data !== undefined && known < 0) model.push({ key, version: 1, data });
            else if (data !== undefined)
              model[known] = { key, version: (model[known]?.version ?? 0) + 1, data };
          }
        }
        t.deepEqual(await Promise.all(answers), expected);
        const plain = (facts: readonly Fact[]): unknown =>
          JSON.parse(JSON.stringify(facts.map(({ key, data }) => [key, data])));
        t.deepEqual(plain(await factsOf(store)), plain(model));
      }),
      { numRuns: 40 },
    );
  });

  test(`${name}: closing twice is closing once`, async (t) => {
    const store = await open(t);
    await Promise.all([store.close(), store.close()]);
    await store.close();
    t.pass();
  });
}
