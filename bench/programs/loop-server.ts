/**
 * The daemon's server, asked for the delay of its event loop over the channel of child processes. `reset` starts a
 * measurement, `read` ends it.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { createOrchestrator } from '../../src/index.ts';
import { createLogger } from '../../src/observe/logger.ts';
import { startServer } from '../../src/server.ts';
import { MODEL } from '../bodies.ts';

export interface LoopAnswer {
  /** Delay of the event loop beyond the millisecond of the probe, in milliseconds. */
  p50: number;
  p99: number;
  max: number;
  /** Processor time of the loop's thread between two probes, which other processes do not add to, in milliseconds. */
  work_p99: number;
}

const PROBE_MS = 1;

const delays = monitorEventLoopDelay({ resolution: PROBE_MS });
let work_ms: number[] = [];
let before = threadTime();
setInterval(() => {
  const now = threadTime();
  work_ms.push(now - before);
  before = now;
}, PROBE_MS);
const orchestrator = createOrchestrator({
  server: { bind_addr: '127.0.0.1:0' },
  retention: { max_tasks: 4 },
  pools: [
    // Counts in a thread, and refuses by the count. It needs no engine for that.
    { id: 'counted', engine: 'llamacpp', model: 'storyteller', preload: false },
    { id: 'roomy', engine: 'synthetic', model: MODEL, ctx: 2_000_000_000, slots: 8 },
  ],
});
const { logger } = await createLogger({ level: 'error', format: 'json' });
const { url } = await startServer(orchestrator, logger);

process.on('message', (question: 'reset' | 'read') => {
  if (question === 'reset') {
    delays.enable();
    delays.reset();
    work_ms = [];
    process.send?.({});
  } else {
    process.send?.({
      p50: delayOf(delays.percentile(50)),
      p99: delayOf(delays.percentile(99)),
      max: delayOf(delays.max),
      work_p99: work_ms.toSorted((a, b) => a - b)[Math.floor(work_ms.length * 0.99)] ?? 0,
    } satisfies LoopAnswer);
    delays.disable();
  }
});
process.once('disconnect', () => process.exit());
process.stdout.write(`${JSON.stringify({ url })}\n`);

function delayOf(nanoseconds: number): number {
  return Math.max(0, nanoseconds / 1e6 - PROBE_MS);
}

function threadTime(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}
