/**
 * A llama-server without a model: the real wire with its oddities, and faults on demand.
 * Run it as a program (`node test/helpers/fake-llama-server.ts --port 0 --slots 4`) or start it in-process.
 */
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { parseArgs } from 'node:util';
import { type Fault, FrameWriter, tokenFrame, tokenText } from './fake-llama-frames.ts';
import { type FakeVectorOptions, answerVectors, tokensOf } from './fake-llama-vectors.ts';

export interface FakeLlamaOptions extends FakeVectorOptions {
  /** @default 0, any free port */
  port?: number;
  /** @default 2 */
  slots?: number;
  /** Tokens per slot. @default 512 */
  ctx?: number;
  /** Milliseconds of 503, or `held` until `release()`. @default 0 */
  loading?: number | 'held';
  /** Tokens per write. @default 1 */
  per_write?: number;
  /** Milliseconds between writes; 0 is the next turn of the event loop. @default 0 */
  delay_ms?: number;
  /** Frames after which the stream stands still until `release()`; or vectors and scores, of all clients. */
  hold_at?: number;
  /** The token index at which the model says it is done. */
  eos_at?: number;
  /** What goes wrong once that many tokens are out. */
  fault?: { kind: Fault; at: number };
  /** Bytes per HTTP chunk, to split frames and characters anywhere. */
  chop?: number;
  /** Lines end in CR LF. @default false */
  crlf?: boolean;
  /** A ping before every frame. @default false */
  pings?: boolean;
  /** Every third token ends inside a character: it gets no frame of its own. @default false */
  half_characters?: boolean;
  /** @default none needed */
  api_key?: string;
  /** @default true */
  chat_template?: boolean;
  /** `false`: the model reads only. @default true */
  completes?: boolean;
  /** Answers health checks and takes requests, but no token ever comes. @default false */
  deaf?: boolean;
  /** Called with the number of tokens that a stream has out. */
  onToken?: (count: number) => void;
  /** Answers every completion with this instead. */
  refuse?: { status: number; body: unknown; headers?: Record<string, string> };
}

export interface FakeLlamaServer {
  readonly url: string;
  /** Bodies of the completions that were asked for, with the headers they came with. */
  readonly completions: { body: Record<string, unknown>; headers: IncomingMessage['headers'] }[];
  readonly busySlots: number;
  /** Ends loading and lets held streams go on. */
  release(): void;
  /** Settles when a client closed its connection in the middle of a stream. */
  clientLeft(): Promise<void>;
  /** Settles when `n` completions have had their first frame out, or `n` vectors and scores were begun. */
  streaming(n: number): Promise<void>;
  /** From now on it answers health checks and takes requests, but no token comes. */
  deafen(): void;
  /** Breaks every connection and refuses new ones. */
  kill(): Promise<void>;
}

const TEMPLATE = '{% for m in messages %}<{{m.role}}>{{m.content}}{% endfor %}<assistant>';

export async function startFakeLlamaServer(options: FakeLlamaOptions = {}): Promise<FakeLlamaServer> {
  const fake = new FakeLlama(options);
  await fake.listen(options.port ?? 0);
  return fake;
}

class FakeLlama implements FakeLlamaServer {
  readonly completions: FakeLlamaServer['completions'] = [];
  readonly #options: FakeLlamaOptions;
  readonly #server: Server;
  readonly #slots: number;
  readonly #ctx: number;
  readonly #waiting: (() => void)[] = [];
  #busy = 0;
  #streaming = 0;
  #vectorsAsked = 0;
  #left = Promise.withResolvers<void>();
  #changed = Promise.withResolvers<void>();
  readonly #gate = Promise.withResolvers<void>();
  #loaded: boolean;
  #deaf: boolean;
  url = '';

  constructor(options: FakeLlamaOptions) {
    this.#options = options;
    this.#slots = options.slots ?? 2;
    this.#ctx = options.ctx ?? 512;
    this.#loaded = (options.loading ?? 0) === 0;
    this.#deaf = options.deaf ?? false;
    if (typeof options.loading === 'number' && options.loading > 0)
      setTimeout(() => this.release(), options.loading);
    this.#server = createServer((req, res) => void this.#serve(req, res));
  }

