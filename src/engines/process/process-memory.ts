import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';

const KIB = 1024;
const TIMEOUT_MS = 3000;
const PER_PROCESS = ['--query-compute-apps=pid,used_memory', '--format=csv,noheader,nounits'];
const run = promisify(execFile);

/** Resident memory of a process on the host, in bytes; undefined where the system does not tell. */
export async function hostMemory(pid: number): Promise<number | undefined> {
  const kibibytes = await readFile(`/proc/${pid}/status`, 'latin1').then(
    (status) => /^VmRSS:\s*(\d+) kB$/m.exec(status)?.[1],
    // Systems without /proc have this program.
    () => output('ps', ['-o', 'rss=', '-p', String(pid)]),
  );
  return positive(Number(kibibytes) * KIB);
}

/** What a process holds on all accelerators together, in bytes; undefined where `nvidia-smi` is not, or does not know it. */
export async function deviceMemory(pid: number, program = 'nvidia-smi'): Promise<number | undefined> {
  const mebibytes = (await output(program, PER_PROCESS))
    .split('\n')
    .map((line) => line.split(',').map((cell) => Number.parseInt(cell, 10)))
    .filter(([owner]) => owner === pid)
    .reduce((sum, [, used = Number.NaN]) => sum + used, 0);
  return positive(mebibytes * KIB * KIB);
}

/** Nothing where the program fails: who asks has an estimate instead. */
async function output(program: string, args: string[]): Promise<string> {
  return run(program, args, { timeout: TIMEOUT_MS }).then(
    ({ stdout }) => stdout,
    () => '',
  );
}

function positive(bytes: number): number | undefined {
  return bytes > 0 ? bytes : undefined;
}
