import test from 'ava';
import { judge, untrustedModel, type TrustDemands } from '../../src/catalog/trust.ts';
import type { CatalogModel } from '../../src/contract/generated/types.ts';
import { selfSigned } from '../helpers/self-signed.ts';
import { digestOf } from './conformance.ts';

const SIGNED = [{ signer: 'somebody', algo: 'ed25519', verified: true }];
const STRICT: TrustDemands = { mode: 'strict' };
const PERMISSIVE: TrustDemands = { mode: 'permissive' };
const model = (more: Partial<CatalogModel> = {}): CatalogModel => ({ id: 'm', digest: digestOf(1), ...more });

const cases: [
  what: string,
  model: CatalogModel,
  policies: TrustDemands[],
  refused: boolean,
  why: RegExp[],
][] = [
  ['permissive asks for nothing', model(), [PERMISSIVE], false, []],
  ['strict asks for a signature', model(), [STRICT], true, [/^signatures: the model is not signed$/]],
  ['strict of any policy is strict', model(), [PERMISSIVE, STRICT], true, [/not signed/]],
  ['a verified signature is enough', model({ signatures: SIGNED }), [STRICT], false, []],
  [
    'one that was not verified is none',
    model({ signatures: [{ signer: 'x', algo: 'y', verified: false }] }),
    [STRICT],
    true,
    [/none of them is verified/],
  ],
  [
    'permissive warns about the signature that it requires',
    model(),
    [{ mode: 'permissive', require_signature: true }],
    false,
    [/not signed/],
  ],
  [
    'a bill of materials that is required',
    model({ signatures: SIGNED }),
    [STRICT, { mode: 'permissive', require_sbom: true }],
    true,
    [/^sbom: is required/],
  ],
  [
    'one that is there',
    model({ signatures: SIGNED, sbom: { uri: 'https://h/s', digest: digestOf(2) } }),
    [{ mode: 'strict', require_sbom: true }],
    false,
    [],
  ],
  [
    'permissive warns about everything',
    model(),
    [{ mode: 'permissive', require_signature: true, require_sbom: true, allowed_registries: ['a'] }],
    false,
    [/source_url/, /signatures/, /sbom/],
  ],
];

for (const [what, subject, policies, refused, why] of cases)
  test(what, (t) => {
    const { isRefused, shortcomings } = judge(subject, policies);
    t.is(isRefused, refused);
    t.is(shortcomings.length, why.length, shortcomings.join('\n'));
    for (const [place, pattern] of why.entries()) t.regex(shortcomings[place] ?? '', pattern);
  });

for (const [source_url, registry, allowed] of [
  ['hf:org/repo/a.gguf', 'huggingface.co', true],
  ['hf:org/repo/a.gguf', 'hf.co', true],
  ['https://huggingface.co/org/repo', 'huggingface.co', true],
  ['https://cdn.example.org/a.gguf', 'example.org', true],
  ['https://EXAMPLE.org/a.gguf', 'Example.org', true],
  ['https://badexample.org/a.gguf', 'example.org', false],
  ['https://example.org.evil.net/a.gguf', 'example.org', false],
  ['https://example.org:8443/a.gguf', 'example.org:8443', true],
  ['https://example.org:8444/a.gguf', 'example.org:8443', false],
  ['oci://ghcr.io/org/repo:v1', 'ghcr.io', true],
  ['s3://bucket/a.gguf', 'amazonaws.com', true],
  ['file:/models/a.gguf', 'localhost', true],
  ['file:/models/a.gguf', 'huggingface.co', false],
  ['a name', 'huggingface.co', false],
  [undefined, 'huggingface.co', false],
] as const)
  test(`${source_url ?? 'no source'} ${allowed ? 'comes' : 'does not come'} from ${registry}`, (t) => {
    const subject = model({ signatures: SIGNED, ...(source_url === undefined ? {} : { source_url }) });
    const { isRefused } = judge(subject, [{ mode: 'strict', allowed_registries: [registry] }]);
    t.is(isRefused, !allowed);
  });

test('registries of every policy have to allow it', (t) => {
  const subject = model({ signatures: SIGNED, source_url: 'hf:org/repo/a.gguf' });
  const policies: TrustDemands[] = [
    { mode: 'strict', allowed_registries: ['huggingface.co'] },
    { mode: 'permissive', allowed_registries: ['ghcr.io'] },
  ];
  t.true(judge(subject, policies).isRefused);
});

test('with roots, only signers count that they name', (t) => {
  const policy: TrustDemands = { mode: 'strict', ca_roots: [selfSigned().cert] };
  const signedBy = (signer: string): CatalogModel =>
    model({ signatures: [{ signer, algo: 'rsa', verified: true }] });
  t.false(judge(signedBy('127.0.0.1'), [policy]).isRefused);
  t.true(judge(signedBy('somebody'), [policy]).isRefused);
  t.true(judge(signedBy('127.0.0.1'), [{ ...policy, ca_roots: ['not a certificate'] }]).isRefused);
});

test('a refusal says everything that is missing', (t) => {
  const failure = untrustedModel('m', judge(model(), [{ mode: 'strict', require_sbom: true }]));
  t.is(failure.code, 'UNTRUSTED_ARTIFACT');
  t.is(
    failure.message,
    'model "m" is not trusted: signatures: the model is not signed; sbom: is required, and the model has none',
  );
});
