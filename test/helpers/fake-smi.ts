import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';

/** A program that says what `nvidia-smi` would. */
export function fakeSmi(t: ExecutionContext, lines: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'taskchart-smi-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const program = join(folder, 'nvidia-smi');
  writeFileSync(program, `#!/bin/sh\ncat <<'END'\n${lines}\nEND\n`);
  chmodSync(program, 0o755);
  return program;
}
