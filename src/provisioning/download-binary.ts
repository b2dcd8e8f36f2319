import { chmod, mkdir, readdir, rename, rm, symlink } from 'node:fs/promises';
import { join, relative } from 'node:path';
import type { Clock } from '../clock.ts';
import { download, diskFailure } from '../models/download.ts';
import { unobtainable } from '../models/failures.ts';
import { fileNameOf } from '../models/origins/https.ts';
import { FETCH_RETRY } from '../models/retry.ts';
import { openOverWeb } from '../models/web-body.ts';
import { Web } from '../models/web.ts';
import type { EngineIndex } from './engine-index.ts';
import { keepEngine } from './keep-engine.ts';
import { LLAMA_SERVER, versionOf } from './llama-server.ts';
import { CommandError, runCommand } from './run-command.ts';
import type { PreparedEngine, Step, TellEngineProgress } from './step.ts';
import type { Toolbox } from './toolbox.ts';

/** A llama-server that is somewhere in the web. */
export interface DownloadRequest {
  url: string;
  /** `sha256:<hex>` of the file. */
  checksum: string;
  /** Folder of the engine index. */
  cache_dir: string;
  /** Whether the configuration lets it be downloaded. */
  is_allowed: boolean;
}

/** Silence after which a connection counts as dead, in milliseconds. */
const STALL_MS = 30_000;
/** Progress is told four times a second at most. */
const PERIOD_MS = 250;
const PLACE = 'provisioning.binary.install_dir';

/** What unpacks a kind of archive, by the end of its name; everything else is taken for the program itself. */
const UNPACKERS: readonly {
  ending: RegExp;
  tool: string;
  command: (file: string, to: string) => string[];
}[] = [
  {
    ending: /\.(tar|tgz|tar\.(gz|xz|bz2))$/i,
    tool: 'tar',
    command: (file, to) => ['-xf', file, '-C', to, '--no-same-owner'],
  },
  { ending: /\.zip$/i, tool: 'unzip', command: (file, to) => ['-q', '-o', file, '-d', to] },
];

/** Named by its content: another file is another engine. */
export function downloadedEngine({ checksum, cache_dir }: DownloadRequest): {
  id: string;
  folder: string;
  program: string;
} {
  const id = checksum.slice('sha256:'.length).slice(0, 16);
  const folder = join(cache_dir, 'llamacpp', id);
  return { id, folder, program: join(folder, LLAMA_SERVER) };
}

/** What would be done, unless it was done before. */
export function downloadSteps(request: DownloadRequest): Step[] {
  const { folder } = downloadedEngine(request);
  const file = join(folder, 'work', fileOf(request.url));
  const unpacker = UNPACKERS.find(({ ending }) => ending.test(file));
  return [
    { kind: 'binary-download', human: `Download ${request.url}, and hold it against its checksum.` },
    ...(unpacker === undefined
      ? []
      : [
          {
            kind: 'binary-unpack' as const,
            human: `Unpack it, and look for ${LLAMA_SERVER} in it.`,
            command: [unpacker.tool, ...unpacker.command(file, join(folder, 'files'))],
          },
        ]),
  ];
}

export interface DownloadPorts {
  index: EngineIndex;
  tools: Toolbox;
  clock: Clock;
  /** Hosts that may be asked; all of them where it is empty. */
  allowlist: readonly string[];
  /** Asked before anything is fetched. @throws TaskchartError naming the key that forbids it */
  permit(): void;
}

/**
 * Brings a program here, unless that was done before. Another process that is at it already is waited for; what an
 * earlier try has left of the file is gone on with.
 * @throws TaskchartError UNTRUSTED_ARTIFACT where it has another checksum; the signal's reason
 */
