import { isAbsolute, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The bundled model. */
const STORYTELLER = 'storyteller';

/** A model as a pool names it. */
export type ModelName =
  { kind: 'bundled'; name: typeof STORYTELLER } | { kind: 'file'; path: string } | RemoteModelName;

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

const FORMS =
  'storyteller, file:/path/model.gguf or the path of a GGUF file, hf:org/repo/path/file.gguf, hf:org/repo:QUANT, ' +
  'https://host/file.gguf, s3://bucket/key or oci://registry/repo:tag';
const HUB_FORMS =
  'hf:org/repo/path/file.gguf, hf:org/repo:QUANT or hf:org/repo, each with @revision if need be';

/** @returns the name, or what a right one looks like */
export function parseModel(text: string): ModelName | ModelNameMistake {
  if (text === STORYTELLER) return { kind: 'bundled', name: STORYTELLER };
  if (/^file:\/\//i.test(text)) return fromFileUrl(text);
  if (/^file:./i.test(text)) return { kind: 'file', path: text.slice('file:'.length) };
  // One letter before the colon is a drive.
  const scheme = isAbsolute(text) ? undefined : /^([a-z][a-z0-9+.-]+):/i.exec(text)?.[1]?.toLowerCase();
  switch (scheme) {
    case undefined:
      return { kind: 'file', path: text };
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

/** The one name of a model: `storyteller`, `file:` and an absolute path, or its reference as it is written. */
export function modelId(model: ModelName, folder: string): string {
  switch (model.kind) {
    case 'bundled':
      return model.name;
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
  const match = /^([A-Za-z0-9][\w.-]{0,95})\/([A-Za-z0-9][\w.-]{0,95})(?::([\w.-]{1,64})|\/(.+))?$/.exec(
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
