import test from 'ava';
import fc from 'fast-check';
import { modelId, parseModel } from '../../../src/config/model.ts';

const right: [text: string, name: object, id?: string][] = [
  ['storyteller', { kind: 'bundled', name: 'storyteller' }],
  ['a/b.gguf', { kind: 'file', path: 'a/b.gguf' }, 'file:/home/a/b.gguf'],
  ['file:b.gguf', { kind: 'file', path: 'b.gguf' }, 'file:/home/b.gguf'],
  ['hf:org/repo', { kind: 'hf', repo: 'org/repo' }],
  ['hf:org/repo@v1', { kind: 'hf', repo: 'org/repo', revision: 'v1' }],
  ['hf:org/repo:Q4_K_M', { kind: 'hf', repo: 'org/repo', quant: 'Q4_K_M' }],
  ['hf:org/repo:Q4_K_M@refs/pr/3', { kind: 'hf', repo: 'org/repo', quant: 'Q4_K_M', revision: 'refs/pr/3' }],
  ['hf:org/re.po-1/a/b c.gguf', { kind: 'hf', repo: 'org/re.po-1', file: 'a/b c.gguf' }],
  ['hf:org/repo/a.GGUF@main', { kind: 'hf', repo: 'org/repo', file: 'a.GGUF', revision: 'main' }],
  ['https://host/a.gguf', { kind: 'https', url: 'https://host/a.gguf' }],
  [
    'https://host/a.gguf?x=1#part',
    { kind: 'https', url: 'https://host/a.gguf?x=1' },
    'https://host/a.gguf?x=1',
  ],
  ['http://127.0.0.1:9/a.gguf', { kind: 'https', url: 'http://127.0.0.1:9/a.gguf' }],
  ['s3://bucket/a/b.gguf', { kind: 's3', bucket: 'bucket', key: 'a/b.gguf' }],
  [
    'oci://ghcr.io/org/repo:v1',
    { kind: 'oci', registry: 'ghcr.io', repository: 'org/repo', reference: 'v1' },
  ],
  [
    'oci://localhost:5000/repo',
    { kind: 'oci', registry: 'localhost:5000', repository: 'repo', reference: 'latest' },
    'oci://localhost:5000/repo:latest',
  ],
  [
    `oci://ghcr.io/a/b@sha256:${'0'.repeat(64)}`,
    { kind: 'oci', registry: 'ghcr.io', repository: 'a/b', reference: `sha256:${'0'.repeat(64)}` },
  ],
];

const cataloged: typeof right = [
  ['small-instruct-q4', { kind: 'catalog', id: 'small-instruct-q4' }],
  ['org/small', { kind: 'catalog', id: 'org/small' }],
  ['catalog:small', { kind: 'catalog', id: 'small' }, 'small'],
  ['catalog:llama:8b', { kind: 'catalog', id: 'llama:8b' }],
  ['catalog:a.gguf', { kind: 'catalog', id: 'a.gguf' }],
  [`sha256:${'0'.repeat(64)}`, { kind: 'catalog', id: `sha256:${'0'.repeat(64)}` }],
  ['./small', { kind: 'file', path: './small' }, 'file:/home/small'],
];

for (const [text, name, id = text] of [...right, ...cataloged])
  test(`${text} is understood, and named the same way`, (t) => {
    const parsed = parseModel(text);
    t.deepEqual(parsed, name as never);
    if (parsed.kind !== 'mistake') t.is(modelId(parsed, '/home'), id);
  });

const wrong: [text: string, expected: RegExp][] = [
  ['hf:repo', /^hf:org\/repo\/path\/file\.gguf, hf:org\/repo:QUANT or hf:org\/repo/],
  ['hf://org/repo', /^hf:org\/repo/],
  ['hf:org/repo/../../etc/passwd.gguf', /^a path that ends in \.gguf after hf:org\/repo\/$/],
  ['hf:org/repo/a\\..\\b.gguf', /^a path that ends in \.gguf/],
  ['hf:org/repo/model.safetensors', /^a path that ends in \.gguf/],
  ['hf:../repo:Q4', /^hf:org\/repo/],
  ['hf:org/..:Q4', /^hf:org\/repo/],
  ['hf:org/repo:..', /^hf:org\/repo/],
  ['hf:org/repo@../main', /^a branch, tag or commit after @, such as hf:org\/repo@main$/],
  ['hf:org/repo@', /^a branch, tag or commit/],
  ['http://example.org/a.gguf', /^an https:\/\/ URL/],
  ['https://user:secret@host/a.gguf', /^a URL without user name and password$/],
  ['https://', /^a URL such as/],
  ['s3://bucket', /^s3:\/\/bucket\/path\/model\.gguf$/],
  ['s3://bucket/../a.gguf', /^s3:/],
  ['oci://ghcr.io', /^oci:\/\/registry\/repo:tag or/],
  ['oci://ghcr.io/a/../b:v1', /^oci:/],
  ['oci://ghcr.io/a@sha256:12', /^oci:/],
  [`sha256:${'0'.repeat(63)}`, /^storyteller, file:\/path\/model\.gguf/],
  ['catalog:../x', /^a model's id in the catalog after catalog:$/],
  ['catalog:', /^a model's id/],
  ['ftp://host/a.gguf', /^storyteller, /],
];

for (const [text, expected] of wrong)
  test(`${text} is refused with what would be right`, (t) => {
    const parsed = parseModel(text);
    t.is(parsed.kind, 'mistake');
    if (parsed.kind === 'mistake') t.regex(parsed.expected, expected);
  });

test('whatever a reference is, its name means the same again, and no part of it leads up', (t) => {
  const piece = fc.constantFrom(
    'hf:',
    'oci://',
    's3://',
    'https://',
    'a',
    'b.gguf',
    '/',
    '..',
    '@',
    ':',
    'Q4',
    '\\',
    '%2e%2e',
  );
  fc.assert(
    fc.property(
      fc.array(piece, { maxLength: 9 }).map((all) => all.join('')),
      (text) => {
        const parsed = parseModel(text);
        if (parsed.kind === 'mistake' || parsed.kind === 'file') return;
        const id = modelId(parsed, '/home');
        t.deepEqual(parseModel(id), parsed);
        // What is between the slashes of a key is a name, whatever it has.
        if (parsed.kind === 's3') t.notRegex(parsed.key, /(^|\/)\.\.(\/|$)/);
        else if (parsed.kind !== 'https') t.notRegex(id, /(^|[/:])\.\.([/@:]|$)/);
      },
    ),
    { numRuns: 2000 },
  );
});
