import { setImmediate as turn } from 'node:timers/promises';

/** Lets the event loop turn until something is true; fails with what was waited for rather than hang. */
export async function until(condition: () => unknown, what = condition.toString()): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`waited in vain for: ${what}`);
    await turn();
  }
}