  async listen(port: number): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(port, '127.0.0.1', resolve));
    this.url = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get busySlots(): number {
    return this.#busy;
  }

  release(): void {
    this.#loaded = true;
    this.#gate.resolve();
  }

  deafen(): void {
    this.#deaf = true;
  }

  clientLeft(): Promise<void> {
    return this.#left.promise;
  }

  async streaming(n: number): Promise<void> {
    while (this.#streaming < n) await this.#changed.promise;
  }

  async kill(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  async #serve(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const path = (req.url ?? '').split('?')[0] ?? '';
    if (!this.#loaded) return refuse(res, 503, 'unavailable_error', 'Loading model');
    if (path === '/health' || path === '/v1/health') return json(res, 200, { status: 'ok' });
    const key = this.#options.api_key;
    if (key !== undefined && req.headers.authorization !== `Bearer ${key}`) {
      return refuse(res, 401, 'authentication_error', 'Invalid API Key');
    }
    if (req.method === 'GET') return this.#inspect(path, res);
    const body = await readJson(req);
    switch (path) {
      case '/tokenize': {
        const begin = body['add_special'] === true ? [1] : [];
        return json(res, 200, { tokens: [...begin, ...tokensOf(String(body['content']))] });
      }
      case '/apply-template': {
        const messages = body['messages'] as { role: string; content: string }[];
        const prompt = messages.map((message) => ` <${message.role}> ${message.content}`).join('');
        return json(res, 200, { prompt: `${prompt} <assistant>` });
      }
      case '/completion':
        this.completions.push({ body, headers: req.headers });
        return this.#complete(body, res);
      case '/embedding':
      case '/rerank':
        return this.#vectors(path, body, res);
      default:
        return refuse(res, 404, 'not_found_error', 'File Not Found');
    }
  }

  async #vectors(path: string, body: Record<string, unknown>, res: ServerResponse): Promise<void> {
    const answer = answerVectors(path, body, this.#options);
    if (answer.status !== 200) return json(res, answer.status, answer.body);
    await this.#onSlot(res, async (client, leaves) => {
      const number = this.#vectorsAsked++;
      this.#streamingChanged(1);
      if (this.#options.hold_at === number) await Promise.race([this.#gate.promise, leaves]);
      if (client.gone) return;
      const { vector_fault: fault } = this.#options;
      if (fault?.at !== number) return json(res, 200, answer.body);
      if (fault.kind === 'reset') return void res.socket?.resetAndDestroy();
      if (fault.kind === 'garbage') return void res.end('[{"index":0,"embed');
      if (fault.kind === 'null') return json(res, 200, nulled(answer.body));
      refuse(res, 500, 'server_error', 'failed to decode');
    });
  }

  #inspect(path: string, res: ServerResponse): void {
    if (path === '/props') {
      return json(res, 200, {
        default_generation_settings: { n_ctx: this.#ctx },
        total_slots: this.#slots,
        model_alias: 'fake.gguf',
        build_info: 'b1-fake',
        chat_template: this.#options.chat_template === false ? '' : TEMPLATE,
      });
    }
    if (path === '/slots') {
      const slots = Array.from({ length: this.#slots }, (_, id) => ({
        id,
        n_ctx: this.#ctx,
        is_processing: id < this.#busy,
      }));
      return json(res, 200, slots);
    }
    if (path === '/metrics') return void res.end(`llamacpp:requests_processing ${this.#busy}\n`);
    refuse(res, 404, 'not_found_error', 'File Not Found');
  }

  async #complete(body: Record<string, unknown>, res: ServerResponse): Promise<void> {
    const { refuse: refusal } = this.#options;
    if (refusal !== undefined) return json(res, refusal.status, refusal.body, refusal.headers);
    if (this.#options.completes === false)
      return refuse(res, 500, 'server_error', 'the current context does not logits computation. skipping');
    const promptTokens = countWords(String(body['prompt'])) + 1;
    if (promptTokens >= this.#ctx) {
      const message = `request (${promptTokens} tokens) exceeds the available context size (${this.#ctx} tokens), try increasing it`;
      const error = {
        code: 400,
        message,
        type: 'exceed_context_size_error',
        n_prompt_tokens: promptTokens,
        n_ctx: this.#ctx,
      };
      return json(res, 400, { error });
    }
    await this.#onSlot(res, (client, leaves) => this.#stream(body, promptTokens, res, client, leaves));
  }

  /** Waits for a slot as long as the client does, and holds it while the work is on. */
  async #onSlot(
    res: ServerResponse,
    work: (client: { gone: boolean }, leaves: Promise<void>) => Promise<void>,
  ): Promise<void> {
    const client = { gone: false };
    const leaves = Promise.withResolvers<void>();
    res.on('close', () => {
      client.gone = !res.writableEnded;
      leaves.resolve();
      if (client.gone) this.#left.resolve();
    });
    while (this.#busy >= this.#slots && !client.gone) {
      await Promise.race([new Promise<void>((resolve) => this.#waiting.push(resolve)), leaves.promise]);
    }
    if (client.gone) return;
    this.#busy++;
    try {
      if (this.#deaf) await leaves.promise;
      else await work(client, leaves.promise);
    } finally {
      this.#busy--;
      this.#waiting.shift()?.();
    }
  }

  async #stream(
    body: Record<string, unknown>,
    promptTokens: number,
    res: ServerResponse,
    client: { gone: boolean },
    leaves: Promise<void>,
  ): Promise<void> {
    const { per_write = 1, delay_ms = 0, hold_at, eos_at, fault, pings, half_characters } = this.#options;
    res.socket?.setNoDelay(true);
    res.writeHead(200, { 'content-type': 'text/event-stream', connection: 'close' });
    const out = new FrameWriter(res, this.#options);
    const limit = Math.min(Number(body['n_predict'] ?? 1), this.#ctx - promptTokens);
    const stops = (body['stop'] ?? []) as string[];
    const seed = Number(body['seed'] ?? 0);
    if (body['return_progress'] === true) {
      for (const processed of [0, promptTokens]) {
        const prompt_progress = { total: promptTokens, cache: 0, processed, time_ms: 1 };
        out.frame({ ...tokenFrame('', 0, promptTokens), tokens: [0], prompt_progress });
      }
    }
    let held = '';
    for (let index = 0; ;) {
      for (let batch = 0; batch < per_write; batch++) {
        if (fault !== undefined && index === fault.at) return out.fault(fault.kind);
        if (eos_at === index) {
          out.frame(tokenFrame('', index + 1, promptTokens));
          return out.end('eos', '', index + 1, promptTokens);
        }
        held += tokenText(seed, promptTokens + index);
        index++;
        this.#options.onToken?.(index);
        const stop = stops.find((candidate) => held.includes(candidate));
        if (stop !== undefined)
          return out.end('word', held.slice(0, held.indexOf(stop)), index, promptTokens, stop);
        if (pings) out.ping();
        if (!(half_characters && index % 3 === 0 && index < limit)) {
          out.frame(tokenFrame(held, index, promptTokens));
          held = '';
        }
        if (index === limit) return out.end('limit', '', index, promptTokens);
        if (index === 1) this.#streamingChanged(1);
        if (hold_at === index) await Promise.race([this.#gate.promise, leaves]);
      }
      out.flush();
      await new Promise<void>((resolve) =>
        delay_ms > 0 ? setTimeout(resolve, delay_ms) : setImmediate(resolve),
      );
      if (client.gone) return;
    }
  }

  #streamingChanged(by: number): void {
    this.#streaming += by;
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}

/** What JSON makes of numbers that are none. */
function nulled(body: unknown): unknown {
  return JSON.parse(
    JSON.stringify(body, (_key, value: unknown) => (typeof value === 'number' ? null : value)),
  );
}

function countWords(text: string): number {
  return text.split(/\s+/u).filter((word) => word !== '').length;
}

async function readJson(req: IncomingMessage): Promise<Record<string, unknown>> {
  const chunks: Buffer[] = [];
  for await (const chunk of req) chunks.push(chunk as Buffer);
  return JSON.parse(Buffer.concat(chunks).toString()) as Record<string, unknown>;
}

function json(
  res: ServerResponse,
  status: number,
  body: unknown,
  headers: Record<string, string> = {},
): void {
  res.writeHead(status, { 'content-type': 'application/json; charset=utf-8', ...headers });
  res.end(JSON.stringify(body));
}

function refuse(res: ServerResponse, code: number, type: string, message: string): void {
  json(res, code, { error: { code, message, type } });
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      port: { type: 'string', default: '0' },
      slots: { type: 'string', default: '2' },
      ctx: { type: 'string', default: '512' },
      'loading-ms': { type: 'string', default: '0' },
      'per-write': { type: 'string', default: '1' },
      'delay-ms': { type: 'string', default: '0' },
    },
  });
  const server = await startFakeLlamaServer({
    port: Number(values.port),
    slots: Number(values.slots),
    ctx: Number(values.ctx),
    loading: Number(values['loading-ms']),
    per_write: Number(values['per-write']),
    delay_ms: Number(values['delay-ms']),
  });
  process.stdout.write(`${JSON.stringify({ url: server.url })}\n`);
}
