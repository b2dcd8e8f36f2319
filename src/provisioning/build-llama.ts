import { createWriteStream, existsSync } from 'node:fs';
import { appendFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../clock.ts';
import { unavailable, unobtainable } from '../models/failures.ts';
import { written } from './cmake-flags.ts';
import type { EngineIndex } from './engine-index.ts';
import { keepEngine } from './keep-engine.ts';
import { buildSteps, type LlamaBuild } from './llama-build.ts';
import { versionOf } from './llama-server.ts';
import { otherCompiler, preflight } from './preflight.ts';
import { CommandError, runCommand } from './run-command.ts';
import type { PreparedEngine, Step, TellEngineProgress } from './step.ts';
import type { Toolbox } from './toolbox.ts';

/** Progress in one phase is told four times a second at most. */
const PERIOD_MS = 250;

const PHASES = {
  'git-clone': 'cloning',
  'git-checkout': 'cloning',
  'cmake-configure': 'configuring',
  'cmake-build': 'building',
} as const;

type BuildStep = Step & { kind: keyof typeof PHASES; command: readonly string[] };

export interface BuildPorts {
  index: EngineIndex;
  tools: Toolbox;
  clock: Clock;
}

/**
 * Builds llama-server, unless that was done before. Another process that is at it already is waited for; what an
 * earlier try has left is gone on with.
 * @throws TaskchartError; the signal's reason
 */
export function buildLlama(
  build: LlamaBuild,
  { index, tools, clock }: BuildPorts,
  signal: AbortSignal,
  tell: TellEngineProgress,
): Promise<PreparedEngine> {
  const { id, folder, program } = build;
  return keepEngine(
    { id, mode: 'source', folder, program },
    {
      index,
      clock,
      prepare: () => preflight(build, tools),
      async bring(extra, work) {
        await new Build(build, tools, signal, tell, clock).run(extra);
        const version = await versionOf(program, tools, signal);
        const build_ref = await runCommand(['git', '-C', join(work, 'src'), 'rev-parse', 'HEAD'], {
          env: tools.env,
          signal,
        });
        return { version, build_ref: build_ref.trim(), build_flags: written(build.flags) };
      },
    },
    signal,
    tell,
  );
}

class Build {
  readonly #build: LlamaBuild;
  readonly #tools: Toolbox;
  readonly #signal: AbortSignal;
  readonly #tell: TellEngineProgress;
  readonly #clock: Clock;
  readonly #work: string;
  #told_at = -Infinity;

  constructor(
    build: LlamaBuild,
    tools: Toolbox,
    signal: AbortSignal,
    tell: TellEngineProgress,
    clock: Clock,
  ) {
    this.#build = build;
    this.#tools = tools;
    this.#signal = signal;
    this.#tell = tell;
    this.#clock = clock;
    this.#work = join(build.folder, 'work');
  }

  async run(extra: readonly string[]): Promise<void> {
    const steps = buildSteps(this.#build).filter((step): step is BuildStep => step.kind in PHASES);
    const fetching = steps.filter(({ kind }) => PHASES[kind] === 'cloning');
    const making = steps.filter(({ kind }) => PHASES[kind] !== 'cloning');
    if (!existsSync(this.#fetched)) await this.#fetch(fetching);
    try {
      await this.#make(making, extra);
    } catch (error) {
      const compiler = error instanceof CommandError && otherCompiler(this.#build, error.lines, this.#tools);
      if (!compiler) throw this.#explained(error);
      this.#tell({
        phase: 'configuring',
        note: `The CUDA compiler does not get along with this compiler; once more with ${compiler}.`,
      });
      await this.#make(making, [...extra, `-DCMAKE_CUDA_HOST_COMPILER=${compiler}`]).catch(
        (again: unknown) => {
          throw this.#explained(again);
        },
      );
    }
    const bin = join(this.#build.folder, 'bin');
    await rm(bin, { recursive: true, force: true });
    await rename(join(this.#work, 'build', 'bin'), bin);
  }

  async #fetch(steps: readonly BuildStep[]): Promise<void> {
    await rm(join(this.#work, 'src'), { recursive: true, force: true });
    try {
      for (const step of steps) await this.#run(step, step.command);
      await appendFile(this.#fetched, '');
    } catch (error) {
      throw this.#explained(error);
    }
  }

  async #make(steps: readonly BuildStep[], extra: readonly string[]): Promise<void> {
    try {
      for (const step of steps)
        await this.#run(step, step.kind === 'cmake-configure' ? [...step.command, ...extra] : step.command);
    } catch (error) {
      // What was configured for tools that failed would be used again; what was only interrupted is gone on with.
      if (error instanceof CommandError)
        await rm(join(this.#work, 'build'), { recursive: true, force: true });
      throw error;
    }
  }

  async #run({ kind }: BuildStep, command: readonly string[]): Promise<void> {
    const phase = PHASES[kind];
    this.#tell({ phase });
    const log = createWriteStream(this.#log, { flags: 'a' });
    log.write(`$ ${command.join(' ')}\n`);
    try {
      await runCommand(command, {
        // Nobody is there to be asked for a password.
        env: { ...this.#tools.env, GIT_TERMINAL_PROMPT: '0' },
        cwd: this.#work,
        signal: this.#signal,
        line: (line) => {
          log.write(`${line}\n`);
          const fraction = phase === 'building' ? fractionIn(line) : undefined;
          const now = this.#clock.now();
          if (fraction === undefined || now - this.#told_at < PERIOD_MS) return;
          this.#told_at = now;
          this.#tell({ phase, fraction });
        },
      });
    } finally {
      await new Promise<void>((resolve) => log.on('error', () => resolve()).end(resolve));
    }
  }

  /** Where the rest of the story is. */
  #explained(error: unknown): unknown {
    if (!(error instanceof CommandError)) return error;
    const { source } = this.#build;
    const text = `llama.cpp ${source.version} could not be built: ${error.message}; all of it is in ${this.#log}`;
    return /^https?:/.test(source.from) && !existsSync(this.#fetched)
      ? unavailable(text)
      : unobtainable(text);
  }

  get #fetched(): string {
    return join(this.#work, 'fetched');
  }

  get #log(): string {
    return join(this.#build.folder, 'build.log');
  }
}

/** What make and ninja say of how far they are: `[ 12%]` and `[34/567]`. */
function fractionIn(line: string): number | undefined {
  const [, percent, done, all] = /^\[\s*(?:(\d+)%|(\d+)\/(\d+))\]/.exec(line) ?? [];
  if (percent !== undefined) return Number(percent) / 100;
  return done === undefined ? undefined : Number(done) / Number(all);
}
