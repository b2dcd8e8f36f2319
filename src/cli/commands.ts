import { Command, InvalidArgumentError, Option } from 'commander';
import { ConfigError } from '../config.ts';
import { redact } from '../observe/redact.ts';
import type { BuildOptions, EngineOptions } from './engine.ts';
import type { RunOptions } from './run.ts';
import type { ServeOptions } from './serve.ts';
import type { DaemonOptions, TasksOptions } from './tasks.ts';

const USAGE_ERROR = 2;

function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const number = Number(text);
    if (!Number.isInteger(number) || number < least || number > most)
      throw new InvalidArgumentError(`It must be a whole number from ${least} to ${most}.`);
    return number;
  };
}

function urlOption(): Option {
  return new Option('--url <url>', 'the daemon').default('http://127.0.0.1:8080');
}

function tokenOption(): Option {
  return new Option(
    '--token <token>',
    'token of the daemon; better by the environment, which others cannot list',
  ).env('TASKCHART_TOKEN');
}

const program = new Command('taskchart')
  .description('Orchestrator for LLM inference tasks in which everything that lives is a statechart.')
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : USAGE_ERROR));

program
  .command('serve')
  .description(
    'Run the daemon until SIGTERM or SIGINT. Without a configuration: the bundled model, on 127.0.0.1:8080.',
  )
  .option('--config <file>', 'configuration, YAML or JSON')
  .option('--host <host>', 'address to listen on')
  .option('--port <port>', 'port to listen on, 0 = any free one', wholeNumber(0, 65_535))
  .option(
    '--data-dir <dir>',
    'folder of what the daemon keeps: accepted tasks, their streams, its engines’ output (default: .runtime); ' +
      'for one daemon at a time',
  )
  .option('--dry-run', 'print what every pool would need, step by step, and end')
  .addHelpText(
    'after',
    `
The first signal drains: running tasks may finish for server.shutdown_ms; what has not finished by then, and what
waits, goes on in the next daemon on the same folder. A second signal stops at once.
Environment: every key of the configuration, such as TASKCHART_SERVER__BIND_ADDR or TASKCHART_STORE__KIND=memory.
TASKCHART_AUTH__TOKEN is the token that callers need; without it only this machine is served.
Exit code: 0 after a signal, 1 where it cannot start, 2 for a mistake in the call or the configuration.`,
  )
  .action(async (options: ServeOptions) => {
    const { serve } = await import('./serve.ts');
    await serve(options);
  });

program
  .command('run')
  .description('Run one task and print its tokens; states go to stderr. Without --url in this process.')
  .argument('<prompt>', 'text to continue')
  .option('--model <ref>', 'model, such as storyteller or file:/path/to/model.gguf')
  .option('--max-tokens <n>', 'most tokens to generate', wholeNumber(1, 1_000_000))
  .option('--url <url>', 'a running daemon, such as http://127.0.0.1:8080')
  .addOption(tokenOption())
  .option('--json', 'print the task’s events as JSON lines')
  .action(async (prompt: string, options: RunOptions) => {
    const { run } = await import('./run.ts');
    process.exitCode = await run(prompt, options);
  });

program
  .command('tasks')
  .description('List a daemon’s tasks, newest first.')
  .addOption(urlOption())
  .addOption(tokenOption())
  .addOption(
    new Option('--state <state>', 'only those in this state').choices([
      'admitted',
      'provisioning',
      'placed',
      'streaming',
      'ended',
      'error',
    ]),
  )
  .option('--pool <id>', 'only those of this pool')
  .option('--session <id>', 'only those of this session')
  .option('--limit <n>', 'how many at most', wholeNumber(1, 1_000_000), 20)
  .option('--json', 'print each task as a JSON line')
  .action(async (options: TasksOptions) => {
    const { listTasks } = await import('./tasks.ts');
    process.exitCode = await listTasks(options);
  });

program
  .command('cancel')
  .description('Cancel a daemon’s task; no token follows.')
  .argument('<task>', 'id of the task')
  .addOption(urlOption())
  .addOption(tokenOption())
  .action(async (task: string, options: DaemonOptions) => {
    const { cancelTask } = await import('./tasks.ts');
    process.exitCode = await cancelTask(task, options);
  });

const engine = program
  .command('engine')
  .description(
    'Engines that are built or pulled here, for pools with provisioning.mode source or container.',
  );

engine
  .command('build')
  .description(
    'Bring the engines of a configuration here before a daemon needs them. Where no pool needs any: llama-server, from ' +
      'the llama.cpp that comes with this package; that takes git, cmake and a C++ compiler, and no network.',
  )
  .option('--config <file>', 'configuration, YAML or JSON')
  .option('--pool <id>', 'only that of this pool')
  .option('--dry-run', 'print the steps, and do none of them')
  .action(async (options: BuildOptions) => {
    const { buildEngines } = await import('./engine.ts');
    process.exitCode = await buildEngines(options);
  });

engine
  .command('list')
  .description('List the engines that were built: id, engine, version, when, flags.')
  .option('--config <file>', 'configuration, YAML or JSON')
  .action(async (options: EngineOptions) => {
    const { listEngines } = await import('./engine.ts');
    process.exitCode = await listEngines(options);
  });

engine
  .command('remove')
  .description('Remove an engine that was built.')
  .argument('<id>', 'its id, as the list has it')
  .option('--config <file>', 'configuration, YAML or JSON')
  .action(async (id: string, options: EngineOptions) => {
    const { removeEngine } = await import('./engine.ts');
    process.exitCode = await removeEngine(id, options);
  });

/** Runs the command that the arguments name. Exit code 2 is a mistake in the call or the configuration, 1 a failure. */
export async function main(): Promise<void> {
  // Arguments are listed to everybody on this machine, and a token may be among them.
  if (process.argv.some((argument) => argument.startsWith('--token'))) process.title = 'taskchart';
  try {
    await program.parseAsync();
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    // What was written is quoted last; what comes before it are our own words, with names such as auth.token in them.
    process.stderr.write(`taskchart: ${message.replace(/\bgot [^]*$/, redact)}\n`);
    process.exit(error instanceof ConfigError ? USAGE_ERROR : 1);
  }
}
