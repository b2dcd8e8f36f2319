/**
 * So many clients, each of which begins its next generation when the last one is over: straight at a llama-server, or
 * through a daemon, whose stream it follows to the end. Counts tokens as the engine counts them.
 */
import { Agent, request, type IncomingMessage } from 'node:http';
import { once } from 'node:events';
import { requestOf } from '../bodies.ts';

export interface LoopQuestion {
  url: string;
  /** `direct`: `POST /completion` of a llama-server; `daemon`: a task and its stream. */
  through: 'direct' | 'daemon';
  clients: number;
  /** Generations, all clients together. */
  tasks: number;
  tokens: number;
  model: string;
  /** The first seed; each generation has one of its own, so that none repeats another. */
  seed: number;
}

export interface LoopAnswer {
  seconds: number;
  tokens: number;
}

/** A llama-server says that it keeps a connection after a stream, and does not. */
const agents = { direct: new Agent(), daemon: new Agent({ keepAlive: true }) };

process.on('message', (question: LoopQuestion) => {
  void loop(question).then((answer) => process.send?.(answer));
});
process.once('disconnect', () => process.exit());

async function loop(question: LoopQuestion): Promise<LoopAnswer> {
  const start = performance.now();
  let left = question.tasks;
  let tokens = 0;
  await Promise.all(
    Array.from({ length: question.clients }, async () => {
      while (left > 0) {
        const generated = await generate(question, question.seed + left--);
        tokens += generated;
      }
    }),
  );
  return { seconds: (performance.now() - start) / 1000, tokens };
}

function generate(question: LoopQuestion, seed: number): Promise<number> {
  return question.through === 'direct' ? straight(question, seed) : byDaemon(question, seed);
}

async function straight({ url, tokens }: LoopQuestion, seed: number): Promise<number> {
  const { prompt } = requestOf(seed, 'llamacpp', tokens);
  const body = JSON.stringify({
    prompt,
    stream: true,
    n_predict: tokens,
    seed,
    temperature: 0,
    cache_prompt: false,
  });
  const text = await textOf(await ask('direct', url, 'POST', '/completion', body));
  const last = text.slice(text.lastIndexOf('"tokens_predicted":'));
  return Number(/^"tokens_predicted":(\d+)/.exec(last)?.[1]);
}

async function byDaemon({ url, tokens, model }: LoopQuestion, seed: number): Promise<number> {
  const body = JSON.stringify({ ...requestOf(seed, 'llamacpp', tokens), model_ref: model, ctx: 512, seed });
  const { task_id } = JSON.parse(await textOf(await ask('daemon', url, 'POST', '/v1/tasks', body))) as {
    task_id: string;
  };
  const text = await textOf(await ask('daemon', url, 'GET', `/v1/tasks/${task_id}/stream`));
  return Number(/event: end\ndata: \{"tokens_out":(\d+)/.exec(text)?.[1]);
}

async function ask(
  through: LoopQuestion['through'],
  url: string,
  method: string,
  path: string,
  body?: string,
): Promise<IncomingMessage> {
  const asked = request(new URL(path, url), { agent: agents[through], method });
  asked.end(body);
  const [response] = (await once(asked, 'response')) as [IncomingMessage];
  return response;
}

async function textOf(response: IncomingMessage): Promise<string> {
  let text = '';
  for await (const part of response.setEncoding('utf8') as AsyncIterable<string>) text += part;
  return text;
}
