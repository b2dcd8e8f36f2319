/** Streams several tasks one after the other, and says what a reader of each has seen: task and id. Until killed. */
import { openSqliteTaskLog } from '../../src/streams/sqlite-log.ts';
import { END, never, push, STARTED, token } from './events.ts';

const [path = '', prefix = ''] = process.argv.slice(2);
const log = await openSqliteTaskLog(path);

async function read(task_id: string): Promise<void> {
  for await (const { events, isLast } of log.read(task_id, undefined, never()))
    process.stdout.write(`${task_id} ${events.at(-1)?.id}${isLast ? ' last' : ''}\n`);
}

async function stream(lane: number): Promise<void> {
  for (let task = 0; ; task++) {
    const task_id = `${prefix}${lane}.${task}`;
    await push(log, task_id, STARTED, token(0));
    const reading = read(task_id);
    for (let i = 1; i < 20; i++) {
      await push(log, task_id, token(i));
      await new Promise((resolve) => setImmediate(resolve));
    }
    await push(log, task_id, END);
    await reading;
  }
}

await Promise.all([stream(1), stream(2), stream(3)]);
