/**
 * The HTTP face with tasks that wait, asked for its heap over the channel of child processes: before and after somebody
 * opens their streams. Needs --expose-gc.
 */
import { createLogger } from '../../src/observe/logger.ts';
import { createOrchestrator } from '../../src/index.ts';
import { startServer } from '../../src/server.ts';
import { MODEL, requestOf } from '../bodies.ts';
import { heapAfterGc } from '../heap.ts';

const [tasks = '100'] = process.argv.slice(2);
const count = Number(tasks);

const orchestrator = createOrchestrator({
  server: { bind_addr: '127.0.0.1:0' },
  pools: [
    {
      id: 'p',
      engine: 'synthetic',
      model: MODEL,
      slots: 4,
      queue: { capacity: count + 1 },
      synthetic: { load_ms: 2_000_000_000 },
    },
  ],
  supervision: { load_timeout_ms: 2_000_000_000 },
});
const { logger } = await createLogger({ level: 'error', format: 'json' });
const { url } = await startServer(orchestrator, logger);
const paths: string[] = [];
for (let number = 0; number < count; number++) {
  const task = await orchestrator.submit(requestOf(number));
  paths.push(`/v1/tasks/${task.id}/stream`);
}

process.on('message', (question: 'paths' | 'heap') => {
  if (question === 'paths') process.send?.(paths);
  else void heapAfterGc().then((answer) => process.send?.(answer));
});
process.once('disconnect', () => process.exit());
process.stdout.write(`${JSON.stringify({ url })}\n`);
