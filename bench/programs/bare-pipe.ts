/** What the relay is measured against: for each GET the same upstream request, and its body piped through as it is. */
import { Agent, createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';

const [upstream = '', max_tokens = '1'] = process.argv.slice(2);
const agent = new Agent({ keepAlive: true });

const server = createServer((incoming, response) => {
  const seed = Number(new URL(incoming.url ?? '/', upstream).searchParams.get('seed'));
  const body = JSON.stringify({
    prompt: 'once upon a time',
    stream: true,
    n_predict: Number(max_tokens),
    seed,
    cache_prompt: true,
  });
  const headers = { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) };
  const outgoing = request(`${upstream}/completion`, { method: 'POST', agent, headers }, (answer) => {
    response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache' });
    answer.pipe(response);
  });
  outgoing.end(body);
});
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address() as AddressInfo;
  process.stdout.write(`${JSON.stringify({ url: `http://127.0.0.1:${port}` })}\n`);
});
process.once('disconnect', () => process.exit());
