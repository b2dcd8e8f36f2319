import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What goes wrong with one answer that has a file in it. */
export interface BodyFault {
  /** The connection breaks after this many bytes of the body. */
  cut_after?: number;
  /** The server falls silent after this many bytes of the body. */
  stall_after?: number;
  /** The body ends after this many bytes, and its headers say that this is all. */
  end_after?: number;
  /** As if it had never heard of ranges. */
  ignores_range?: boolean;
  /** An answer without the file. */
  status?: number;
  headers?: Record<string, string>;
  /** Other bytes than promised. */
  body?: Buffer;
  etag?: string;
}

export interface SeenRequest {
  host: 'hub' | 'storage';
  method: string;
  path: string;
  headers: IncomingMessage['headers'];
}

interface Repository {
  /** Commit by branch or tag; a commit stands for itself. */
  revisions: Map<string, string>;
  files: Map<string, Map<string, Buffer>>;
  token?: string;
  gated?: boolean;
}

export const sha256 = (bytes: Buffer | string): string => createHash('sha256').update(bytes).digest('hex');

/**
 * A model hub, an OCI registry and a plain file server on one port, and on another one, under another name, the
 * storage that the first two redirect to with addresses that expire.
 */
export class FakeRegistry {
  readonly seen: SeenRequest[] = [];
  /** Called for each request for a file. */
  fault: (request: SeenRequest) => BodyFault | undefined = () => undefined;
  /** Called for each other request. */
  refuse: (request: SeenRequest) => { status: number; headers?: Record<string, string> } | undefined = () =>
    undefined;
  /** How often a signed address may be used. */
  uses_of_address = Infinity;
  /** Entries in one page of a listing. */
  page_size = 1000;
  /** Where files are redirected to instead of the storage. */
  redirect: ((path: string) => string) | undefined;
  readonly #repositories = new Map<string, Repository>();
  readonly #blobs = new Map<string, Buffer>();
  readonly #files = new Map<string, Buffer>();
  readonly #manifests = new Map<string, Buffer>();
  readonly #signed = new Map<string, { blob: string; uses: number }>();
  readonly #hub: Server;
  readonly #storage: Server;
  #oci_token = 'first-token';

  private constructor() {
    this.#hub = createServer((request, response) => this.#answerHub(request, response));
    this.#storage = createServer((request, response) => this.#answerStorage(request, response));
  }

  static async start(): Promise<FakeRegistry> {
    const registry = new FakeRegistry();
    for (const server of [registry.#hub, registry.#storage]) {
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
    }
    return registry;
  }

  async close(): Promise<void> {
    for (const server of [this.#hub, this.#storage]) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  }

  /** `127.0.0.1:port` of hub, registry and files. */
  get host(): string {
    return `127.0.0.1:${(this.#hub.address() as AddressInfo).port}`;
  }

  get url(): string {
    return `http://${this.host}`;
  }

  /** `localhost:port` of the storage. */
  get storage_host(): string {
    return `localhost:${(this.#storage.address() as AddressInfo).port}`;
  }

  requests(host: SeenRequest['host'], pattern = /./): SeenRequest[] {
    return this.seen.filter((request) => request.host === host && pattern.test(request.path));
  }

  /** Bytes that requests for files asked for, by where they begin. */
  offsets(host: SeenRequest['host'] = 'storage'): number[] {
    return this.requests(host).map(({ headers }) =>
      Number(/^bytes=(\d+)-/.exec(headers.range ?? '')?.[1] ?? 0),
    );
  }

  /** @returns the commit */
  addRepository(
    name: string,
    files: Record<string, Buffer>,
    { revision = 'main', ...rest }: { revision?: string; token?: string; gated?: boolean } = {},
  ): string {
    const repository = this.#repositories.get(name) ?? { revisions: new Map(), files: new Map() };
    const listing = Object.entries(files).map(([path, bytes]) => `${path} ${sha256(bytes)}`);
    const commit = sha256(listing.join('\n')).slice(0, 40);
    repository.revisions.set(revision, commit);
    repository.files.set(commit, new Map(Object.entries(files)));
    this.#repositories.set(name, Object.assign(repository, rest));
    return commit;
  }

  /** @returns digest of the manifest */
  addImage(
    repository: string,
    tag: string,
    layers: { bytes: Buffer; media_type: string; title?: string }[],
  ): string {
    const described = layers.map(({ bytes, media_type, title }) => {
      this.#blobs.set(sha256(bytes), bytes);
      return {
        mediaType: media_type,
        digest: `sha256:${sha256(bytes)}`,
        size: bytes.length,
        ...(title === undefined ? {} : { annotations: { 'org.opencontainers.image.title': title } }),
      };
    });
    const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, layers: described }));
    const digest = `sha256:${sha256(manifest)}`;
    for (const reference of [tag, digest]) this.#manifests.set(`${repository}:${reference}`, manifest);
    return digest;
  }

  /** A manifest that leads to others. */
  addIndex(repository: string, tag: string, digest: string): void {
    const index = JSON.stringify({ schemaVersion: 2, manifests: [{ digest }] });
    this.#manifests.set(`${repository}:${tag}`, Buffer.from(index));
  }

  /** Tokens that were given out are not accepted any more. */
  expireTokens(): void {
    this.#oci_token += '+';
  }

  addFile(path: string, bytes: Buffer): string {
    this.#files.set(path, bytes);
    return `${this.url}/files/${path}`;
  }

  #see(host: SeenRequest['host'], { method = '', url = '', headers }: IncomingMessage): SeenRequest {
    const request = { host, method, path: url, headers };
    this.seen.push(request);
    return request;
  }