export function downloadBinary(
  request: DownloadRequest,
  ports: DownloadPorts,
  signal: AbortSignal,
  tell: TellEngineProgress,
): Promise<PreparedEngine> {
  const { url } = request;
  const { index, tools, clock } = ports;
  const engine = downloadedEngine(request);
  const { folder, program } = engine;
  return keepEngine(
    { ...engine, mode: 'binary' },
    {
      index,
      clock,
      async prepare() {
        ports.permit();
        const unpack = unpackerOf(request, tools);
        await mkdir(folder, { recursive: true }).catch((error: unknown) => {
          throw diskFailure(error, PLACE);
        });
        return unpack;
      },
      async bring(unpack, work) {
        const file = join(work, fileOf(url));
        await fetchFile(request, file, ports, signal, tell);
        const files = join(folder, 'files');
        await rm(files, { recursive: true, force: true });
        await mkdir(files, { recursive: true });
        tell({ phase: 'unpacking' });
        if (unpack === undefined) await rename(file, join(files, LLAMA_SERVER));
        else await unpacked(unpack(file, files), url, tools, signal);
        const found = await programIn(files, url);
        await chmod(found, 0o755);
        await rm(program, { force: true });
        // Its libraries are looked for beside it, where the link leads.
        await symlink(relative(folder, found), program);
        const version = await versionOf(program, tools, signal).catch((error: unknown) => {
          throw error instanceof CommandError
            ? unobtainable(`what ${url} has does not run here: ${error.message}`)
            : error;
        });
        return { version, build_flags: [] };
      },
    },
    signal,
    tell,
  );
}

async function fetchFile(
  { url, checksum }: DownloadRequest,
  path: string,
  { clock, allowlist }: DownloadPorts,
  signal: AbortSignal,
  tell: TellEngineProgress,
): Promise<void> {
  const retry = { clock, random: Math.random, rules: FETCH_RETRY };
  const web = new Web({ retry, allowlist, stall_ms: STALL_MS });
  const open = openOverWeb(web, { url: new URL(url) });
  let total: number | undefined;
  let told_at = -Infinity;
  tell({ phase: 'downloading' });
  try {
    await download(
      {
        name: `the file of ${url}`,
        path,
        origin: url,
        size_bytes: undefined,
        digest: checksum,
        open: async (offset, validator, stop) => {
          const body = await open(offset, validator, stop);
          total = body?.total ?? total;
          return body;
        },
        retry,
        place: PLACE,
        written(bytes) {
          const now = clock.now();
          if (total === undefined || now - told_at < PERIOD_MS) return;
          told_at = now;
          tell({ phase: 'downloading', fraction: Math.min(1, bytes / total) });
        },
      },
      signal,
    );
  } finally {
    await web.close();
  }
}

/** Looked for before anything is fetched. @returns undefined for a program that is not packed */
function unpackerOf(
  { url }: DownloadRequest,
  tools: Toolbox,
): ((file: string, to: string) => string[]) | undefined {
  const unpacker = UNPACKERS.find(({ ending }) => ending.test(fileOf(url)));
  if (unpacker === undefined) return undefined;
  const tool = tools.find(unpacker.tool);
  if (tool === undefined)
    throw unobtainable(`${fileOf(url)} cannot be unpacked: there is no ${unpacker.tool} on PATH; install it`);
  return (file, to) => [tool, ...unpacker.command(file, to)];
}

async function unpacked(
  command: readonly string[],
  url: string,
  { env }: Toolbox,
  signal: AbortSignal,
): Promise<void> {
  try {
    await runCommand(command, { env, signal });
  } catch (error) {
    if (error instanceof CommandError) throw unobtainable(`${url} cannot be unpacked: ${error.message}`);
    throw error;
  }
}

/** The one that is least deep in the folder. @throws TaskchartError where there is none */
async function programIn(folder: string, url: string): Promise<string> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const [found] = entries
    .filter((entry) => entry.isFile() && entry.name === LLAMA_SERVER)
    .map((entry) => join(entry.parentPath, entry.name))
    .toSorted((a, b) => a.split('/').length - b.split('/').length || (a < b ? -1 : 1));
  if (found === undefined) throw unobtainable(`${url} has no ${LLAMA_SERVER} in it`);
  return found;
}

function fileOf(url: string): string {
  return fileNameOf(new URL(url), LLAMA_SERVER);
}
