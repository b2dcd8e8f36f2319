import { readFileSync } from 'node:fs';

/** Processes the kernel has killed for want of memory since boot; 0 where there is no such counter. */
export function oomKills(): number {
  try {
    const line = readFileSync('/proc/vmstat', 'latin1')
      .split('\n')
      .find((entry) => entry.startsWith('oom_kill '));
    return Number(line?.slice('oom_kill '.length) ?? 0);
  } catch {
    return 0;
  }
}
