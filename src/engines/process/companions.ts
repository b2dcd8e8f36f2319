import { signalGroup } from './signal-group.ts';

const living = new Set<number>();
let watches = false;

/** A process that leads a group of its own and does not outlive this one, as far as this one has a say in its end. */
export function addCompanion(pid: number): void {
  living.add(pid);
  if (watches) return;
  watches = true;
  process.on('exit', () => {
    for (const each of living) signalGroup(each, 'SIGKILL');
  });
}

/** It is gone: its number may be somebody else's next. */
export function removeCompanion(pid: number): void {
  living.delete(pid);
}

export function isCompanion(pid: number): boolean {
  return living.has(pid);
}
