import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../src/clock.ts';
import type { EngineHost } from '../../src/engines/engine.ts';
import { createManagedLlamaEngine, type ManagedLlamaOptions } from '../../src/engines/llamacpp/managed.ts';
import { behaving, fakeLlamaBinary, type FakeProgramOptions } from '../helpers/fake-llama-program.ts';
import { recordingHost } from './conformance.ts';

export const FAKE = fakeLlamaBinary();

/** A folder of its own, as a daemon has one. */
export function newFolder(): string {
  return mkdtempSync(join(tmpdir(), 'taskchart-managed-'));
}

const MODEL = join(newFolder(), 'model.gguf');
writeFileSync(MODEL, 'GGUF');

export function managed(
  behaviour: FakeProgramOptions = {},
  options: Partial<ManagedLlamaOptions> = {},
  host: EngineHost = recordingHost(),
) {
  const folder = options.folder ?? newFolder();
  const engine = createManagedLlamaEngine({
    program: FAKE,
    mode: 'binary',
    model_path: MODEL,
    model_id: 'm',
    slots: 2,
    ctx: 512,
    threads: 1,
    env: behaving(behaviour),
    folder,
    pool_id: 'p',
    replica_id: 'p/r0',
    ports: [],
    avoid_ports: [],
    clock: systemClock,
    host,
    ...options,
  });
  return { engine, folder };
}

/** What an engine's process has said so far. */
export function listening() {
  const host = recordingHost();
  const said: string[] = [];
  return {
    host: { ...host, output: (chunk: Buffer) => void said.push(chunk.toString()) },
    losses: host.losses,
    firstLoss: host.firstLoss,
    text: () => said.join(''),
  };
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