  #answerHub(request: IncomingMessage, response: ServerResponse): void {
    const seen = this.#see('hub', request);
    const refused = this.refuse(seen);
    if (refused) return void response.writeHead(refused.status, refused.headers).end();
    const { pathname } = new URL(seen.path, this.url);
    const path = decodeURIComponent(pathname);
    if (path.startsWith('/files/')) {
      const bytes = this.#files.get(path.slice('/files/'.length));
      return bytes ? this.#sendFile(seen, response, bytes) : void response.writeHead(404).end();
    }
    if (path.startsWith('/v2/') || path === '/token') return this.#answerOci(seen, path, response);
    const api = /^\/api\/models\/([^/]+\/[^/]+)\/(revision|tree)\/([^?]+)$/.exec(path);
    const file = /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(path);
    const name = api?.[1] ?? file?.[1] ?? '';
    const repository = this.#repositories.get(name);
    if (!repository || (repository.token !== undefined && !hasToken(seen, repository.token)))
      return void response.writeHead(401, { 'x-error-code': 'RepoNotFound' }).end();
    if (repository.gated) return void response.writeHead(403, { 'x-error-code': 'GatedRepo' }).end();
    const revision = api?.[3] ?? file?.[2] ?? '';
    const commit = repository.revisions.get(revision) ?? revision;
    const files = repository.files.get(commit);
    if (!files) return void response.writeHead(404, { 'x-error-code': 'RevisionNotFound' }).end();
    if (api?.[2] === 'revision') return sendJson(response, { id: name, sha: commit });
    if (api) return this.#sendTree(seen, response, files);
    const bytes = files.get(file?.[3] ?? '');
    if (!bytes) return void response.writeHead(404, { 'x-error-code': 'EntryNotFound' }).end();
    if (!isLarge(file?.[3] ?? '')) return this.#sendFile(seen, response, bytes);
    this.#redirect(response, bytes, {
      'x-repo-commit': commit,
      'x-linked-size': String(bytes.length),
      'x-linked-etag': `"${sha256(bytes)}"`,
    });
  }

  #sendTree(seen: SeenRequest, response: ServerResponse, files: ReadonlyMap<string, Buffer>): void {
    const url = new URL(seen.path, this.url);
    const from = Number(url.searchParams.get('cursor') ?? 0);
    const page = [...files].slice(from, from + this.page_size);
    url.searchParams.set('cursor', String(from + this.page_size));
    const link = from + this.page_size < files.size ? { link: `<${url.href}>; rel="next"` } : undefined;
    sendJson(
      response,
      page.map(([path, bytes]) => ({
        type: 'file',
        path,
        size: bytes.length,
        oid: createHash('sha1').update(bytes).digest('hex'),
        ...(isLarge(path) ? { lfs: { oid: sha256(bytes), size: bytes.length } } : {}),
      })),
      link,
    );
  }

  #answerOci(seen: SeenRequest, path: string, response: ServerResponse): void {
    if (path === '/token') return sendJson(response, { token: this.#oci_token });
    const match = /^\/v2\/(.+)\/(manifests|blobs)\/(.+)$/.exec(path);
    const [, name = '', kind, reference = ''] = match ?? [];
    if (!hasToken(seen, this.#oci_token)) {
      const challenge = `Bearer realm="${this.url}/token",service="fake",scope="repository:${name}:pull"`;
      return void response.writeHead(401, { 'www-authenticate': challenge }).end();
    }
    if (kind === 'manifests') {
      const manifest = this.#manifests.get(`${name}:${reference}`);
      return void response.writeHead(manifest ? 200 : 404).end(manifest);
    }
    const blob = this.#blobs.get(reference.replace('sha256:', ''));
    if (!blob) return void response.writeHead(404).end();
    this.#redirect(response, blob, {});
  }

  #redirect(response: ServerResponse, bytes: Buffer, headers: Record<string, string>): void {
    const blob = sha256(bytes);
    const signature = String(this.#signed.size + 1);
    this.#blobs.set(blob, bytes);
    this.#signed.set(signature, { blob, uses: 0 });
    const path = `/blobs/${blob}?signature=${signature}`;
    const location = this.redirect?.(path) ?? `http://${this.storage_host}${path}`;
    response.writeHead(302, { location, ...headers }).end();
  }

  #answerStorage(request: IncomingMessage, response: ServerResponse): void {
    const seen = this.#see('storage', request);
    const signature = new URL(seen.path, this.url).searchParams.get('signature') ?? '';
    const signed = this.#signed.get(signature);
    const bytes = signed && this.#blobs.get(signed.blob);
    if (!bytes || ++signed.uses > this.uses_of_address) return void response.writeHead(403).end();
    this.#sendFile(seen, response, bytes);
  }

  #sendFile(seen: SeenRequest, response: ServerResponse, promised: Buffer): void {
    const fault = this.fault(seen) ?? {};
    if (fault.status !== undefined) return void response.writeHead(fault.status, fault.headers).end();
    const bytes = fault.body ?? promised;
    const etag = fault.etag ?? `"${sha256(bytes).slice(0, 16)}"`;
    const if_range = seen.headers['if-range'];
    const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(seen.headers.range ?? '') ?? [];
    const isRange =
      from !== undefined && !fault.ignores_range && (if_range === undefined || if_range === etag);
    const start = isRange ? Number(from) : 0;
    const end = isRange && to !== '' ? Math.min(Number(to) + 1, bytes.length) : bytes.length;
    if (isRange && start >= bytes.length)
      return void response.writeHead(416, { 'content-range': `bytes */${bytes.length}` }).end();
    const body = bytes.subarray(start, Math.min(end, start + (fault.end_after ?? Infinity)));
    response.writeHead(isRange ? 206 : 200, {
      etag,
      'content-length': String(fault.end_after === undefined ? end - start : body.length),
      ...(isRange ? { 'content-range': `bytes ${start}-${end - 1}/${bytes.length}` } : {}),
      ...fault.headers,
    });
    const stop = fault.cut_after ?? fault.stall_after;
    if (stop === undefined || stop >= body.length) return void response.end(body);
    response.flushHeaders();
    const part = body.subarray(0, stop);
    const sent = () => {
      // Only what has left is surely sent: a reset takes with it what has not.
      if (fault.cut_after !== undefined) response.socket?.destroySoon();
    };
    if (part.length === 0) sent();
    else response.write(part, sent);
  }
}

/** Small files are kept in git itself: no redirect, and no sha256. */
function isLarge(path: string): boolean {
  return /\.(gguf|safetensors|bin)$/.test(path);
}

function hasToken({ headers }: SeenRequest, token: string): boolean {
  return headers.authorization === `Bearer ${token}`;
}

function sendJson(response: ServerResponse, body: unknown, headers: Record<string, string> = {}): void {
  response.writeHead(200, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
}
