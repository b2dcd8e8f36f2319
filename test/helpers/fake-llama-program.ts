/**
 * The fake llama-server as a program that is started in the place of the real one: it takes the arguments of
 * llama-server, and how it misbehaves from the environment variable FAKE_LLAMA.
 */
import { chmodSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type FakeLlamaOptions, startFakeLlamaServer } from './fake-llama-server.ts';

export interface FakeProgramOptions extends FakeLlamaOptions {
  /** Says this on stderr and ends with the code, before it listens. */
  exit_at_start?: { lines: readonly string[]; code: number };
  /** Says this on stderr once that many tokens are out, and ends with the code or by the signal. */
  die?: { at: number; lines: readonly string[]; code?: number; signal?: NodeJS.Signals };
  /** Starts, and never listens. */
  hangs?: boolean;
  /** Takes no notice of SIGTERM. */
  ignores_sigterm?: boolean;
}

/** @returns the path of a program that is called like the real one */
export function fakeLlamaBinary(): string {
  const path = join(mkdtempSync(join(tmpdir(), 'fake-llama-')), 'llama-server');
  const program = fileURLToPath(import.meta.url);
  writeFileSync(path, `#!/bin/sh\nexec '${process.execPath}' '${program}' "$@"\n`);
  chmodSync(path, 0o755);
  return path;
}

/** The environment in which it behaves like this. */
export function behaving(options: FakeProgramOptions = {}): Record<string, string> {
  return { PATH: '/usr/bin:/bin', FAKE_LLAMA: JSON.stringify(options) };
}

/** Flags that the real one has. It ends with an error for any other. */
const KNOWN = new Set([
  '--model',
  '--host',
  '--port',
  '--parallel',
  '--ctx-size',
  '--threads',
  '--n-gpu-layers',
  '--seed',
  '--no-cont-batching',
  '--no-webui',
  '--metrics',
  '--flash-attn',
  '--embeddings',
]);

function valueOf(args: readonly string[], name: string): string | undefined {
  const at = args.indexOf(name);
  return at < 0 ? undefined : args[at + 1];
}

async function main(args: readonly string[]): Promise<void> {
  if (args[0] === '--version')
    return void process.stdout.write('version: 0.4.0-fake (build 1, commit fa4e)\n');
  const options = JSON.parse(process.env['FAKE_LLAMA'] ?? '{}') as FakeProgramOptions;
  const say = (lines: readonly string[]): void => void process.stderr.write(`${lines.join('\n')}\n`);
  const stranger = args.find((arg) => arg.startsWith('-') && !KNOWN.has(arg));
  if (stranger !== undefined) {
    say([`error: invalid argument: ${stranger}`]);
    return process.exit(1);
  }
  say([`args: ${args.join(' ')}`, `CUDA_VISIBLE_DEVICES=${process.env['CUDA_VISIBLE_DEVICES'] ?? ''}`]);
  if (options.exit_at_start) {
    say(options.exit_at_start.lines);
    return process.exit(options.exit_at_start.code);
  }
  if (options.ignores_sigterm) process.on('SIGTERM', () => say(['SIGTERM is ignored']));
  if (options.hangs) return void setInterval(() => undefined, 60_000);
  const slots = Number(valueOf(args, '--parallel') ?? 4);
  const port = Number(valueOf(args, '--port') ?? 8080);
  const { die } = options;
  const onToken = (count: number): void => {
    if (count !== die?.at) return;
    say(die.lines);
    if (die.signal) process.kill(process.pid, die.signal);
    else process.exit(die.code ?? 1);
  };
  const ctx = Number(valueOf(args, '--ctx-size') ?? 1024) / slots;
  await startFakeLlamaServer({ ...options, port, slots, ctx, ...(die ? { onToken } : {}) });
  say([`server is listening on http://127.0.0.1:${port}`]);
}

if (import.meta.main) {
  process.on('uncaughtException', (error: NodeJS.ErrnoException) => {
    process.stderr.write(
      error.code === 'EADDRINUSE'
        ? `couldn't bind HTTP server socket, hostname: 127.0.0.1, port: ${valueOf(process.argv, '--port')}\n`
        : `${error.stack}\n`,
    );
    process.exit(1);
  });
  await main(process.argv.slice(2));
}
