import { createClient, type TaskEvent } from '../client/index.ts';
import { DEFAULT_DEADLINE_MS, DEFAULT_MAX_TOKENS } from '../contract/defaults.ts';
import type { NewLogEvent } from '../streams/task-log.ts';
import type { TaskTarget } from './task-target.ts';

/** A daemon behind a URL; an empty token is none. @throws TaskchartError its refusals, or POOL_UNAVAILABLE where nobody answers */
export function remoteTarget(url: string, token?: string): TaskTarget {
  if (!URL.canParse(url)) throw new Error(`--url: must be a URL such as http://127.0.0.1:8080, got "${url}"`);
  // A person at a terminal would rather know that the queue is full than wait for it.
  const client = createClient({ base_url: url, attempts: 1, ...(token ? { token } : {}) });

  return {
    async submit({ prompt, model, max_tokens = DEFAULT_MAX_TOKENS }) {
      const { engines } = await client.capabilities();
      const engine = engines.find(({ model_id }) => model === undefined || model_id === model);
      const { task_id } = await client.submit({
        workload: 'completion',
        engine: engine?.engine ?? 'llamacpp',
        model_ref: model ?? engine?.model_id ?? '',
        ctx: engine?.ctx_max || Buffer.byteLength(prompt) + max_tokens + 64,
        priority: 'interactive',
        max_tokens,
        deadline_ms: DEFAULT_DEADLINE_MS,
        prompt,
      });
      return {
        // Verbose, because what is being prepared is told to those who wait for it only.
        events: logged(client.stream(task_id, { verbose: true })),
        info: () => client.task(task_id),
        cancel: () => client.cancel(task_id),
      };
    },
    async close() {},
  };
}

/** Narration is for readers of the stream; the log in this process has none. */
async function* logged(events: AsyncIterable<TaskEvent>): AsyncGenerator<NewLogEvent> {
  for await (const event of events) if (event.type !== 'narration') yield event;
}
