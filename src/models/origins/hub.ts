import { isPlainPath, type HubModelName } from '../../config/model.ts';
import { unobtainable, untrusted } from '../failures.ts';
import { openOverWeb } from '../web-body.ts';
import { text, type Credential, type Web, type WebAnswer } from '../web.ts';
import { ggufModels, ofQuant, partOfSet, quantsOf } from './gguf-parts.ts';
import type { RemoteFile, RemoteModel } from './origin.ts';

export interface Hub {
  /** Base URL, without a slash at its end. */
  endpoint: string;
  token?: string | undefined;
}

interface TreeEntry {
  type?: string;
  path?: string;
  size?: number;
  lfs?: { oid?: string; size?: number };
}

/** Repositories of more files than this are not models. */
const MAX_PAGES = 50;

/** Pins a reference to the commit that it means now, and finds its files. @throws TaskchartError */
export async function resolveHub(
  name: HubModelName,
  hub: Hub,
  web: Web,
  signal: AbortSignal,
): Promise<RemoteModel> {
  const base = new URL(`${hub.endpoint}/`);
  const credential: Credential | undefined =
    hub.token === undefined ? undefined : { origin: base.origin, header: () => `Bearer ${hub.token}` };
  const ask = async (url: URL): Promise<WebAnswer & { json: unknown }> => {
    const answer = await web.read(url, { credential, signal, headers: { accept: 'application/json' } });
    if (answer.status !== 200) throw hubRefusal(answer, name, hub);
    return { ...answer, json: parse(answer.text, url) };
  };

  const revision = encodeURIComponent(name.revision ?? 'main');
  const info = await ask(new URL(`api/models/${name.repo}/revision/${revision}`, base));
  const { sha } = info.json as { sha?: unknown };
  if (typeof sha !== 'string' || !/^[0-9a-f]{40}$/.test(sha))
    throw unobtainable(`${base.host} does not tell the commit of ${name.repo}`);

  const entries = new Map<string, TreeEntry>();
  let page: URL | undefined = new URL(`api/models/${name.repo}/tree/${sha}?recursive=true`, base);
  for (let pages = 0; page; pages++) {
    if (pages === MAX_PAGES) throw unobtainable(`${name.repo} has too many files`);
    const answer: WebAnswer & { json: unknown } = await ask(page);
    for (const entry of Array.isArray(answer.json) ? (answer.json as TreeEntry[]) : [])
      if (entry.type === 'file' && typeof entry.path === 'string') entries.set(entry.path, entry);
    const next = /<([^>]+)>;\s*rel="?next"?/.exec(text(answer.headers, 'link') ?? '')?.[1];
    page = next === undefined ? undefined : new URL(next, page);
  }

  const isFolder = name.file === undefined && name.quant === undefined;
  const wanted = isFolder ? wholeRepository([...entries.keys()]) : choose(name, [...entries.keys()]);
  const files = wanted.map((path): RemoteFile => {
    if (!isPlainPath(path)) throw untrusted(`${name.repo} has a file whose name leads out of its folder`);
    const { size, lfs } = entries.get(path) ?? {};
    const url = new URL(
      `${name.repo}/resolve/${sha}/${path.split('/').map(encodeURIComponent).join('/')}`,
      base,
    );
    const digest = lfs?.oid !== undefined && /^[0-9a-f]{64}$/.test(lfs.oid) ? `sha256:${lfs.oid}` : undefined;
    return {
      name: path,
      size_bytes: lfs?.size ?? size,
      digest,
      origin: url.href,
      open: openOverWeb(web, { url, credential }),
    };
  });
  // A folder that is handed over whole holds nothing that came by another reference.
  return { revision: sha, folder: `hf/${name.repo}/${sha}${isFolder ? '.all' : ''}`, files, isFolder };
}

function wholeRepository(paths: readonly string[]): string[] {
  return paths.filter((path) => !/^\.git(attributes|ignore)$/.test(path));
}

/** The one model that is meant, in the order of its parts. */
function choose({ repo, file, quant }: HubModelName, paths: readonly string[]): string[] {
  if (file !== undefined) {
    if (!paths.includes(file)) throw unobtainable(`${repo} has no file ${file}${hint(paths)}`);
    const part = partOfSet(file);
    if (!part) return [file];
    const parts = ggufModels(paths).find((names) => names.includes(file));
    if (!parts) throw unobtainable(`${repo} does not have all ${part.count} parts of ${file}`);
    return parts;
  }
  const found = ofQuant(ggufModels(paths), quant ?? '');
  const [only, other] = found;
  if (!only) throw unobtainable(`${repo} has no GGUF of quantisation ${quant}${hint(paths)}`);
  if (other) {
    const names = found.map(([first]) => `hf:${repo}/${first}`).join(', ');
    throw unobtainable(`${repo} has several GGUFs of quantisation ${quant}; name one of ${names}`);
  }
  return only;
}

function hint(paths: readonly string[]): string {
  const models = ggufModels(paths);
  if (models.length === 0) return '; it has no GGUF at all';
  const quants = quantsOf(models);
  return quants.length > 0
    ? `; it has ${quants.join(', ')}`
    : `; it has ${models.flat().slice(0, 8).join(', ')}`;
}

function hubRefusal(answer: WebAnswer, { repo, revision }: HubModelName, { token }: Hub): Error {
  const code = text(answer.headers, 'x-error-code');
  const { host } = answer.url;
  if (code === 'GatedRepo')
    return unobtainable(
      token === undefined
        ? `${repo} is gated: accept its terms on ${host}, and set HF_TOKEN`
        : `${repo} is gated: accept its terms on ${host} with the account that HF_TOKEN belongs to`,
    );
  if (code === 'RevisionNotFound') return unobtainable(`${repo} has no revision ${revision ?? 'main'}`);
  if (answer.status === 401 || answer.status === 403)
    return unobtainable(
      token === undefined
        ? `${host} has no public repository ${repo}; set HF_TOKEN if it is a private one`
        : `${host} has no repository ${repo} that HF_TOKEN may read`,
    );
  if (answer.status === 404) return unobtainable(`${host} has no repository ${repo}`);
  return unobtainable(`${host} answered ${answer.status} for ${repo}`);
}

function parse(body: string, url: URL): unknown {
  try {
    return JSON.parse(body);
  } catch {
    throw unobtainable(`${url.host} does not answer as a model hub does; check HF_ENDPOINT`);
  }
}
