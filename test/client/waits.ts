import type { ClientPorts } from '../../src/client/index.ts';

/** Waits that take no time: what was waited for is written down, and the clock has moved. */
export interface Waits extends Required<ClientPorts> {
  readonly waited: number[];
}

/** @param onWait what happens in the world meanwhile */
export function waits(onWait?: (count: number) => void | Promise<void>): Waits {
  const waited: number[] = [];
  let elapsed_ms = 0;
  return {
    waited,
    now: () => elapsed_ms,
    random: () => 1,
    async sleep(ms, signal) {
      signal?.throwIfAborted();
      elapsed_ms += ms;
      waited.push(ms);
      await onWait?.(waited.length);
      signal?.throwIfAborted();
    },
  };
}
