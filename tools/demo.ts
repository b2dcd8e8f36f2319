/**
 * The quickstart: starts the daemon on a free port with the bundled model, posts one task over HTTP, streams its
 * story and the states it passed, and stops the daemon again. Exits 0 if the task ended.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { run } from '../src/cli/run.ts';

const PROMPT = process.argv[2] ?? 'Once upon a time';

const main = fileURLToPath(new URL('../src/cli/main.ts', import.meta.url));
const daemon = spawn(process.execPath, [main, 'serve', '--port', '0'], {
  stdio: ['ignore', 'pipe', 'inherit'],
  // Whoever tries it out should not find files of it afterwards, nor be in the way of a daemon that runs here.
  env: { ...process.env, TASKCHART_STORE__KIND: 'memory' },
});
const exited = once(daemon, 'exit');

const url = await new Promise<string>((resolve, reject) => {
  void exited.then(([code]) =>
    reject(new Error(`the daemon ended with exit code ${String(code)} before it listened`)),
  );
  createInterface({ input: daemon.stdout }).on('line', (line) => {
    const entry = JSON.parse(line) as { action?: string; url?: string };
    if (entry.action === 'listen' && entry.url) resolve(entry.url);
  });
});

process.stderr.write(`taskchart listens on ${url}; the task is posted to it over HTTP.\n\n`);
process.exitCode = await run(PROMPT, { url });
daemon.kill('SIGTERM');
await exited;
