import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { DatabaseSync } from 'node:sqlite';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';

/** A path for a file in a folder of its own, which goes with the test. */
export function pathFor(t: ExecutionContext, name: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'taskchart-test-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return join(folder, name);
}

/** Rows of a file that may be open elsewhere. */
export function rowsOf(path: string, sql: string, ...values: string[]): Record<string, unknown>[] {
  const db = new DatabaseSync(path, { readOnly: true });
  try {
    return db.prepare(sql).all(...values);
  } finally {
    db.close();
  }
}

/** Makes a file with SQL, as some other program. */
export function makeFile(path: string, sql: string): void {
  const db = new DatabaseSync(path);
  db.exec(sql);
  db.close();
}

export interface Program {
  child: ChildProcess;
  /** What it has said so far. */
  lines: string[];
  /** Resolves with how it ended, once all it said is in `lines`. */
  ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
}

/** Starts a program that lies beside the calling test. */
export function startProgram(t: ExecutionContext, program: string, from: string, args: string[]): Program {
  const child = spawn(process.execPath, [fileURLToPath(new URL(program, from)), ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  const lines: string[] = [];
  createInterface(child.stdout).on('line', (line) => lines.push(line));
  const ended = once(child, 'close').then(([code, signal]) => ({ code, signal }));
  return { child, lines, ended };
}
