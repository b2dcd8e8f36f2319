import { TaskchartError } from '../errors.ts';
import type { NewLogEvent } from '../streams/task-log.ts';
import { complain } from './complain.ts';
import type { RunningTask } from './task-target.ts';

export interface RunOptions {
  model?: string;
  maxTokens?: number;
  url?: string;
  /** Only for a daemon behind `url`. */
  token?: string;
  json?: true;
}

const CANCELED = 130;

/** @returns the exit code: 0 ended, 1 failed, 130 canceled by a signal */
export async function run(prompt: string, options: RunOptions): Promise<number> {
  const target =
    options.url === undefined
      ? (await import('./local-target.ts')).localTarget(options.model)
      : (await import('./remote-target.ts')).remoteTarget(options.url, options.token);
  let task: RunningTask | undefined;
  let exitCode = 0;
  const cancel = (): void => {
    exitCode = CANCELED;
    void task?.cancel();
  };
  process.once('SIGINT', cancel);
  process.once('SIGTERM', cancel);
  try {
    task = await target.submit({ prompt, model: options.model, max_tokens: options.maxTokens });
    if (exitCode === CANCELED) await task.cancel();
    const printer = options.json ? jsonPrinter() : textPrinter(prompt, task);
    task.onMoved?.(() => void printer.look());
    for await (const event of task.events) {
      await printer.print(event);
      if (event.type === 'error') exitCode = 1;
    }
    return exitCode;
  } catch (error) {
    if (!(error instanceof TaskchartError)) throw error;
    complain(error.failure);
    return 1;
  } finally {
    process.off('SIGINT', cancel);
    process.off('SIGTERM', cancel);
    await target.close();
  }
}

interface Printer {
  print(event: NewLogEvent): void | Promise<void>;
  /** The task is in another state now. */
  look(): void | Promise<void>;
}

function jsonPrinter(): Printer {
  return { print: (event) => void process.stdout.write(`${JSON.stringify(event)}\n`), look() {} };
}

/** Tokens to stdout as they come; each state to stderr as it is entered. */
function textPrinter(prompt: string, task: RunningTask): Printer {
  const seen = new Set<string>();
  let isMidLine = false;
  let hasText = false;
  const tell = (state: string, at_ms: number, extra = ''): void => {
    if (seen.has(state)) return;
    seen.add(state);
    if (isMidLine && process.stdout.isTTY) process.stdout.write('\n');
    isMidLine = false;
    process.stderr.write(`${String(Math.round(at_ms)).padStart(7)} ms  ${state}${extra}\n`);
  };
  const tellEntered = async (): Promise<void> => {
    const { timings } = await task.info();
    tell('admitted', 0);
    for (const [state, at] of [
      ['provisioning', timings.provisioning_ms],
      ['placed', timings.placed_ms],
      ['streaming', timings.first_token_ms],
    ] as const)
      if (at !== undefined) tell(state, at);
  };
  const write = (text: string): void => {
    process.stdout.write(text);
    isMidLine = true;
  };
  const look = (): void | Promise<void> => (seen.has('streaming') ? undefined : tellEntered());
  const print = async (event: NewLogEvent): Promise<void> => {
    switch (event.type) {
      case 'started':
        tell(
          'admitted',
          0,
          ` (${event.data.queue_position} ahead, start expected in ${event.data.predicted_start_ms} ms)`,
        );
        // It may have moved on before anybody listened.
        return look();
      case 'token':
        if (!seen.has('streaming')) await tellEntered();
        if (!hasText) write(prompt);
        hasText = true;
        return write(event.data.t);
      case 'metrics':
        return look();
      case 'end': {
        await tellEntered();
        if (isMidLine) process.stdout.write('\n');
        isMidLine = false;
        const { timings, finish_reason } = await task.info();
        const how = event.data.canceled
          ? 'canceled'
          : `${event.data.tokens_out} tokens, ${finish_reason ?? ''}`;
        return tell('ended', timings.ended_ms ?? 0, ` (${how})`);
      }
      case 'error': {
        if (isMidLine) process.stdout.write('\n');
        isMidLine = false;
        await tellEntered();
        const { timings } = await task.info();
        tell('error', timings.ended_ms ?? 0);
        return complain(event.data);
      }
    }
  };
  return { print, look };
}
