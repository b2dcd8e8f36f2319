import { type ChildProcess, spawn } from 'node:child_process';
import type { Clock } from '../../clock.ts';
import type { EngineLoss } from '../engine.ts';
import { loadError } from '../outcome.ts';
import { addCompanion, isCompanion, removeCompanion } from './companions.ts';
import { lossOf } from './exit-cause.ts';
import { oomKills } from './oom-kills.ts';
import { signalGroup } from './signal-group.ts';

/** What to start. */
export interface ServerCommand {
  program: string;
  args: readonly string[];
  /** The whole environment of the process. */
  env: Readonly<Record<string, string>>;
}

/** Lines that are kept to tell why it ended: a native backtrace is long, and the cause stands before it. */
const TAIL_LINES = 200;
/** After how long a stop is asked for again: a server that finishes a request first ends at the second SIGTERM. */
const AGAIN_MS = 2000;
/** After how long it is not asked any more, in milliseconds. */
const FORCE_MS = 5000;
/** How long output may still come once the process is gone: something it has started may hold the pipe open. */
const LAST_WORDS_MS = 200;

/** The process of a server, in a group of its own: a Ctrl-C at the terminal is the owner's to handle. */
export class ServerProcess {
  /** Settles once, with why it is gone. */
  readonly gone: Promise<EngineLoss>;
  /** Settles once there is a process. Rejects with a TaskchartError where the program cannot be started. */
  readonly started: Promise<number>;
  readonly #child: ChildProcess;
  #tail: string[] = [];
  #rest = '';

  constructor({ program, args, env }: ServerCommand, onOutput: ((chunk: Buffer) => void) | undefined) {
    const oomKillsBefore = oomKills();
    const child = spawn(program, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
      env: { ...env },
    });
    this.#child = child;
    const { pid } = child;
    if (pid !== undefined) addCompanion(pid);
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', this.#keepTail);
      if (onOutput) stream?.on('data', onOutput);
    }
    this.started = new Promise((resolve, reject) => {
      child.once('spawn', () => resolve(pid ?? 0));
      child.once('error', (error: NodeJS.ErrnoException) =>
        reject(loadError(`${program} cannot be started (${error.code ?? error.message}).`)),
      );
    });
    this.started.catch(() => undefined);
    const closed = new Promise<void>((resolve) => child.once('close', () => resolve()));
    const exited = new Promise<[number | null, NodeJS.Signals | null]>((resolve) => {
      child.once('exit', (code, signal) => resolve([code, signal]));
      child.once('error', () => pid === undefined && resolve([null, null]));
    });
    this.gone = exited.then(async ([code, signal]) => {
      const late = Promise.withResolvers<void>();
      const timer = setTimeout(late.resolve, LAST_WORDS_MS);
      await Promise.race([closed, late.promise]);
      clearTimeout(timer);
      for (const stream of [child.stdout, child.stderr]) stream?.destroy();
      if (pid !== undefined) {
        // What it has started itself does not outlive it either.
        signalGroup(pid, 'SIGKILL');
        removeCompanion(pid);
      }
      return lossOf({ code, signal, oom_seen: oomKills() > oomKillsBefore, lines: this.lines });
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** The last lines of its output. */
  get lines(): readonly string[] {
    const rest = this.#rest.trim();
    return rest === '' ? this.#tail : [...this.#tail, rest];
  }

  /** SIGTERM, once more, and SIGKILL after five seconds. Resolves once it is gone; safe to repeat. */
  async stop(clock: Clock): Promise<void> {
    const { pid } = this;
    if (pid === undefined) return;
    if (isCompanion(pid)) signalGroup(pid, 'SIGTERM');
    const timers = [
      clock.setTimeout(() => signalGroup(pid, 'SIGTERM'), AGAIN_MS),
      clock.setTimeout(() => signalGroup(pid, 'SIGKILL'), FORCE_MS),
    ];
    await this.gone;
    for (const timer of timers) clock.clearTimeout(timer);
  }

  readonly #keepTail = (chunk: Buffer): void => {
    const lines = (this.#rest + chunk.toString()).split('\n');
    this.#rest = lines.pop() ?? '';
    const said = lines.map((line) => line.trim()).filter((line) => line !== '');
    if (said.length > 0) this.#tail = [...this.#tail, ...said].slice(-TAIL_LINES);
  };
}
