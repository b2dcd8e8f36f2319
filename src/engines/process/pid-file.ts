import { readFileSync } from 'node:fs';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { signalGroup } from './signal-group.ts';

/** How long what is left of an earlier process has between SIGTERM and SIGKILL, in milliseconds. */
const GRACE_MS = 5000;
const LOOK_MS = 20;

interface PidFile {
  pid: number;
  /** Who started it. */
  owner: number;
  /** When, in the kernel's ticks since boot: a number that another process with the same id does not have. */
  started: string;
  args: string[];
}

/** Notes a process that was just started, so that the next owner of the file can end it where this one cannot. */
export async function writePidFile(file: string, pid: number, args: readonly string[]): Promise<void> {
  const started = statOf(pid)?.started;
  // Where the kernel tells nothing of processes, nothing could be proved later.
  if (started === undefined) return;
  const content: PidFile = { pid, owner: process.pid, started, args: [...args] };
  await mkdir(dirname(file), { recursive: true });
  const temporary = `${file}.${process.pid}`;
  await writeFile(temporary, `${JSON.stringify(content)}\n`);
  await rename(temporary, file);
}

export async function removePidFile(file: string): Promise<void> {
  await rm(file, { force: true });
}

/**
 * Ends a process that an owner who is gone has left behind, and removes its file. Only where it is provably that one:
 * same id, same start, same arguments, and its owner is not its parent any more. Anything else is left alone.
 * @returns whether a process was ended
 */
export async function endStale(file: string): Promise<boolean> {
  const noted = parse(await readFile(file, 'utf8').catch(() => ''));
  if (!noted) return false;
  const isThere = (): boolean => statOf(noted.pid)?.started === noted.started;
  const stat = statOf(noted.pid);
  const isStale = isThere() && stat?.parent !== noted.owner && hasArguments(noted.pid, noted.args);
  if (isStale) {
    signalGroup(noted.pid, 'SIGTERM');
    for (let waited = 0; waited < GRACE_MS && isThere(); waited += LOOK_MS) await sleep(LOOK_MS);
    if (isThere()) signalGroup(noted.pid, 'SIGKILL');
    while (isThere() && !isZombie(noted.pid)) await sleep(LOOK_MS);
  }
  if (isStale || !isThere()) await removePidFile(file);
  return isStale;
}

function parse(text: string): PidFile | undefined {
  try {
    const { pid, owner, started, args } = JSON.parse(text) as Partial<PidFile>;
    const isWhole =
      Number.isInteger(pid) && Number(pid) > 1 && typeof started === 'string' && Array.isArray(args);
    return isWhole ? ({ pid, owner, started, args } as PidFile) : undefined;
  } catch {
    return undefined;
  }
}

/** A script is run by its interpreter, so it is the end of the command line that has to agree. */
function hasArguments(pid: number, args: readonly string[]): boolean {
  try {
    const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
    return args.length > 0 && args.every((arg, i) => line[line.length - args.length + i] === arg);
  } catch {
    return false;
  }
}

function isZombie(pid: number): boolean {
  return statOf(pid)?.state === 'Z';
}

function statOf(pid: number): { state: string; parent: number; started: string } | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name before the last bracket may have blanks and brackets in it.
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return { state: fields[0] ?? '', parent: Number(fields[1]), started: fields[19] ?? '' };
  } catch {
    return undefined;
  }
}
