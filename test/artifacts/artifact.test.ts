import { createHash } from 'node:crypto';
import test from 'ava';
import fc from 'fast-check';
import { digestOfLong, parseArtifact, seal } from '../../src/artifacts/artifact.ts';
import { canonicalJson } from '../../src/artifacts/canonical-json.ts';
import type { Artifact } from '../../src/contract/generated/types.ts';
import { TaskchartError } from '../../src/errors.ts';

/** The same value with the keys of each object in another order. */
function shuffled(value: unknown, random: () => number): unknown {
  if (Array.isArray(value)) return value.map((item) => shuffled(item, random));
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value)
    .map((entry) => ({ entry, rank: random() }))
    .sort((a, b) => a.rank - b.rank);
  // Built by hand, since an assignment to __proto__ would not make a key.
  return Object.fromEntries(entries.map(({ entry: [key, field] }) => [key, shuffled(field, random)]));
}

test('canonical text says the same value, whatever the order of its keys', (t) => {
  fc.assert(
    fc.property(
      fc.jsonValue(),
      fc.infiniteStream(fc.double({ min: 0, max: 1, noNaN: true })),
      (value, stream) => {
        const text = canonicalJson(value);
        t.is(canonicalJson(shuffled(value, () => stream.next().value as number)), text);
        // -0 is 0 in JSON.
        t.deepEqual(JSON.parse(text), JSON.parse(JSON.stringify(value)));
        t.is(canonicalJson(JSON.parse(text)), text);
      },
    ),
  );
});

test('any difference other than the order of keys is a difference of the text', (t) => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.jsonValue(), (one, other) => {
      const isSame = sorted(one) === sorted(other);
      t.is(canonicalJson(one) === canonicalJson(other), isSame);
      t.not(canonicalJson([one]), canonicalJson([one, other]));
      t.not(canonicalJson({ a: one }), canonicalJson({ b: one }));
    }),
  );
});

/** By other means than the code under test: entries instead of objects, so that no order of keys is left. */
function sorted(value: unknown): string {
  return JSON.stringify(value, (_key, node: unknown) =>
    typeof node === 'object' && node !== null && !Array.isArray(node)
      ? {
          entries: Object.entries(node)
            .sort(([a], [b]) => (a < b ? -1 : 1))
            .flatMap(([k, v]) => [k, v]),
        }
      : node,
  ).replaceAll(/\{"entries":/g, '{');
}

test('the text is as RFC 8785 has it', (t) => {
  const value = JSON.parse(
    '{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],"string":"\\u20ac$\\u000F\\u000aA\'\\u0042\\u0022\\u005c\\\\\\"\\/","literals":[null,true,false]}',
  );
  t.is(
    canonicalJson(value),
    '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}',
  );
  t.is(
    canonicalJson({ '\u20ac': 1, '\r': 2, '\ufb33': 3, '1': 4, '😀': 5, '\u0080': 6, ö: 7 }),
    '{"\\r":2,"1":4,"\u0080":6,"ö":7,"€":1,"😀":5,"\ufb33":3}',
  );
});

test('the digest is the SHA-256 of the text in UTF-8', (t) => {
  const { digest, text, bytes } = seal({ kind: 'plan', content: { é: 1 }, tags: ['b', 'a'] });
  t.is(text, '{"content":{"é":1},"kind":"plan","tags":["b","a"]}');
  t.is(digest, createHash('sha256').update(text, 'utf8').digest('hex'));
  t.is(bytes, Buffer.byteLength(text));
});

test('the digest of a long list is the same piece by piece', async (t) => {
  for (const count of [0, 1, 499, 500, 501, 1700]) {
    const events = Array.from({ length: count }, (_, i) => ({ type: 'token', data: { t: ' é', i } }));
    const artifact: Artifact = {
      kind: 'trace',
      content: { events },
      tags: ['sse'],
      metadata: { b: 1, a: 2 },
    };
    t.is(await digestOfLong(artifact, 'events'), seal(artifact).digest);
    const bare: Artifact = { kind: 'other', content: { events } };
    t.is(await digestOfLong(bare, 'events'), seal(bare).digest);
  }
});

test('a mistake is named with its field', (t) => {
  const right = { kind: 'plan', content: {} };
  let deep: unknown = 1;
  for (let level = 0; level < 100_000; level++) deep = [deep];
  for (const [body, message] of [
    [undefined, /^the body must be an object/],
    [[], /^the body must be an object/],
    [{ content: {} }, /^kind: is required/],
    [{ kind: 'plan' }, /^content: is required/],
    [{ ...right, kind: 'doc' }, /^kind: must be one of plan, summary, diff, trace, other, got "doc"/],
    [{ ...right, content: [] }, /^content: must be an object/],
    [{ ...right, content: 'text' }, /^content: must be an object/],
    [{ ...right, tags: 'a' }, /^tags: must be /],
    [{ ...right, tags: ['a', 1] }, /^tags\[1\]: must be /],
    [{ ...right, metadata: [] }, /^metadata: must be an object/],
    [{ ...right, parent: 'x' }, /^parent: must be the id of an artifact/],
    [{ ...right, content: { deep } }, /^content: must not be nested deeper than 64 levels$/],
    [{ ...right, metadata: { deep } }, /^metadata: must not be nested deeper than 64 levels$/],
    [
      { ...right, content: JSON.parse('{"a":[1e400]}') },
      /^content: must not have numbers that are too large/,
    ],
  ] as const)
    t.throws(() => parseArtifact(body), { instanceOf: TaskchartError, message });
});

test('what nobody knows is not kept', (t) => {
  t.deepEqual(parseArtifact({ kind: 'plan', content: { a: 1 }, id: 'mine', secret: 1 }), {
    kind: 'plan',
    content: { a: 1 },
  });
});
