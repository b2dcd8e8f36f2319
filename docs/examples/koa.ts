import type { AddressInfo } from 'node:net';
import Koa from 'koa';
import { createOrchestrator } from 'taskchart';
import { mountHttp } from 'taskchart/http';

const orchestrator = createOrchestrator();
const http = mountHttp(orchestrator, { prefix: '/llm' });

const app = new Koa();
app.use(async (ctx, next) => {
  if (!ctx.path.startsWith('/llm/')) return next();
  ctx.respond = false;
  await http.handler(ctx.req, ctx.res);
});
app.use((ctx) => {
  if (ctx.path === '/') ctx.body = 'The rest of the service.';
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
