import { X509Certificate } from 'node:crypto';
import { parseModel } from '../config/model.ts';
import type { CatalogModel, TrustPolicy } from '../contract/generated/types.ts';
import { failure, type Failure } from '../errors.ts';

/** What is demanded of a model; the demands of several policies add up. */
export type TrustDemands = Pick<TrustPolicy, 'mode'> & {
  readonly [K in Exclude<keyof TrustPolicy, 'mode'>]?: Readonly<TrustPolicy[K]> | undefined;
};

/** What a policy finds: the shortcomings of a model, and whether they are reason enough to refuse it. */
export interface TrustFinding {
  isRefused: boolean;
  /** Each names the field and what is missing. */
  shortcomings: readonly string[];
}

const HUB = 'huggingface.co';
const HUB_HOSTS = [HUB, 'hf.co'];

/**
 * Holds a model against the policies that concern it: that of the configuration, of the request, of its own entry.
 * `strict` of any of them refuses, and demands a verified signature. taskchart does not verify signatures itself: the
 * entry says who has signed, and whether that was checked.
 */
export function judge(
  model: Pick<CatalogModel, 'id' | 'source_url' | 'signatures' | 'sbom'>,
  policies: readonly TrustDemands[],
): TrustFinding {
  const isStrict = policies.some(({ mode }) => mode === 'strict');
  const shortcomings: string[] = [];
  for (const { allowed_registries = [] } of policies) {
    const host = registryOf(model);
    if (allowed_registries.length === 0) continue;
    if (host === undefined)
      shortcomings.push(`source_url: tells no registry, and only ${listed(allowed_registries)} is allowed`);
    else if (!allowed_registries.some((entry) => allows(entry, host)))
      shortcomings.push(
        `source_url: ${host} is not among the allowed registries (${listed(allowed_registries)})`,
      );
  }
  if (isStrict || policies.some(({ require_signature }) => require_signature)) {
    const signatures = model.signatures ?? [];
    const roots = policies.flatMap(({ ca_roots = [] }) => (ca_roots.length > 0 ? [namesOf(ca_roots)] : []));
    const counts = ({ signer, verified }: { signer: string; verified: boolean }): boolean =>
      verified && roots.every((names) => names.has(signer));
    if (signatures.length === 0) shortcomings.push('signatures: the model is not signed');
    else if (!signatures.some(({ verified }) => verified))
      shortcomings.push('signatures: none of them is verified');
    else if (!signatures.some(counts))
      shortcomings.push('signatures: none of the verified ones is by a signer in ca_roots');
  }
  if (policies.some(({ require_sbom }) => require_sbom) && !model.sbom)
    shortcomings.push('sbom: is required, and the model has none');
  return { isRefused: isStrict && shortcomings.length > 0, shortcomings };
}

/** The refusal of what was found. */
export function untrustedModel(id: string, { shortcomings }: TrustFinding): Failure {
  return failure('UNTRUSTED_ARTIFACT', `model "${id}" is not trusted: ${shortcomings.join('; ')}`);
}

/** The host that a model comes from: that of its address, or of its reference. */
function registryOf({ id, source_url = id }: Pick<CatalogModel, 'id' | 'source_url'>): string | undefined {
  const name = parseModel(source_url);
  switch (name.kind) {
    case 'hf':
      return HUB;
    case 'oci':
      return name.registry.toLowerCase();
    case 's3':
      return `${name.bucket}.s3.amazonaws.com`;
    case 'file':
    case 'bundled':
      return 'localhost';
    case 'https':
      return URL.parse(name.url)?.host;
    default:
      return URL.parse(source_url)?.host || undefined;
  }
}

function allows(entry: string, host: string): boolean {
  const name = entry.toLowerCase();
  const known = HUB_HOSTS.includes(name) ? HUB_HOSTS : [name];
  const hostname = host.replace(/:\d+$/, '');
  return known.some((one) => one === host || one === hostname || hostname.endsWith(`.${one}`));
}

/** Common names and fingerprints of certificates; one that cannot be read names nobody. */
function namesOf(roots: readonly string[]): Set<string> {
  const names = new Set<string>();
  for (const pem of roots) {
    try {
      const { subject, fingerprint256 } = new X509Certificate(pem);
      const [, common] = /^CN=(.+)$/m.exec(subject) ?? [];
      if (common !== undefined) names.add(common);
      names.add(fingerprint256);
    } catch {
      // An entry of the catalog may hold any text here; whom it names cannot be told.
    }
  }
  return names;
}

function listed(hosts: readonly string[]): string {
  return hosts.join(', ');
}
