import { setTimeout } from 'node:timers/promises';

/** How long a stopped process goes on, and how long it rests, so that others see what it has done; in milliseconds. */
const SLICE_MS = 10;
const REST_MS = 40;
const MOST_SLICES = 2000;

/**
 * Lets a process that was stopped run a little at a time until something is true, and leaves it stopped: so it is
 * caught in the middle of its work, however fast the machine is and however slow whoever looks on.
 */
export async function runInSlices(pid: number, isReached: () => boolean): Promise<void> {
  for (let slices = 0; !isReached(); slices++) {
    if (slices === MOST_SLICES) throw new Error(`waited in vain for: ${isReached.toString()}`);
    process.kill(pid, 'SIGCONT');
    await setTimeout(SLICE_MS);
    process.kill(pid, 'SIGSTOP');
    await setTimeout(REST_MS);
  }
}
