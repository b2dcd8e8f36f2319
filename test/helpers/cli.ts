import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';
import { stringify } from 'yaml';

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));

export interface Program {
  child: ChildProcess;
  stdout: () => string;
  stderr: () => string;
  /** Exit code, or the signal's name. */
  exit: Promise<number | string>;
  /** Resolves once stdout has a match. */
  printed(pattern: RegExp): Promise<RegExpExecArray>;
  /** Resolves once stderr has a match. */
  complained(pattern: RegExp): Promise<RegExpExecArray>;
}

/** Runs the command line as a user would: a process of its own. */
export function taskchart(args: readonly string[], env: NodeJS.ProcessEnv = {}): Program {
  return program([MAIN, ...args], env);
}

/**
 * Runs a daemon for the length of a test, on a port of its own.
 * @param folder what the daemon keeps goes there, and the folder goes with the test
 * @param settings its configuration
 */
export async function startDaemon(
  t: ExecutionContext,
  folder: string,
  settings: object,
): Promise<{ daemon: Program; url: string }> {
  const config = join(folder, 'taskchart.yaml');
  writeFileSync(config, stringify({ runtime: { dir: join(folder, 'run') }, ...settings }));
  const daemon = taskchart(['serve', '--config', config, '--port', '0']);
  t.teardown(async () => {
    daemon.child.kill('SIGTERM');
    await daemon.exit;
    rmSync(folder, { recursive: true, force: true });
  });
  const [, url = ''] = await daemon.printed(/"url":"([^"]+)"/);
  return { daemon, url };
}

export function program(args: readonly string[], env: NodeJS.ProcessEnv = {}): Program {
  // A daemon keeps what it has accepted, and knows models: each program has a folder of its own, unless the test gives it one.
  const folder = mkdtempSync(join(tmpdir(), 'taskchart-'));
  const child = spawn(process.execPath, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...process.env,
      NODE_OPTIONS: '',
      TASKCHART_RUNTIME__DIR: folder,
      TASKCHART_CATALOG__ROOT: folder,
      ...env,
    },
  });
  const text = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const)
    child[name]?.setEncoding('utf8').on('data', (part: string) => (text[name] += part));
  const exit = once(child, 'close').then(([code, signal]) => {
    rmSync(folder, { recursive: true, force: true });
    return (code ?? signal) as number | string;
  });
  const matched = async (name: 'stdout' | 'stderr', pattern: RegExp): Promise<RegExpExecArray> => {
    for (;;) {
      const match = pattern.exec(text[name]);
      if (match) return match;
      const over = await Promise.race([
        once(child[name] as NodeJS.ReadableStream, 'data'),
        exit.then(() => 'over'),
      ]);
      if (over === 'over' && !pattern.test(text[name]))
        throw new Error(`ended without ${String(pattern)} on ${name}:\n${text.stdout}\n${text.stderr}`);
    }
  };
  return {
    child,
    stdout: () => text.stdout,
    stderr: () => text.stderr,
    exit,
    printed: (pattern) => matched('stdout', pattern),
    complained: (pattern) => matched('stderr', pattern),
  };
}
