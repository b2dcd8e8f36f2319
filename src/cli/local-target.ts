import { readHub } from '../config/hub.ts';
import { programEnvironment } from '../config/program-environment.ts';
import { createOrchestrator } from '../embed.ts';
import type { TaskTarget } from './task-target.ts';

/** An orchestrator in this process, with one pool for the model. */
export function localTarget(model: string | undefined): TaskTarget {
  const orchestrator = createOrchestrator({
    hub: readHub(process.env),
    program_env: programEnvironment(process.env),
    ...(model === undefined ? {} : { pools: [{ id: 'local', engine: 'llamacpp', model }] }),
  });
  return {
    async submit({ prompt, max_tokens }) {
      const task = await orchestrator.submit({ prompt, ...(max_tokens === undefined ? {} : { max_tokens }) });
      return {
        events: task.events(),
        info: () => task.info(),
        cancel: () => task.cancel(),
        onMoved: (listener) =>
          void orchestrator.observe((seen) => {
            if (seen.type === 'task.moved' && seen.record.id === task.id) listener();
          }),
      };
    },
    close: () => orchestrator.close(0),
  };
}
