import { randomUUID } from 'node:crypto';
import { createOrchestrator, TaskchartError } from 'taskchart';

const orchestrator = createOrchestrator({ session: { max_turns: 10, budgets: { tokens: 100 } } });
const stop = orchestrator.observe((observation) => {
  if (observation.type === 'task.closed') console.log(`${observation.record.id} is over`);
});

const session_id = randomUUID();
const task = await orchestrator.submit({ session_id, prompt: 'Once upon a time', max_tokens: 60 });
for await (const event of task.events()) void event;
console.log(orchestrator.session(session_id).tokens_budget_remaining, 'tokens are left');

try {
  await orchestrator.submit({ session_id, prompt: 'Then the fox', max_tokens: 60 });
} catch (error) {
  if (!(error instanceof TaskchartError)) throw error;
  console.log(error.code, error.failure.policy_label, error.failure.retriable, error.message);
}

stop();
await orchestrator.close();
