import { isAbsolute, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The bundled model. */
const STORYTELLER = 'storyteller';

/** A model as a pool names it. */
export type ModelName = LoadableModelName | CatalogModelName;

/** A model whose place the reference tells by itself. */
export type LoadableModelName =
  { kind: 'bundled'; name: typeof STORYTELLER } | { kind: 'file'; path: string } | RemoteModelName;

/** A model whose place the catalog knows. */
export interface CatalogModelName {
  kind: 'catalog';
  /** Its id there, or `sha256:` and a digest. */
  id: string;
}

/** A model that has to be fetched. */
export type RemoteModelName = HubModelName | HttpsModelName | S3ModelName | OciModelName;

export interface HubModelName {
  kind: 'hf';
  /** `org/repo`. */
  repo: string;
  /** Branch, tag or commit. @default the hub's `main` */
  revision?: string;
  /** One GGUF by its path in the repository; neither this nor `quant` means all of it. */
  file?: string;
  /** One GGUF by its quantisation, such as Q4_K_M. */
  quant?: string;
}

export interface HttpsModelName {
  kind: 'https';
  url: string;
}

export interface S3ModelName {
  kind: 's3';
  bucket: string;
  key: string;
}

export interface OciModelName {
  kind: 'oci';
  /** Host, with its port if it has one. */
  registry: string;
  repository: string;
  /** A tag, or `sha256:` and a digest. */
  reference: string;
}

/** What is wrong with a reference, to go after "must be". */
export interface ModelNameMistake {
  kind: 'mistake';
  expected: string;
}

const CATALOG = 'catalog:';
const DIGEST = /^sha256:[0-9a-f]{64}$/;
const FORMS =
  'storyteller, file:/path/model.gguf or the path of a GGUF file, hf:org/repo/path/file.gguf, hf:org/repo:QUANT, ' +
  'https://host/file.gguf, s3://bucket/key, oci://registry/repo:tag, or a model of the catalog: its id, catalog:id ' +
  'or sha256: and 64 hex digits';
const HUB_FORMS =
  'hf:org/repo/path/file.gguf, hf:org/repo:QUANT or hf:org/repo, each with @revision if need be';

/** @returns the name, or what a right one looks like */
export function parseModel(text: string): ModelName | ModelNameMistake {
  if (text === STORYTELLER) return { kind: 'bundled', name: STORYTELLER };
  if (DIGEST.test(text)) return { kind: 'catalog', id: text };
  if (text.startsWith(CATALOG)) return fromCatalog(text.slice(CATALOG.length));
  if (/^file:\/\//i.test(text)) return fromFileUrl(text);
  if (/^file:./i.test(text)) return { kind: 'file', path: text.slice('file:'.length) };
  // One letter before the colon is a drive.
  const scheme = isAbsolute(text) ? undefined : /^([a-z][a-z0-9+.-]+):/i.exec(text)?.[1]?.toLowerCase();
  switch (scheme) {
    case undefined:
      return isBareId(text) ? { kind: 'catalog', id: text } : { kind: 'file', path: text };
    case 'hf':
      return fromHub(text.slice('hf:'.length));
    case 'https':
    case 'http':
      return fromUrl(text);
    case 's3':
      return fromBucket(text.slice('s3:'.length));
    case 'oci':
      return fromRegistry(text.slice('oci:'.length));
    default:
      return mistake(FORMS);
  }
}

/** What a reference calls a model in the catalog; any other reference is a name there as it is. */
export function catalogIdOf(model_ref: string): string {
  return model_ref.startsWith(CATALOG) ? model_ref.slice(CATALOG.length) : model_ref;
}

/** Whether a name may be that of a model in the catalog: one line, and nothing in it leads up. */
export function isCatalogId(id: string): boolean {
  return (
    id.length <= 512 &&
    id.trim() !== '' &&
    // oxlint-disable-next-line no-control-regex
    !/[\\\u0000-\u001f\u007f]/.test(id) &&
    !id.split(/[/:]/).some((part) => part === '.' || part === '..')
  );
}

/** The one name of a model: `storyteller`, `file:` and an absolute path, or its reference as it is written. */
export function modelId(model: ModelName, folder: string): string {
  switch (model.kind) {
    case 'bundled':
      return model.name;
    case 'catalog':
      return DIGEST.test(model.id) || isBareId(model.id) ? model.id : CATALOG + model.id;
    case 'file':
      return `file:${resolve(folder, model.path)}`;
    case 'hf': {
      const { repo, file, quant, revision } = model;
      const part = file === undefined ? (quant === undefined ? '' : `:${quant}`) : `/${file}`;
      return `hf:${repo}${part}${revision === undefined ? '' : `@${revision}`}`;
    }
    case 'https':
      return model.url;
    case 's3':
      return `s3://${model.bucket}/${model.key}`;
    case 'oci': {
      const sign = model.reference.includes(':') ? '@' : ':';
      return `oci://${model.registry}/${model.repository}${sign}${model.reference}`;
    }
  }
}

/** Only this machine is behind the host, so that nobody on the way can read or change what it sends. */
export function isLoopback(hostname: string): boolean {
  return /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/i.test(hostname);
}

/** Whether a path from elsewhere stays where it is put: plain names between slashes, and none that leads up. */
export function isPlainPath(path: string): boolean {
  return path.split('/').every(
    (part) =>
      part !== '' &&
      part !== '.' &&
      part !== '..' &&
      part.length <= 255 &&
      // oxlint-disable-next-line no-control-regex
      !/[\\\u0000-\u001f\u007f]/.test(part),
  );
}

function mistake(expected: string): ModelNameMistake {
  return { kind: 'mistake', expected };
}

function fromCatalog(id: string): ModelName | ModelNameMistake {
  return isCatalogId(id) ? { kind: 'catalog', id } : mistake("a model's id in the catalog after catalog:");
}

/** A name without scheme that is no path of a GGUF file. */
function isBareId(text: string): boolean {
  return (
    text !== STORYTELLER &&
    /^[A-Za-z0-9][^:]*$/.test(text) &&
    !/\.gguf$|\.\./i.test(text) &&
    isPlainPath(text) &&
    isCatalogId(text)
  );
}

function fromFileUrl(text: string): ModelName | ModelNameMistake {
  try {
    return { kind: 'file', path: fileURLToPath(text) };
  } catch {
    return mistake('file:/path/model.gguf');
  }
}

function fromHub(rest: string): ModelName | ModelNameMistake {
  const at = rest.indexOf('@');
  const [name, revision] = at < 0 ? [rest] : [rest.slice(0, at), rest.slice(at + 1)];
  const match = /^([A-Za-z0-9][\w.-]{0,95})\/([A-Za-z0-9][\w.-]{0,95})(?::(\w[\w.-]{0,63})|\/(.+))?$/.exec(
    name,
  );
  if (!match) return mistake(HUB_FORMS);
  const [, org = '', repo = '', quant, file] = match;
  if (`${org}/${repo}`.includes('..')) return mistake(HUB_FORMS);
  if (revision !== undefined && !isRevision(revision))
    return mistake(`a branch, tag or commit after @, such as hf:${org}/${repo}@main`);
  if (file !== undefined && !(isPlainPath(file) && /\.gguf$/i.test(file)))
    return mistake(`a path that ends in .gguf after hf:${org}/${repo}/`);
  return {
    kind: 'hf',
    repo: `${org}/${repo}`,
    ...(revision === undefined ? {} : { revision }),
    ...(file === undefined ? {} : { file }),
    ...(quant === undefined ? {} : { quant }),
  };
}

function isRevision(text: string): boolean {
  return /^[\w][\w./-]{0,254}$/.test(text) && isPlainPath(text);
}

function fromUrl(text: string): ModelName | ModelNameMistake {
  if (!URL.canParse(text)) return mistake('a URL such as https://host/path/model.gguf');
  const url = new URL(text);
  if (url.protocol === 'http:' && !isLoopback(url.hostname))
    return mistake('an https:// URL (http:// only goes with this machine itself)');
  if (url.username !== '' || url.password !== '') return mistake('a URL without user name and password');
  url.hash = '';
  return { kind: 'https', url: url.href };
}

function fromBucket(rest: string): ModelName | ModelNameMistake {
  const match = /^\/\/([a-z0-9][a-z0-9.-]{1,62})\/(.+)$/.exec(rest);
  const [, bucket = '', key = ''] = match ?? [];
  if (!match || !isPlainPath(key)) return mistake('s3://bucket/path/model.gguf');
  return { kind: 's3', bucket, key };
}

function fromRegistry(rest: string): ModelName | ModelNameMistake {
  const match =
    /^\/\/([A-Za-z0-9][A-Za-z0-9.-]*(?::\d{1,5})?|\[::1\](?::\d{1,5})?)\/([a-z0-9]+(?:[._/-]+[a-z0-9]+)*)(?::([\w][\w.-]{0,127})|@(sha256:[0-9a-f]{64}))?$/.exec(
      rest,
    );
  const [, registry = '', repository = '', tag, digest] = match ?? [];
  if (!match || !isPlainPath(repository))
    return mistake('oci://registry/repo:tag or oci://registry/repo@sha256:<64 hex digits>');
  return { kind: 'oci', registry, repository, reference: digest ?? tag ?? 'latest' };
}
