import { createHash } from 'node:crypto';
import { isPlainPath, type HttpsModelName } from '../../config/model.ts';
import { retrying } from '../retry.ts';
import { factsOf, openOverWeb, refusal } from '../web-body.ts';
import { discard, type Credential, type Web } from '../web.ts';
import type { Hub } from './hub.ts';
import type { RemoteModel } from './origin.ts';

/** One file at an address. @throws TaskchartError */
export async function resolveUrl(
  name: HttpsModelName,
  hub: Hub,
  web: Web,
  signal: AbortSignal,
): Promise<RemoteModel> {
  const url = new URL(name.url);
  const origin = new URL(hub.endpoint).origin;
  const credential: Credential | undefined =
    hub.token === undefined ? undefined : { origin, header: () => `Bearer ${hub.token}` };
  const facts = await retrying(web.retry, signal, async () => {
    const answer = await web.open('GET', url, { credential, signal, headers: { range: 'bytes=0-0' } });
    if (answer.status === 200 || answer.status === 206) return factsOf(answer);
    discard(answer.body);
    throw refusal(answer, url);
  });
  const last = fileNameOf(url, 'model.gguf');
  const hash = createHash('sha256')
    .update(`${url.href}\n${facts.validator ?? ''}`)
    .digest('hex')
    .slice(0, 16);
  return {
    revision: facts.validator?.replaceAll('"', ''),
    folder: `https/${url.host.replaceAll(/[:[\]]/g, '_')}/${hash}`,
    isFolder: false,
    files: [
      {
        name: last,
        size_bytes: facts.size_bytes,
        digest: facts.digest,
        origin: url.href,
        open: openOverWeb(web, { url, credential }),
      },
    ],
  };
}

/** The last part of an address, where a file here may be called that. */
export function fileNameOf(url: URL, otherwise: string): string {
  try {
    const name = decodeURIComponent(url.pathname.slice(url.pathname.lastIndexOf('/') + 1));
    return isPlainPath(name) && !name.includes('/') ? name : otherwise;
  } catch {
    return otherwise;
  }
}
