import {
  createClient,
  TaskchartError,
  type Client,
  type TaskState,
  type TaskSummary,
} from '../client/index.ts';
import { complain } from './complain.ts';

export interface DaemonOptions {
  url: string;
  /** What the daemon asks for; an empty one is none. */
  token?: string;
}

export interface TasksOptions extends DaemonOptions {
  state?: string;
  pool?: string;
  session?: string;
  limit: number;
  json?: true;
}

const COLUMNS = ['TASK', 'STATE', 'POOL', 'PRIORITY', 'ADMITTED', 'TOOK', 'TOKENS', ''] as const;

/** Most tasks that a page of the daemon has. */
const LARGEST_PAGE = 1000;

/** Lists a daemon's tasks, newest first. @returns the exit code: 1 where the daemon refuses or does not answer */
export function listTasks({ state, pool, session, limit, json, ...daemon }: TasksOptions): Promise<number> {
  return ask(daemon, async (client) => {
    const tasks: TaskSummary[] = [];
    for await (const task of client.tasks({
      limit: Math.min(limit, LARGEST_PAGE),
      ...(state === undefined ? {} : { state: state as TaskState }),
      ...(pool === undefined ? {} : { pool_id: pool }),
      ...(session === undefined ? {} : { session_id: session }),
    })) {
      tasks.push(task);
      if (tasks.length === limit) break;
    }
    if (json) for (const task of tasks) process.stdout.write(`${JSON.stringify(task)}\n`);
    else process.stdout.write(table([COLUMNS, ...tasks.map(rowOf)]));
  });
}

/** Cancels a task. @returns the exit code: 1 where there is no such task, or nobody answers */
export function cancelTask(task_id: string, daemon: DaemonOptions): Promise<number> {
  return ask(daemon, async (client) => {
    // The daemon has nothing against a cancel that changes nothing; a person who mistyped an id would like to know.
    const { state } = await client.task(task_id);
    await client.cancel(task_id);
    const isOver = state === 'ended' || state === 'error';
    process.stdout.write(
      `${task_id} ${isOver ? `was over already (${state})` : `is canceled (was ${state})`}\n`,
    );
  });
}

async function ask({ url, token }: DaemonOptions, work: (client: Client) => Promise<void>): Promise<number> {
  if (!URL.canParse(url)) throw new Error(`--url: must be a URL such as http://127.0.0.1:8080, got "${url}"`);
  try {
    await work(createClient({ base_url: url, attempts: 1, ...(token ? { token } : {}) }));
    return 0;
  } catch (error) {
    if (!(error instanceof TaskchartError)) throw error;
    complain(error.failure);
    return 1;
  }
}

function rowOf(task: TaskSummary): string[] {
  const { timings, usage, error, queue_position } = task;
  const state = task.canceled ? 'canceled' : task.state;
  return [
    task.task_id,
    queue_position === undefined ? state : `${state} (${queue_position} ahead)`,
    task.pool_id ?? '',
    task.priority,
    new Date(timings.admitted_ms).toISOString().replace(/\.\d+/, ''),
    timings.ended_ms === undefined ? '' : `${(timings.ended_ms / 1000).toFixed(1)} s`,
    String(usage.tokens_out),
    error ? `${error.code}: ${error.message}` : '',
  ];
}

/** Columns as wide as what is in them. */
function table(rows: readonly (readonly string[])[]): string {
  const widths = COLUMNS.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows
    .map(
      (row) =>
        `${row
          .map((cell, column) => cell.padEnd(widths[column] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('');
}
