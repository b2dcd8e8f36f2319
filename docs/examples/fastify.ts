import Fastify from 'fastify';
import { createOrchestrator } from 'taskchart';
import { mountHttp } from 'taskchart/http';

const orchestrator = createOrchestrator();
const http = mountHttp(orchestrator, { prefix: '/llm' });

const app = Fastify();
app.register(async (scope) => {
  // Fastify reads no body in this scope: taskchart does, with its own limit and its own messages.
  scope.removeAllContentTypeParsers();
  scope.addContentTypeParser('*', (_request, _body, done) => done(null));
  scope.all('/llm/*', (request, reply) => {
    reply.hijack();
    return http.handler(request.raw, reply.raw);
  });
});
app.get('/', () => 'The rest of the service.');
// Before the server closes, while it still answers: running tasks finish, and every stream gets its last event.
app.addHook('preClose', async () => {
  await orchestrator.close();
  http.close();
});

const url = await app.listen({ port: Number(process.env['PORT'] ?? 3000), host: '127.0.0.1' });
console.log(`${url}/llm`);

process.once('SIGTERM', () => void app.close());
