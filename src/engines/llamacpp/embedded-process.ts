import { type ChildProcess, fork } from 'node:child_process';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { EngineLoss } from '../engine.ts';
import { oomKills } from '../process/oom-kills.ts';
import type { ChildMessage, ParentMessage } from './embedded-protocol.ts';

/** How long a child may take to dispose of its model before it is killed, in milliseconds. */
const UNLOAD_GRACE_MS = 2000;

const TAIL_LINES = 20;

/** The child process from the parent's side: messages in and out, its last words, and its end. */
export class EmbeddedProcess {
  /** Settles once, after the last message of the child was handled. */
  readonly gone: Promise<EngineLoss>;
  readonly #child: ChildProcess;
  #tail: string[] = [];

  constructor(onMessage: (message: ChildMessage) => void, onOutput?: (chunk: Buffer) => void) {
    const oomKillsBefore = oomKills();
    const program = new URL(`./embedded-child${extname(import.meta.url)}`, import.meta.url);
    const child = fork(fileURLToPath(program), [], {
      // The parent's flags (inspector ports, test conditions) are not the child's.
      execArgv: [],
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      serialization: 'json',
    });
    this.#child = child;
    child.on('message', onMessage);
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', this.#keepTail);
      if (onOutput) stream?.on('data', onOutput);
    }

    // Messages that were sent before the death may arrive after `exit`, but never after `disconnect`.
    const exited = Promise.withResolvers<[number | null, NodeJS.Signals | null]>();
    const disconnected = Promise.withResolvers<void>();
    child.once('exit', (code, signal) => exited.resolve([code, signal]));
    child.once('disconnect', () => disconnected.resolve());
    child.on('error', () => {
      // No process came to be: neither of the two events will.
      if (child.pid !== undefined) return;
      exited.resolve([null, null]);
      disconnected.resolve();
    });
    this.gone = Promise.all([exited.promise, disconnected.promise]).then(([[code, signal]]) => {
      child.stdout?.destroy();
      child.stderr?.destroy();
      return this.#describe(code, signal, oomKills() > oomKillsBefore);
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  send(message: ParentMessage): void {
    // A send that fails is a child that is gone, and `gone` tells of that.
    if (this.#child.connected) this.#child.send(message, () => undefined);
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  /** Asks the child to dispose of everything, and insists after a while. */
  async unload(): Promise<void> {
    this.send({ type: 'unload' });
    const insist = setTimeout(() => this.kill(), UNLOAD_GRACE_MS);
    await this.gone;
    clearTimeout(insist);
  }

  readonly #keepTail = (chunk: Buffer) => {
    const lines = chunk
      .toString()
      .split('\n')
      .map((line) => line.trim());
    this.#tail = [...this.#tail, ...lines.filter((line) => line !== '')].slice(-TAIL_LINES);
  };

  #describe(code: number | null, signal: NodeJS.Signals | null, oomSeen: boolean): EngineLoss {
    const cause = signal === 'SIGKILL' && oomSeen ? 'oom' : 'crash';
    const how = signal === null ? `exited with code ${code}` : `was ended by ${signal}`;
    const last = this.#tail.at(-1);
    return {
      cause,
      message: `The engine process ${how}${cause === 'oom' ? ', out of memory' : ''}${last === undefined ? '' : `: ${last}`}`,
      ...(code === null ? {} : { exit_code: code }),
      ...(signal === null ? {} : { signal }),
    };
  }
}
