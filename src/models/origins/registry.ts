import { createHash } from 'node:crypto';
import { isLoopback, isPlainPath, type OciModelName } from '../../config/model.ts';
import { unobtainable, untrusted } from '../failures.ts';
import { openOverWeb } from '../web-body.ts';
import { type Credential, type Web } from '../web.ts';
import { baseName, partOfSet } from './gguf-parts.ts';
import type { RemoteFile, RemoteModel } from './origin.ts';

interface Descriptor {
  mediaType?: string;
  digest?: string;
  size?: number;
  annotations?: Record<string, string>;
}

interface Manifest {
  layers?: Descriptor[];
  manifests?: Descriptor[];
}

const ACCEPT = [
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.v2+json',
  'application/vnd.oci.image.index.v1+json',
].join(', ');
const TITLE = 'org.opencontainers.image.title';
const DIGEST = /^sha256:[0-9a-f]{64}$/;

/** Finds the layers that are a GGUF, pinned by the manifest's digest. @throws TaskchartError */
export async function resolveRegistry(
  name: OciModelName,
  web: Web,
  signal: AbortSignal,
): Promise<RemoteModel> {
  // The name that people write is not the one that serves.
  const registry = name.registry === 'docker.io' ? 'registry-1.docker.io' : name.registry;
  const { hostname } = new URL(`https://${registry}`);
  const base = new URL(`${isLoopback(hostname) ? 'http' : 'https'}://${registry}/v2/${name.repository}/`);
  const credential = registryToken(web, base, name.repository);
  const manifestOf = async (reference: string) => {
    const url = new URL(`manifests/${reference}`, base);
    const answer = await web.read(url, { credential, signal, headers: { accept: ACCEPT } });
    if (answer.status !== 200) throw registryRefusal(answer.status, name);
    const digest = `sha256:${createHash('sha256').update(answer.text).digest('hex')}`;
    if (DIGEST.test(reference) && digest !== reference)
      throw untrusted(`the manifest of ${name.repository} has the digest ${digest} instead of ${reference}`);
    return { digest, manifest: parse(answer.text, name) };
  };

  let { digest, manifest } = await manifestOf(name.reference);
  const [first] = manifest.manifests ?? [];
  if (first?.digest !== undefined && DIGEST.test(first.digest))
    ({ digest, manifest } = await manifestOf(first.digest));

  const layers = modelLayers(manifest.layers ?? [], name);
  const files = layers.map((layer, at): RemoteFile => {
    const blob = layer.digest ?? '';
    if (!DIGEST.test(blob)) throw unobtainable(`${name.repository} has a layer without a sha256 digest`);
    const url = new URL(`blobs/${blob}`, base);
    return {
      name: fileName(layer, at, layers.length),
      size_bytes: layer.size,
      digest: blob,
      origin: blob,
      open: openOverWeb(web, { url, credential }),
    };
  });
  const host = name.registry.replaceAll(/[:[\]]/g, '_');
  const folder = `oci/${host}/${name.repository}/${digest.replace(':', '-')}`;
  return { revision: digest, folder, files, isFolder: false };
}

/** A GGUF by its media type, or else by its title. */
function modelLayers(layers: readonly Descriptor[], { repository }: OciModelName): Descriptor[] {
  const typed = layers.filter(
    ({ mediaType = '' }) => /gguf|ollama\.image\.model$/.test(mediaType) && !/mmproj|lora/.test(mediaType),
  );
  const found =
    typed.length > 0 ? typed : layers.filter((layer) => /\.gguf$/i.test(layer.annotations?.[TITLE] ?? ''));
  if (found.length === 0) throw unobtainable(`${repository} has no layer that is a GGUF`);
  const titles = found.map((layer) => layer.annotations?.[TITLE]);
  const areParts = titles.every((title) => title === undefined || partOfSet(title)?.count === found.length);
  if (found.length > 1 && !areParts)
    throw unobtainable(`${repository} has several GGUFs (${titles.join(', ')}); give a tag that has one`);
  // Parts without a title are in the order of the manifest.
  return found.toSorted((a, b) => (a.annotations?.[TITLE] ?? '').localeCompare(b.annotations?.[TITLE] ?? ''));
}

function fileName(layer: Descriptor, at: number, count: number): string {
  const title = layer.annotations?.[TITLE];
  if (title !== undefined && !isPlainPath(title)) throw untrusted('a layer’s title leads out of its folder');
  if (title !== undefined && /\.gguf$/i.test(title)) return baseName(title);
  const number = (n: number) => String(n).padStart(5, '0');
  return count === 1 ? 'model.gguf' : `model-${number(at + 1)}-of-${number(count)}.gguf`;
}

/** Anonymous access is by a token as well, which the registry says where to get; it lives for minutes. */
function registryToken(web: Web, base: URL, repository: string): Credential {
  let token: string | undefined;
  return {
    origin: base.origin,
    header: () => (token === undefined ? undefined : `Bearer ${token}`),
    async renew(challenge, signal) {
      const field = (name: string) => new RegExp(`${name}="([^"]*)"`, 'i').exec(challenge)?.[1];
      const realm = field('realm') ?? '';
      if (!/^Bearer /i.test(challenge) || !URL.canParse(realm)) return false;
      const url = new URL(realm);
      if (url.protocol !== 'https:' && !(url.protocol === 'http:' && isLoopback(url.hostname)))
        throw unobtainable(`${base.host} wants its tokens fetched over ${url.protocol}//, which is refused`);
      const service = field('service');
      if (service !== undefined) url.searchParams.set('service', service);
      url.searchParams.set('scope', field('scope') ?? `repository:${repository}:pull`);
      const answer = await web.read(url, { signal });
      if (answer.status !== 200) return false;
      try {
        const body = JSON.parse(answer.text) as { token?: string; access_token?: string };
        token = body.token ?? body.access_token;
      } catch {
        token = undefined;
      }
      return token !== undefined;
    },
  };
}

function registryRefusal(status: number, { registry, repository, reference }: OciModelName): Error {
  if (status === 401 || status === 403)
    return unobtainable(`${registry} does not give out ${repository} to everybody (${status})`);
  if (status === 404) return unobtainable(`${registry} has no ${repository}:${reference}`);
  return unobtainable(`${registry} answered ${status} for ${repository}:${reference}`);
}

function parse(body: string, { registry }: OciModelName): Manifest {
  try {
    const manifest: unknown = JSON.parse(body);
    if (typeof manifest === 'object' && manifest !== null) return manifest as Manifest;
  } catch {
    // Below.
  }
  throw unobtainable(`${registry} does not answer as a registry does`);
}
