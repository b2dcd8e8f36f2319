import { chmodSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A folder of programs that write down how they are called. */
export interface FakeTools {
  /** An environment in which there are no others, but what a shell needs. */
  env: Record<string, string>;
  /** Adds a program. `$1` and so on are its arguments, `$calls` the file in which it is noted. */
  add(name: string, script?: string): void;
  /** How they were called so far: the name and its arguments. */
  calls(): string[];
}

export function fakeTools(): FakeTools {
  const folder = mkdtempSync(join(tmpdir(), 'fake-tools-'));
  const bin = join(folder, 'bin');
  const notes = join(folder, 'calls');
  mkdirSync(bin);
  writeFileSync(notes, '');
  return {
    // The tools of the system are reached by the scripts themselves: on this PATH is only what a test has added.
    env: { PATH: bin },
    add(name, script = 'exit 0') {
      const path = join(bin, name);
      writeFileSync(
        path,
        `#!/bin/sh\nPATH=/usr/bin:/bin\ncalls='${notes}'\necho "${name} $*" >> "$calls"\n${script}\n`,
      );
      chmodSync(path, 0o755);
    },
    calls: () =>
      readFileSync(notes, 'utf8')
        .split('\n')
        .filter((line) => line !== ''),
  };
}
