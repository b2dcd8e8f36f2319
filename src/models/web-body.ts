import type { OpenBody } from './download.ts';
import { unobtainable } from './failures.ts';
import { TransientError } from './retry.ts';
import { discard, text, transient, type Credential, type Web, type WebAnswer } from './web.ts';

/** What may have arrived without being on disk yet. */
const MAX_HELD_BYTES = 1024 * 1024;

export interface WebFile {
  url: URL;
  credential?: Credential | undefined;
}

/**
 * A file over HTTP. Every call starts at the file's own address, so that a signed address behind it that has expired
 * is signed again.
 */
export function openOverWeb(web: Web, { url, credential }: WebFile): OpenBody {
  return async (offset, validator, signal) => {
    const answer = await web.open('GET', url, {
      credential,
      signal,
      headers:
        offset === 0
          ? {}
          : { range: `bytes=${offset}-`, ...(validator === undefined ? {} : { 'if-range': validator }) },
    });
    const { status, headers, body } = answer;
    if (status === 416 && offset > 0) {
      discard(body);
      return undefined;
    }
    if (status !== 200 && status !== 206) {
      discard(body);
      throw refusal(answer, url);
    }
    const encoding = text(headers, 'content-encoding');
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(text(headers, 'content-range') ?? '');
    if ((encoding !== undefined && encoding !== 'identity') || (status === 206 && !range)) {
      discard(body);
      throw unobtainable(`${answer.url.host} sends the file in a form that was not asked for`);
    }
    return {
      offset: status === 206 ? Number(range?.[1]) : 0,
      total: numberOf(status === 206 ? range?.[2] : text(headers, 'content-length')),
      validator: strongTag(text(headers, 'etag')),
      digest: linkedDigest(answer),
      chunks: readable(answer, signal),
    };
  };
}

/** What a registry tells about a file, from an answer on the way to it. */
export interface WebFacts {
  size_bytes: number | undefined;
  validator: string | undefined;
  digest: string | undefined;
}

/** Asks for a single byte: servers that sign addresses for GET refuse HEAD. */
export function factsOf(answer: WebAnswer): WebFacts {
  const { status, headers } = answer;
  discard(answer.body);
  const range = /\/(\d+)$/.exec(text(headers, 'content-range') ?? '')?.[1];
  return {
    size_bytes: numberOf(status === 206 ? range : text(headers, 'content-length')),
    validator: strongTag(text(headers, 'etag')),
    digest: linkedDigest(answer),
  };
}

/**
 * What an answer that is no file means. A refusal by another host than the one that was asked is an address that has
 * expired; one by the host itself is meant.
 */
export function refusal({ status, url }: WebAnswer, asked: URL): Error {
  if (url.origin !== asked.origin && [400, 401, 403, 404, 410].includes(status))
    return new TransientError(`${url.host} answered ${status}: the signed address may have expired`);
  if (status === 401 || status === 403)
    return unobtainable(
      `${url.host} does not give out the file (${status}): it needs a token, or another one`,
    );
  if (status === 404 || status === 410)
    return unobtainable(`${url.host} does not have the file (${status}); check its name`);
  return unobtainable(`${url.host} answered ${status}`);
}

/**
 * The body as it arrives. A stream forgets what it holds when its connection breaks; here every byte that came is
 * given out before the failure is, so that none of them is fetched twice.
 */
function readable({ body, url }: WebAnswer, signal: AbortSignal): AsyncIterable<Uint8Array> {
  const arrived: Uint8Array[] = [];
  let held = 0;
  let over: { error?: unknown } | undefined;
  let wake = () => {};
  const end = (error?: unknown) => {
    over ??= error === undefined ? {} : { error };
    wake();
  };
  body
    .on('data', (chunk: Uint8Array) => {
      arrived.push(chunk);
      held += chunk.length;
      if (held > MAX_HELD_BYTES) body.pause();
      wake();
    })
    .on('end', () => end())
    .on('error', end)
    .on('close', () => end(new Error('closed')));
  const chunks = async function* () {
    try {
      for (;;) {
        if (arrived.length > 0) {
          // A few large writes cost less than many small ones.
          const chunk = Buffer.concat(arrived.splice(0));
          held = 0;
          body.resume();
          yield chunk;
        } else if (over) {
          if ('error' in over) throw transient(over.error, url, signal);
          return;
        } else await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      discard(body);
    }
  };
  // Not a generator itself: it has to hear what happens before somebody reads.
  return chunks();
}

function numberOf(digits: string | undefined): number | undefined {
  return digits !== undefined && /^\d+$/.test(digits) ? Number(digits) : undefined;
}

/** A weak tag says that two bodies mean the same, not that they have the same bytes. */
function strongTag(tag: string | undefined): string | undefined {
  return tag !== undefined && /^"[^"]+"$/.test(tag) ? tag : undefined;
}

/** The hub names the sha256 of what it redirects to. */
function linkedDigest({ hops, headers }: WebAnswer): string | undefined {
  for (const hop of [...hops, headers]) {
    const hex = /^"?([0-9a-f]{64})"?$/.exec(text(hop, 'x-linked-etag') ?? '')?.[1];
    if (hex !== undefined) return `sha256:${hex}`;
  }
  return undefined;
}
