/**
 * What the fake engine servers have in common: a port, faults on demand, and a record of what was asked. What they say
 * is each one's own wire.
 */
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { parseArgs } from 'node:util';
import { Writer } from './fake-engine-writer.ts';
import { tokenText } from './fake-llama-frames.ts';

export type StreamFault =
  /** The engine's own error event, inside a 200. */
  | 'error_frame'
  /** The body ends cleanly, without the frame that says how. */
  | 'truncate'
  /** The same in the middle of a frame. */
  | 'cut_frame'
  /** The connection is reset, between frames. */
  | 'reset'
  /** The connection is reset inside a character of several bytes. */
  | 'cut_character'
  /** A frame that is no JSON. */
  | 'garbage'
  /** A frame that is JSON and no object. */
  | 'odd_frame';

export interface FakeEngineOptions {
  /** @default 0, any free port */
  port?: number;
  /** Runs at a time; others wait, their stream open or not as the engine does it. @default 64 */
  slots?: number;
  /** Tokens of a run. @default 512 */
  ctx?: number;
  /** Not ready until `release()`. @default false */
  loading?: boolean;
  /** Milliseconds between tokens; 0 is the next turn of the event loop. @default 0 */
  delay_ms?: number;
  /** Tokens after which every stream stands still until `release()`; 0 is before the first. */
  hold_at?: number;
  /** The token index at which the model says that it is done. */
  eos_at?: number;
  /** What goes wrong once that many tokens are out, counted in each stream. */
  fault?: { kind: StreamFault; at: number; /** Only in the first so many streams. */ streams?: number };
  /** Bytes per HTTP chunk, to split frames and characters anywhere. */
  chop?: number;
  /** Tokens of one frame. @default 1 */
  per_frame?: number;
  crlf?: boolean;
  pings?: boolean;
  /** @default none needed */
  api_key?: string;
  /** Answers every run with this instead. */
  refuse?: { status: number; body: unknown; headers?: Record<string, string> };
  /** Answers every run with this type, and a page. */
  content_type?: string;
  /** Answers everything with a redirect to that address. */
  redirect_to?: string;
  /** What goes wrong with that vector or score request, counted from 0. */
  vector_fault?: { kind: 'error' | 'reset' | 'garbage' | 'null' | 'short'; at: number };
}

export interface Asked {
  method: string;
  path: string;
  headers: IncomingMessage['headers'];
  body: Record<string, unknown>;
}

export interface FakeEngine {
  readonly url: string;
  readonly asked: readonly Asked[];
  /** Requests to that path. */
  askedFor(path: string): Asked[];
  /** Runs that are on. */
  readonly busy: number;
  /** Connections that clients closed in the middle of a run. */
  readonly left: number;
  /** Ends loading and lets held streams go on. */
  release(): void;
  /** Settles when a client closed its connection in the middle of a run. */
  clientLeft(): Promise<void>;
  /** Settles when `n` runs have had their first token out (or stand before it), or `n` batches were begun. */
  streaming(n: number): Promise<void>;
  /** Breaks every connection and refuses new ones. */
  kill(): Promise<void>;
}

export type EndReason = 'eos' | 'limit' | 'stop';

/** How a token ended the run. */
export interface TokenEnd {
  reason: EndReason;
  /** The stop string. */
  stop?: string;
}

export type Reply =
  | { kind: 'answer'; status: number; body?: unknown; headers?: Record<string, string> }
  /** One result for each input; may be made to fail. */
  | { kind: 'vectors'; body: unknown }
  | {
      kind: 'stream';
      tokens_in: number;
      max_tokens: number;
      seed: number;
      stops: readonly string[];
      /** Frames of a token; `n` is its number from 1. */
      token(text: string, n: number, end: TokenEnd | undefined, fresh: number): object[];
      /** Frames before the first token. */
      first?: object[];
      error: object;
      /** Whether `[DONE]` follows, also after an error. */
      done: boolean;
      /** Whether the engine sends the stop string as well. */
      leaks_stops?: boolean;
      /** Whether headers come with the first token only. */
      late_headers?: boolean;
    };

export interface Wire {
  loading_status: number;
  needsKey(path: string): boolean;
  unauthorized: { status: number; body?: unknown };
  reply(asked: Asked): Reply;
}

