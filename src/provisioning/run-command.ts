import { spawn } from 'node:child_process';
import { setPriority } from 'node:os';
import { lastMeaningful } from '../engines/process/exit-cause.ts';
import { addCompanion, removeCompanion } from '../engines/process/companions.ts';
import { signalGroup } from '../engines/process/signal-group.ts';

const KEPT_LINES = 400;
/** Below what serves: somebody may be waiting for tokens while an engine is built. */
const NICE = 10;
/** How long a command that is given up has between SIGTERM and SIGKILL, in milliseconds. */
const GRACE_MS = 3000;

export interface CommandOptions {
  env: Readonly<Record<string, string>>;
  cwd?: string;
  signal: AbortSignal;
  /** Hears every line of its output. */
  line?: (line: string) => void;
}

/** A command that has failed: which, how, and what it said. */
export class CommandError extends Error {
  /** Its last lines, oldest first. */
  readonly lines: readonly string[];

  constructor(message: string, lines: readonly string[]) {
    super(message);
    this.name = 'CommandError';
    this.lines = lines;
  }
}

/**
 * Runs a command to its end.
 * @returns what it wrote to stdout
 * @throws CommandError; the signal's reason, once the command is gone
 */
export async function runCommand(command: readonly string[], options: CommandOptions): Promise<string> {
  const [program = '', ...args] = command;
  const { env, cwd, signal, line: told } = options;
  signal.throwIfAborted();
  const child = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    // A group of its own: a build has many processes, and all of them are given up together.
    detached: true,
    env: { ...env },
    ...(cwd === undefined ? {} : { cwd }),
  });
  const { pid } = child;
  if (pid !== undefined) {
    addCompanion(pid);
    lower(pid);
  }
  let lines: string[] = [];
  let stdout = '';
  const hear = (text: string): void => {
    lines.push(text);
    if (lines.length > 2 * KEPT_LINES) lines = lines.slice(-KEPT_LINES);
    told?.(text);
  };
  const listeners = [child.stdout, child.stderr].map((stream) => linesOf(stream, hear));
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  let insist: NodeJS.Timeout | undefined;
  const giveUp = (): void => {
    if (pid === undefined) return;
    signalGroup(pid, 'SIGTERM');
    insist = setTimeout(() => signalGroup(pid, 'SIGKILL'), GRACE_MS);
  };
  signal.addEventListener('abort', giveUp);
  try {
    const how = await new Promise<string | undefined>((resolve) => {
      child.once('error', (error: NodeJS.ErrnoException) =>
        resolve(`cannot be started (${error.code ?? error.message})`),
      );
      child.once('close', (code, ended) =>
        resolve(
          code === 0 ? undefined : ended === null ? `ended with code ${code}` : `was ended by ${ended}`,
        ),
      );
    });
    for (const flush of listeners) flush();
    signal.throwIfAborted();
    if (how === undefined) return stdout;
    const said = lastMeaningful(lines.map((text) => text.trim()).filter((text) => text !== ''));
    throw new CommandError(`${nameOf(command)} ${how}${said === undefined ? '' : `: ${said}`}`, lines);
  } finally {
    clearTimeout(insist);
    signal.removeEventListener('abort', giveUp);
    if (pid !== undefined) removeCompanion(pid);
  }
}

/** The command as a person would name it: `cmake --build`, not all of its arguments. */
function nameOf([program = '', first = '']: readonly string[]): string {
  return `${program.split('/').at(-1)}${/^-?-?[a-z][a-z-]*$/.test(first) ? ` ${first}` : ''}`;
}

function lower(pid: number): void {
  try {
    setPriority(pid, NICE);
  } catch {
    // Gone already, or not ours to say.
  }
}

function linesOf(stream: NodeJS.ReadableStream, told: (line: string) => void): () => void {
  let rest = '';
  stream.on('data', (chunk: Buffer) => {
    const parts = (rest + chunk.toString()).split(/\r?\n|\r/);
    rest = parts.pop() ?? '';
    for (const part of parts) told(part);
  });
  return () => {
    if (rest !== '') told(rest);
    rest = '';
  };
}
