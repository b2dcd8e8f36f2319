import { createOrchestrator } from 'taskchart';

const orchestrator = createOrchestrator();
const task = await orchestrator.submit({ prompt: 'Once upon a time', max_tokens: 60 });

for await (const event of task.events()) {
  if (event.type === 'token') process.stdout.write(event.data.t);
}

console.log('\n', (await task.info()).timings);
await orchestrator.close();