export async function startFakeEngine(wire: Wire, options: FakeEngineOptions): Promise<FakeEngine> {
  const fake = new FakeServer(wire, options);
  await fake.listen(options.port ?? 0);
  return fake;
}

class FakeServer implements FakeEngine {
  readonly asked: Asked[] = [];
  readonly #wire: Wire;
  readonly #options: FakeEngineOptions;
  readonly #server: Server;
  readonly #waiting: (() => void)[] = [];
  readonly #gate = Promise.withResolvers<void>();
  readonly #left = Promise.withResolvers<void>();
  #changed = Promise.withResolvers<void>();
  #streaming = 0;
  #streams = 0;
  #batches = 0;
  #loading: boolean;
  busy = 0;
  left = 0;
  url = '';

  constructor(wire: Wire, options: FakeEngineOptions) {
    this.#wire = wire;
    this.#options = options;
    this.#loading = options.loading ?? false;
    this.#server = createServer((req, res) => void this.#serve(req, res));
  }

  async listen(port: number): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(port, '127.0.0.1', resolve));
    this.url = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  askedFor(path: string): Asked[] {
    return this.asked.filter((each) => each.path === path);
  }

  release(): void {
    this.#loading = false;
    this.#gate.resolve();
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
    const asked = { method: req.method ?? '', path, headers: req.headers, body: await readJson(req) };
    this.asked.push(asked);
    const { redirect_to, api_key } = this.#options;
    if (redirect_to !== undefined) return answer(res, 307, undefined, { location: redirect_to + path });
    if (this.#loading) return answer(res, this.#wire.loading_status);
    if (
      api_key !== undefined &&
      this.#wire.needsKey(path) &&
      req.headers.authorization !== `Bearer ${api_key}`
    ) {
      const { status, body } = this.#wire.unauthorized;
      return answer(res, status, body);
    }
    const reply = this.#wire.reply(asked);
    switch (reply.kind) {
      case 'answer':
        return answer(res, reply.status, reply.body, reply.headers);
      case 'vectors':
        return this.#vectors(reply.body, res);
      case 'stream':
        return this.#run(reply, res);
    }
  }

  async #vectors(body: unknown, res: ServerResponse): Promise<void> {
    await this.#onSlot(res, async (leaves) => {
      const number = this.#batches++;
      this.#step();
      if (this.#options.hold_at === number) await Promise.race([this.#gate.promise, leaves]);
      const fault = this.#options.vector_fault;
      if (fault?.at !== number) return answer(res, 200, body);
      switch (fault.kind) {
        case 'reset':
          return void res.socket?.resetAndDestroy();
        case 'garbage':
          return void res.end('{"data":[{"ind');
        case 'null':
          return answer(res, 200, JSON.parse(JSON.stringify(body, nulled)));
        case 'short':
          return answer(res, 200, { ...(body as object), data: [], results: [] });
        case 'error':
          return answer(res, 500, {
            error: { message: 'failed to decode', type: 'InternalServerError', code: 500 },
          });
      }
    });
  }

  async #run(reply: Extract<Reply, { kind: 'stream' }>, res: ServerResponse): Promise<void> {
    const { refuse, content_type } = this.#options;
    if (refuse !== undefined) return answer(res, refuse.status, refuse.body, refuse.headers);
    if (content_type !== undefined) {
      res.writeHead(200, { 'content-type': content_type });
      return void res.end('<html>Please sign in.</html>');
    }
    res.socket?.setNoDelay(true);
    if (reply.late_headers !== true) this.#open(res);
    await this.#onSlot(res, (leaves) => this.#stream(reply, res, leaves));
  }

  #open(res: ServerResponse): void {
    res.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' });
    res.flushHeaders();
  }

  async #stream(
    reply: Extract<Reply, { kind: 'stream' }>,
    res: ServerResponse,
    leaves: Promise<void>,
  ): Promise<void> {
    const { ctx = 512, hold_at, eos_at, delay_ms = 0, per_frame = 1, pings } = this.#options;
    const number = this.#streams++;
    const fault = number < (this.#options.fault?.streams ?? Infinity) ? this.#options.fault : undefined;
    const out = new Writer(res, this.#options);
    const limit = Math.min(reply.max_tokens, ctx - reply.tokens_in);
    const hold = async (n: number): Promise<void> => {
      if (n !== hold_at) return;
      if (n === 0) this.#step();
      await Promise.race([this.#gate.promise, leaves]);
    };
    await hold(0);
    if (res.destroyed) return;
    if (reply.late_headers === true) this.#open(res);
    for (const frame of reply.first ?? []) out.frame(frame);
    const finish = () => {
      if (reply.done) out.raw('[DONE]');
      out.flush();
      res.end();
    };
    let held = '';
    let fresh = 0;
    for (let n = 1; ; n++) {
      if (fault !== undefined && n - 1 === fault.at) return out.fault(fault.kind, reply);
      const text = eos_at === n - 1 ? '' : tokenText(reply.seed, reply.tokens_in + n - 1);
      const stop = reply.stops.find((each) => text.includes(each));
      const reason: EndReason | undefined =
        eos_at === n - 1 ? 'eos' : stop !== undefined ? 'stop' : n === limit ? 'limit' : undefined;
      const shown = stop === undefined || reply.leaks_stops ? text : text.slice(0, text.indexOf(stop));
      held += shown;
      fresh++;
      if (reason !== undefined || fresh >= per_frame) {
        if (pings) out.comment();
        const end = reason === undefined ? undefined : { reason, ...(stop === undefined ? {} : { stop }) };
        for (const frame of reply.token(held, n, end, fresh)) out.frame(frame);
        held = '';
        fresh = 0;
      }
      if (reason !== undefined) return finish();
      out.flush();
      if (n === 1) this.#step();
      await hold(n);
      await new Promise<void>((resolve) =>
        delay_ms > 0 ? setTimeout(resolve, delay_ms) : setImmediate(resolve),
      );
      if (res.destroyed) return;
    }
  }

  /** Waits for a slot as long as the client does, and holds it while the work is on. */
  async #onSlot(res: ServerResponse, work: (leaves: Promise<void>) => Promise<void>): Promise<void> {
    const leaves = Promise.withResolvers<void>();
    res.on('close', () => {
      leaves.resolve();
      if (res.writableEnded) return;
      this.left++;
      this.#left.resolve();
    });
    while (this.busy >= (this.#options.slots ?? 64) && !res.destroyed)
      await Promise.race([new Promise<void>((resolve) => this.#waiting.push(resolve)), leaves.promise]);
    if (res.destroyed) return;
    this.busy++;
    try {
      await work(leaves.promise);
    } finally {
      this.busy--;
      this.#waiting.shift()?.();
    }
  }

  #step(): void {
    this.#streaming++;
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}

export function ok(body: unknown): Reply {
  return { kind: 'answer', status: 200, body };
}

/** Runs a fake as a program: `--port`, `--slots`, `--ctx`, `--delay-ms`, `--api-key`, `--fault kind@tokens`. */
export async function runFake(start: (options: FakeEngineOptions) => Promise<FakeEngine>): Promise<void> {
  const { values } = parseArgs({
    options: {
      port: { type: 'string', default: '0' },
      slots: { type: 'string', default: '64' },
      ctx: { type: 'string', default: '512' },
      'delay-ms': { type: 'string', default: '0' },
      'api-key': { type: 'string' },
      fault: { type: 'string' },
    },
  });
  const [kind, at] = values.fault?.split('@') ?? [];
  const { url } = await start({
    port: Number(values.port),
    slots: Number(values.slots),
    ctx: Number(values.ctx),
    delay_ms: Number(values['delay-ms']),
    ...(values['api-key'] === undefined ? {} : { api_key: values['api-key'] }),
    ...(kind === undefined ? {} : { fault: { kind: kind as StreamFault, at: Number(at ?? 0) } }),
  });
  process.stdout.write(`${JSON.stringify({ url })}\n`);
}

function nulled(_key: string, value: unknown): unknown {
  return typeof value === 'number' ? null : value;
}

async function readJson(req: IncomingMessage): Promise<Record<string, unknown>> {
  const chunks: Buffer[] = [];
  for await (const chunk of req) chunks.push(chunk as Buffer);
  const text = Buffer.concat(chunks).toString();
  return text === '' ? {} : (JSON.parse(text) as Record<string, unknown>);
}

function answer(
  res: ServerResponse,
  status: number,
  body?: unknown,
  headers: Record<string, string> = {},
): void {
  if (body === undefined) return void res.writeHead(status, headers).end();
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  const type = typeof body === 'string' ? 'text/plain' : 'application/json';
  res.writeHead(status, { 'content-type': type, ...headers }).end(text);
}
