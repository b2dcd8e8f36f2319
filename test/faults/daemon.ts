import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ConfigInput } from '../../src/config.ts';
import { taskchart, type Program } from '../helpers/cli.ts';
import type { Chance } from './chance.ts';

/** A daemon that dies and comes back: always the same folder and the same port. */
export class Daemon {
  readonly url: string;
  /** Ends of the process that nobody asked for, and what was wrong with those that were asked for. */
  readonly mishaps: string[] = [];
  readonly #folder: string;
  readonly #port: number;
  #program: Program | undefined;
  #isDying = false;
  #starts = 0;
  #isListening = false;

  private constructor(port: number) {
    this.#port = port;
    this.url = `http://127.0.0.1:${port}`;
    this.#folder = mkdtempSync(join(tmpdir(), 'taskchart-faults-'));
  }

  /** Nothing runs yet. */
  static async prepare(chance: Chance): Promise<Daemon> {
    return new Daemon(await freePort(chance));
  }

  get starts(): number {
    return this.#starts;
  }

  /** Whether it listens, as far as one can know. */
  get isUp(): boolean {
    return this.#isListening;
  }

  /** Starts the process; resolves before it listens. */
  launch(config: ConfigInput): void {
    const file = join(this.#folder, 'config.json');
    writeFileSync(file, JSON.stringify(config));
    const program = taskchart(['serve', '--config', file, '--port', String(this.#port)], {
      TASKCHART_RUNTIME__DIR: this.#folder,
    });
    this.#starts++;
    this.#program = program;
    this.#isDying = false;
    void program.exit.then((how) => {
      if (this.#program !== program || this.#isDying) return;
      this.mishaps.push(`the daemon ended by itself (${how}):\n${tail(program)}`);
      this.#isDying = true;
      this.#isListening = false;
    });
  }

  /** Resolves once it listens. @throws Error where it ends before */
  async listening(): Promise<void> {
    await this.#program?.printed(/"action":"listen"/);
    this.#isListening = true;
  }

  async start(config: ConfigInput): Promise<void> {
    this.launch(config);
    await this.listening();
  }

  /** SIGKILL; resolves when the process and those that it started are gone. */
  async kill(): Promise<void> {
    const program = this.#dying();
    if (!program) return;
    const children = childrenOf(program.child.pid);
    program.child.kill('SIGKILL');
    await program.exit;
    await this.#gone(children);
  }

  /** SIGTERM. @param patience_ms after which SIGKILL follows; none: it has to end by itself, with code 0 */
  async terminate(patience_ms?: number): Promise<void> {
    const program = this.#dying();
    if (!program) return;
    const children = childrenOf(program.child.pid);
    program.child.kill('SIGTERM');
    if (patience_ms === undefined) {
      const how = await Promise.race([program.exit, sleep(10_000, 'still there after 10 s', { ref: false })]);
      if (how !== 0) this.mishaps.push(`after SIGTERM the daemon ended with ${how}:\n${tail(program)}`);
    } else await sleep(patience_ms);
    program.child.kill('SIGKILL');
    await program.exit;
    await this.#gone(children);
  }

  async dispose(): Promise<void> {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #dying(): Program | undefined {
    if (!this.#program || this.#isDying) return undefined;
    this.#isDying = true;
    this.#isListening = false;
    return this.#program;
  }

  /** An engine's process must not outlive the daemon: it would hold its memory for nobody. */
  async #gone(children: readonly number[]): Promise<void> {
    const deadline = performance.now() + 5000;
    for (const pid of children)
      while (isAlive(pid)) {
        if (performance.now() > deadline)
          return void this.mishaps.push(`process ${pid} outlives the daemon that started it`);
        await sleep(5);
      }
  }
}

function tail(program: Program): string {
  return `${program.stderr().slice(-2000)}\n${program.stdout().slice(-1000)}`;
}

/** Only Linux tells; elsewhere there are none. */
function childrenOf(pid: number | undefined): number[] {
  try {
    const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
    return text.trim().split(' ').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

/** Below those that the system gives to clients: one of our own readers could get it while the daemon is away. */
async function freePort(chance: Chance): Promise<number> {
  for (;;) {
    const server = createServer();
    const port = ((chance.between(20_000, 31_000) + process.pid) % 11_000) + 20_000;
    server.listen(port, '127.0.0.1');
    const [error] = (await Promise.race([once(server, 'listening'), once(server, 'error')])) as unknown[];
    if (error === undefined) {
      server.close();
      await once(server, 'close');
      return port;
    }
  }
}
