/** What admission is measured against: the same framework and router, a handler that only reads, parses and answers. */
import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import Router from 'koa-router';
import Koa from 'koa';

const router = new Router();
router.post('/v1/tasks', async (ctx) => {
  const { max_tokens } = (await readJson(ctx.req)) as { max_tokens: number };
  const task_id = randomUUID();
  ctx.status = 202;
  ctx.set('Location', `/v1/tasks/${task_id}`);
  ctx.body = {
    task_id,
    session_id: randomUUID(),
    queue_position: max_tokens,
    predicted_start_ms: 0,
    backoff_ms: 0,
    streams: { sse: `/v1/tasks/${task_id}/stream` },
  };
});

const app = new Koa();
app.use(router.routes());
const server = createServer(app.callback());
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address() as AddressInfo;
  process.stdout.write(`${JSON.stringify({ url: `http://127.0.0.1:${port}` })}\n`);
});
process.once('disconnect', () => process.exit());

function readJson(request: IncomingMessage): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      try {
        resolve(JSON.parse(Buffer.concat(chunks).toString()));
      } catch (error) {
        reject(error as Error);
      }
    });
    request.on('error', reject);
  });
}
