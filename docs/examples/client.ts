import { createClient } from 'taskchart/client';

const client = createClient({ base_url: process.env['TASKCHART_URL'] ?? 'http://127.0.0.1:8080' });
const run = client.run({
  workload: 'completion',
  engine: 'llamacpp',
  model_ref: 'storyteller',
  ctx: 512,
  priority: 'interactive',
  max_tokens: 60,
  deadline_ms: 60_000,
  prompt: 'Once upon a time',
});

for await (const event of run) {
  if (event.type === 'token') process.stdout.write(event.data.t);
  if (event.type === 'error') console.error(event.data.message);
}
