import type { AddressInfo } from 'node:net';
import express from 'express';
import { createOrchestrator } from 'taskchart';
import { mountHttp } from 'taskchart/http';

const orchestrator = createOrchestrator();
const http = mountHttp(orchestrator);

const app = express();
app.use('/llm', http.handler);
app.get('/', (_request, response) => {
  response.send('The rest of the service.');
});

const server = app.listen(Number(process.env['PORT'] ?? 3000), '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}/llm`);
});

process.once('SIGTERM', async () => {
  // First, while the server still answers: running tasks finish, and every stream gets its last event.
  await orchestrator.close();
  http.close();
  server.close();
});
