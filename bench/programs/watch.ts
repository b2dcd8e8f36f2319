/**
 * Goes before another program (`node --expose-gc --import watch.ts program.ts`) and looks at it from inside: `heap`
 * over the channel of child processes is answered with its memory after garbage collection, and the file that WATCH
 * names tells at the end what still kept the process alive. It keeps nothing alive itself.
 */
import { writeFileSync } from 'node:fs';
import { heapAfterGc } from '../heap.ts';

/** What a process still had when its event loop was empty, the channel to its parent left out. */
export interface LastWords {
  code: number;
  resources: string[];
  /** Whether it ended because nothing was left to do, and not because it said so. */
  by_itself: boolean;
}

/** The channel to the parent, and standard output where it is a pipe. */
const OURS = new Set(['PipeWrap', 'TTYWrap']);

let by_itself = false;

process.on('message', (question) => {
  if (question === 'heap') void heapAfterGc().then((answer) => process.send?.(answer));
});
process.channel?.unref();

process.once('beforeExit', () => {
  by_itself = true;
});
process.once('exit', (code) => {
  const file = process.env['WATCH'];
  if (file === undefined) return;
  const resources = process.getActiveResourcesInfo().filter((name) => !OURS.has(name));
  writeFileSync(file, JSON.stringify({ code, resources, by_itself } satisfies LastWords));
});
