import { existsSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '../clock.ts';
import { digestOf } from '../models/download.ts';
import { type FileLock, tryLock } from '../models/lock.ts';
import type { EngineEntry, EngineIndex } from './engine-index.ts';
import type { PreparedEngine, TellEngineProgress } from './step.ts';

/** How often to look whether another process has brought the same engine, in milliseconds. */
const LOOK_MS = 250;

/** A llama-server that is brought here once, and kept in a folder of its own below that of the index. */
export interface KeptEngine {
  id: string;
  /** How it comes here. */
  mode: 'source' | 'binary';
  folder: string;
  program: string;
}

export interface KeepPorts<T> {
  index: EngineIndex;
  clock: Clock;
  /** What is looked for before anything is done: what is missing is missing for whoever holds the lock as well. */
  prepare(): T | Promise<T>;
  /** Puts the program in its place. `work` is there, with what an earlier try has left, and goes afterwards. */
  bring(prepared: T, work: string): Promise<Pick<EngineEntry, 'version' | 'build_ref' | 'build_flags'>>;
}

/**
 * Brings an engine here, unless that was done before. Another process that is at it already is waited for.
 * @throws what `prepare` and `bring` throw; the signal's reason
 */
export async function keepEngine<T>(
  { id, mode, folder, program }: KeptEngine,
  { index, clock, prepare, bring }: KeepPorts<T>,
  signal: AbortSignal,
  tell: TellEngineProgress,
): Promise<PreparedEngine> {
  const here = async (): Promise<PreparedEngine | undefined> => {
    const entry = await index.find(id);
    return entry && existsSync(program) ? { mode, program, version: entry.version } : undefined;
  };
  const before = await here();
  if (before) return before;
  const prepared = await prepare();
  const lock = await waitForLock(`${folder}.lock`, signal, tell);
  try {
    const meanwhile = await here();
    if (meanwhile) return meanwhile;
    const work = join(folder, 'work');
    await mkdir(work, { recursive: true });
    const brought = await bring(prepared, work);
    await index.add({
      id,
      engine: 'llamacpp',
      ...brought,
      digest: await digestOf(program, signal),
      artifacts: [relative(index.folder, folder)],
      created_ms: clock.wall(),
    });
    await rm(work, { recursive: true, force: true });
    return { mode, program, version: brought.version };
  } finally {
    lock.release();
  }
}

async function waitForLock(path: string, signal: AbortSignal, tell: TellEngineProgress): Promise<FileLock> {
  for (let isFirst = true; ; isFirst = false) {
    signal.throwIfAborted();
    const lock = tryLock(path, 'alone');
    if (lock) return lock;
    if (isFirst) tell({ phase: 'waiting' });
    await sleep(LOOK_MS);
  }
}
