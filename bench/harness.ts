import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, openSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { ConfigInput } from '../src/config.ts';

/** One number of a bench. With a bound it is a target, without one it explains another. */
export interface Measure {
  what: string;
  value: number;
  unit: string;
  at_most?: number;
  at_least?: number;
}

export type Bench = () => Promise<Measure[]>;

/** A line of JSON that a program wrote to its standard output. */
export type Line = Record<string, unknown>;

export interface StartOptions {
  args?: readonly string[];
  env?: Readonly<Record<string, string>>;
  /** Options of node itself, such as --expose-gc. */
  node?: readonly string[];
  /**
   * Where its standard output goes. `file`: a regular file, read only until what a start says has been said. Whoever
   * drains a pipe takes processor time from what is measured. @default 'pipe'
   */
  stdout?: 'pipe' | 'file' | 'ignore';
}

const running = new Set<Program>();

/** A file of this repository. */
export function fileOf(path: string): string {
  return fileURLToPath(new URL(`../${path}`, import.meta.url));
}

/** A child process that runs one TypeScript file. */
export class Program {
  readonly started_at = performance.now();
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;
  readonly #lines: Line[] = [];
  #isOver = false;
  #changed = Promise.withResolvers<void>();

  constructor(path: string, options: StartOptions = {}) {
    const { args = [], env = {}, node = [], stdout = 'pipe' } = options;
    const folder = stdout === 'file' ? mkdtempSync(join(tmpdir(), 'taskchart-bench-')) : undefined;
    const log = folder === undefined ? undefined : join(folder, 'stdout.log');
    this.#child = spawn(process.execPath, [...node, fileOf(path), ...args], {
      env: { ...process.env, ...env },
      stdio: [
        'ignore',
        log === undefined ? (stdout as 'pipe' | 'ignore') : openSync(log, 'w'),
        'inherit',
        'ipc',
      ],
    });
    if (log !== undefined) this.#follow(log);
    running.add(this);
    this.#ended = new Promise((resolve) =>
      this.#child.once('close', () => {
        running.delete(this);
        this.#isOver = true;
        this.#tell();
        if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
        resolve();
      }),
    );
    if (this.#child.stdout) createInterface(this.#child.stdout).on('line', (text) => this.#hear(text));
  }

  /** The first line that fits; lines before it may have been written at any time. */
  async line(fits: (line: Line) => boolean): Promise<Line> {
    for (;;) {
      const line = this.#lines.find(fits);
      if (line) return line;
      if (this.#isOver) throw new Error('a program of the bench ended early');
      await this.#changed.promise;
    }
  }

  /** One question to a program of `programs/`, over the channel of child processes. */
  async ask<T>(question: object | string = {}): Promise<T> {
    const answer = Promise.withResolvers<T>();
    const early = (): void => answer.reject(new Error('a program of the bench ended before it answered'));
    this.#child.once('message', answer.resolve as (value: unknown) => void);
    this.#child.once('close', early);
    this.#child.send(question);
    try {
      return await answer.promise;
    } finally {
      this.#child.removeListener('close', early);
    }
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Time on a processor so far, of all its threads, in milliseconds. */
  cpu(): number {
    const tasks = `/proc/${this.#child.pid}/task`;
    let total_ns = 0;
    for (const task of readdirSync(tasks)) {
      try {
        total_ns += Number(readFileSync(`${tasks}/${task}/schedstat`, 'utf8').split(' ')[0]);
      } catch {
        // A thread that ended between the two calls.
      }
    }
    return total_ns / 1e6;
  }

  /** SIGKILL: nothing is finished, nothing is written. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#ended;
  }

  /** SIGTERM, and SIGKILL where that is not enough. */
  async stop(within_ms = 3000): Promise<void> {
    const force = setTimeout(() => this.#child.kill('SIGKILL'), within_ms);
    this.#child.kill('SIGTERM');
    await this.#ended;
    clearTimeout(force);
  }

  /** Reads a growing file for its first lines. */
  #follow(log: string): void {
    let heard = 0;
    const timer = setInterval(() => {
      const lines = readFileSync(log, 'utf8').split('\n').slice(0, -1);
      for (const line of lines.slice(heard)) this.#hear(line);
      heard = lines.length;
      if (this.#isOver || lines.some((line) => line.includes('"action":"listen"'))) clearInterval(timer);
    }, 10);
  }

  #hear(text: string): void {
    // A bench asks for what a program says while it starts; a log of every task is only drained.
    if (this.#lines.length >= 50 || !text.startsWith('{')) return;
    this.#lines.push(JSON.parse(text) as Line);
    this.#tell();
  }

  #tell(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}

export async function stopAll(): Promise<void> {
  await Promise.all(Array.from(running, (program) => program.stop(1000)));
}

export interface Server {
  program: Program;
  url: string;
}

/** A program of `programs/` that says where it listens. */
export async function startServerProgram(path: string, options: StartOptions = {}): Promise<Server> {
  const program = new Program(path, options);
  const { url } = await program.line((line) => typeof line['url'] === 'string');
  return { program, url: url as string };
}

/** The daemon as people start it, ready for tasks unless its pools are not to load. */
export async function startDaemon(config: ConfigInput, awaitsPool: boolean): Promise<Server> {
  return withConfig(config, async (args) => {
    const server = await startServerProgram('src/cli/main.ts', { args, stdout: 'file' });
    if (awaitsPool) await poolReady(server.url);
    return server;
  });
}

async function poolReady(url: string): Promise<void> {
  for (;;) {
    const { pools } = (await (await fetch(`${url}/v1/pools`)).json()) as { pools: { ready: boolean }[] };
    if (pools.every(({ ready }) => ready)) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Whether the daemon says that a pool is ready. */
export function isReady(line: Line): boolean {
  return line['actor'] === 'pool' && line['action'] === 'ready';
}

/** Writes a configuration for the time of one call. */
export async function withConfig<T>(config: ConfigInput, use: (args: string[]) => Promise<T>): Promise<T> {
  return inFolder(async (folder) => {
    const file = join(folder, 'taskchart.json');
    writeFileSync(file, JSON.stringify({ runtime: { dir: folder }, catalog: { root: folder }, ...config }));
    return use(['serve', '--config', file, '--port', '0']);
  });
}

/** A folder for the time of one call. */
export async function inFolder<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'taskchart-bench-'));
  try {
    return await use(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/** Says a number with three digits that matter. */
function show(value: number): string {
  return value >= 100 ? Math.round(value).toLocaleString('en') : String(Number(value.toPrecision(3)));
}

export function verdict({ value, at_most, at_least }: Measure): 'ok' | 'missed' | '' {
  if (at_most === undefined && at_least === undefined) return '';
  return value <= (at_most ?? Infinity) && value >= (at_least ?? -Infinity) ? 'ok' : 'missed';
}

/** A table for people, then one line of JSON. */
export function print(bench: string, measures: readonly Measure[]): void {
  const rows = measures.map((measure) => [
    measure.what,
    show(measure.value),
    measure.unit,
    measure.at_most === undefined
      ? measure.at_least === undefined
        ? ''
        : `at least ${measure.at_least}`
      : `at most ${measure.at_most}`,
    verdict(measure),
  ]);
  const widths = [0, 1, 2, 3, 4].map((column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const lines = rows.map((row) =>
    row
      .map((cell, column) =>
        column === 1 ? cell.padStart(widths[1] ?? 0) : cell.padEnd(widths[column] ?? 0),
      )
      .join('  ')
      .trimEnd(),
  );
  process.stdout.write(`${bench}\n  ${lines.join('\n  ')}\n`);
  const results = measures.map((measure) => ({
    ...measure,
    value: Number(measure.value.toPrecision(4)),
    ...(verdict(measure) === '' ? {} : { verdict: verdict(measure) }),
  }));
  process.stdout.write(`${JSON.stringify({ bench, node: process.version, results })}\n`);
}
