/**
 * Clients of every kind, a few hundred at a time, on connections that are used again: they post, read, read slowly,
 * leave and come back, leave for good, cancel, and are refused. Counts what they were told.
 */
import { once } from 'node:events';
import { Agent, request, type IncomingMessage } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { newId } from '../../src/ids.ts';
import { requestOf } from '../bodies.ts';

export interface SoakQuestion {
  url: string;
  tasks: number;
  clients: number;
  /** Seeds what the clients do. */
  seed: number;
}

export interface SoakAnswer {
  seconds: number;
  accepted: number;
  /** Posts that were refused, by code. */
  refused: Record<string, number>;
  /** Streams that were read to their end, by how that said it ended. */
  endings: Record<string, number>;
  tokens: number;
  slow: number;
  resumed: number;
  left: number;
  canceled: number;
  /** What must not happen, in words; the first few. */
  mishaps: string[];
}

/** Until a reader that reads slowly goes on. */
const PAUSE_MS = 300;

let agent = new Agent({ keepAlive: true });
let state = 1;
let number = 0;

process.on('message', (question: SoakQuestion) => {
  void soak(question).then((answer) => process.send?.(answer));
});
process.once('disconnect', () => process.exit());

async function soak({ url, tasks, clients, seed }: SoakQuestion): Promise<SoakAnswer> {
  agent = new Agent({ keepAlive: true, maxSockets: Infinity });
  state = seed;
  const told: SoakAnswer = {
    seconds: 0,
    accepted: 0,
    refused: {},
    endings: {},
    tokens: 0,
    slow: 0,
    resumed: 0,
    left: 0,
    canceled: 0,
    mishaps: [],
  };
  const start = performance.now();
  let left = tasks;
  await Promise.all(
    Array.from({ length: clients }, async () => {
      while (left-- > 0)
        await oneTask(new URL(url), told).catch((error: unknown) => mishap(told, String(error)));
    }),
  );
  told.seconds = (performance.now() - start) / 1000;
  agent.destroy();
  return told;
}

async function oneTask(url: URL, told: SoakAnswer): Promise<void> {
  const kind = chance();
  const isEmbedding = chance() < 0.03;
  const wanted = chance();
  const pool = wanted < 0.05 ? 'small' : wanted < 0.35 ? 'paced' : 'large';
  const max_tokens = 1 + Math.floor(chance() * 24);
  const body = {
    ...requestOf(number++, 'synthetic', max_tokens),
    model_ref: pool,
    workload: isEmbedding ? 'embedding' : 'completion',
    priority: chance() < 0.5 ? 'interactive' : 'batch',
    ...(chance() < 0.2 ? { task_id: newId() } : {}),
  };
  const headers: Record<string, string> = chance() < 0.05 ? { 'Idempotency-Key': `key ${newId()}` } : {};
  const answer = await call(url, 'POST', '/v1/tasks', JSON.stringify(body), headers);
  const said = JSON.parse(answer.text) as { task_id: string; code: string };
  if (answer.status !== 202) {
    told.refused[said.code] = (told.refused[said.code] ?? 0) + 1;
    return;
  }
  told.accepted++;
  const path = `/v1/tasks/${said.task_id}`;
  if (kind < 0.1) return;
  if (kind < 0.2) {
    if (chance() < 0.5) await sleep(chance() * 20);
    await call(url, 'POST', `${path}/cancel`);
    told.canceled++;
  }
  const reader = new Reader(url, path, told);
  if (kind < 0.25) {
    told.left++;
    return void (await reader.read({ leaves_after: 1 }));
  }
  if (kind < 0.35) {
    told.resumed++;
    await reader.read({ leaves_after: 1 + Math.floor(chance() * 5) });
  }
  const is_slow = kind > 0.97;
  if (is_slow) told.slow++;
  while (!(await reader.read({ is_slow })));
}

/** One reader of one task, over one connection after the other. */
class Reader {
  readonly #url: URL;
  readonly #path: string;
  readonly #told: SoakAnswer;
  #last = -1;
  #isOver = false;

  constructor(url: URL, path: string, told: SoakAnswer) {
    this.#url = url;
    this.#path = path;
    this.#told = told;
  }

  /** @returns whether the end was read */
  async read({ leaves_after = Infinity, is_slow = false }): Promise<boolean> {
    if (this.#isOver) return true;
    const response = await open(
      this.#url,
      `${this.#path}/stream`,
      this.#last < 0 ? {} : { 'Last-Event-ID': String(this.#last) },
    );
    if (response.statusCode !== 200) {
      // It was forgotten, because so many others have ended since.
      response.resume();
      if (response.statusCode !== 404) mishap(this.#told, `a stream was answered ${response.statusCode}`);
      return true;
    }
    if (is_slow) {
      response.pause();
      await sleep(PAUSE_MS);
    }
    let text = '';
    let frames = 0;
    for await (const part of response.setEncoding('latin1') as AsyncIterable<string>) {
      text += part;
      for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
        this.#take(text.slice(0, end));
        text = text.slice(end + 2);
        frames++;
      }
      if (frames >= leaves_after && !this.#isOver) {
        response.destroy();
        return false;
      }
    }
    return this.#isOver;
  }

  #take(frame: string): void {
    const match = /^id: (\d+)\nevent: (\w+)\ndata: (.*)$/.exec(frame);
    if (!match) return;
    const [, id, type, data = ''] = match;
    if (this.#isOver || Number(id) !== this.#last + 1)
      mishap(this.#told, `event ${id} follows event ${this.#last}${this.#isOver ? ', the last one' : ''}`);
    this.#last = Number(id);
    if (type === 'token') this.#told.tokens++;
    if (type !== 'end' && type !== 'error') return;
    this.#isOver = true;
    const said = JSON.parse(data) as { code?: string; canceled?: boolean; cancel_reason?: string };
    const ending = said.code ?? (said.canceled ? `canceled (${said.cancel_reason})` : 'finished');
    this.#told.endings[ending] = (this.#told.endings[ending] ?? 0) + 1;
  }
}

/**
 * The head of an answer. A server may close an idle connection in the moment in which it is used again: what was sent
 * then has not been read, and is sent once more.
 */
async function open(
  url: URL,
  path: string,
  headers: Record<string, string>,
  method = 'GET',
  body?: string,
): Promise<IncomingMessage> {
  for (;;) {
    const asked = request(url, { agent, method, path, headers });
    asked.end(body);
    try {
      const [response] = (await once(asked, 'response')) as [IncomingMessage];
      return response;
    } catch (error) {
      if (!asked.reusedSocket || (error as NodeJS.ErrnoException).code !== 'ECONNRESET') throw error;
    }
  }
}

async function call(
  url: URL,
  method: string,
  path: string,
  body?: string,
  headers: Record<string, string> = {},
): Promise<{ status: number; text: string }> {
  const response = await open(url, path, headers, method, body);
  let text = '';
  for await (const part of response.setEncoding('utf8') as AsyncIterable<string>) text += part;
  return { status: response.statusCode ?? 0, text };
}

function mishap({ mishaps }: SoakAnswer, what: string): void {
  if (mishaps.length < 20) mishaps.push(what);
}

/** 0 to 1, the same for the same seed (mulberry32). */
function chance(): number {
  state = (state + 0x6d2b79f5) | 0;
  let mixed = Math.imul(state ^ (state >>> 15), state | 1);
  mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
}
