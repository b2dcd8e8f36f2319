import { createOrchestrator, openStorage } from 'taskchart';

const storage = await openStorage(process.env['TASKCHART_DATA'] ?? 'taskchart-data');
const orchestrator = createOrchestrator({ ...storage });

// For as long as the key is remembered this is one task: started again, the program goes on where it was.
const task = await orchestrator.submit(
  { prompt: 'Once upon a time', max_tokens: 60 },
  { idempotency_key: 'the story' },
);
process.once('SIGTERM', () => void orchestrator.close());

for await (const event of task.events()) {
  if (event.type === 'token') process.stdout.write(event.data.t);
}
await orchestrator.close();
