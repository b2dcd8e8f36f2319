import { pino, type Logger } from 'pino';
import { loadConfig, type ConfigInput } from '../../src/config.ts';
import type { TaskRequest } from '../../src/contract/generated/types.ts';
import { orchestrate, type EmbeddedOrchestrator, type OrchestratorPortOptions } from '../../src/embed.ts';
import { startServer } from '../../src/server.ts';

export interface SseEvent {
  id: number;
  event: string;
  data: Record<string, unknown>;
}

export interface TestServer {
  url: string;
  orchestrator: EmbeddedOrchestrator;
  fetch(path: string, init?: RequestInit): Promise<Response>;
  /** Posts a request; fields that are not given are those of {@link request}. */
  post(fields?: Partial<TaskRequest>): Promise<Response>;
  /** Posts and returns the id; anything but 202 is an error. */
  submit(fields?: Partial<TaskRequest>): Promise<string>;
  cancel(id: string): Promise<Response>;
  /** The raw bytes of a stream, to its end; none where nothing follows. */
  raw(id: string, resume?: { after?: number; lastEventId?: number }): Promise<string>;
  events(id: string, resume?: { after?: number; lastEventId?: number }): Promise<SseEvent[]>;
  close(): Promise<void>;
}

export const request: TaskRequest = {
  workload: 'completion',
  model_ref: 'synthetic',
  engine: 'synthetic',
  ctx: 4096,
  priority: 'interactive',
  max_tokens: 8,
  deadline_ms: 600_000,
  prompt: 'Once upon a time',
};

/** One synthetic pool, as fast as it can be. */
export const SYNTHETIC: ConfigInput = { pools: [{ id: 'fast', engine: 'synthetic', model: 'synthetic' }] };

/** The daemon's server in this process, on a real socket. Its streams are without words, unless a test wants them. */
export async function startTestServer(
  settings: ConfigInput = SYNTHETIC,
  ports: OrchestratorPortOptions = {},
  logger: Logger = pino({ level: 'silent' }),
): Promise<TestServer> {
  const config = loadConfig({
    overrides: {
      ...settings,
      server: { bind_addr: '127.0.0.1:0', ...settings.server },
      sse: { narration_enabled: false, ...settings.sse },
    },
  });
  const orchestrator = orchestrate(config, ports);
  const server = await startServer(orchestrator, logger, ports.clock);
  const ask = (path: string, init?: RequestInit): Promise<Response> => fetch(server.url + path, init);

  const raw: TestServer['raw'] = async (id, { after, lastEventId } = {}) => {
    const response = await ask(
      `/v1/tasks/${id}/stream${after === undefined ? '' : `?after=${after}`}`,
      lastEventId === undefined ? {} : { headers: { 'Last-Event-ID': String(lastEventId) } },
    );
    if (response.status !== 200 && response.status !== 204)
      throw new Error(`stream answered ${response.status}: ${await response.text()}`);
    return response.text();
  };
  const post: TestServer['post'] = (fields = {}) =>
    ask('/v1/tasks', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ ...request, ...fields }),
    });

  return {
    url: server.url,
    orchestrator,
    fetch: ask,
    post,
    async submit(fields) {
      const response = await post(fields);
      if (response.status !== 202)
        throw new Error(`admission answered ${response.status}: ${await response.text()}`);
      return ((await response.json()) as { task_id: string }).task_id;
    },
    cancel: (id) => ask(`/v1/tasks/${id}/cancel`, { method: 'POST' }),
    raw,
    events: async (id, resume) => parseSse(await raw(id, resume)),
    close: () => server.close(0),
  };
}

/** Strict on purpose: a frame of ours is exactly these three lines. What only people read is left out. */
export function parseSse(text: string): SseEvent[] {
  return text
    .split('\n\n')
    .filter(
      (frame) => frame !== '' && !frame.startsWith(':') && !/^event: narration\ndata: \{.*\}$/.test(frame),
    )
    .map((frame) => {
      const match = /^id: (\d+)\nevent: (\w+)\ndata: (\{.*\})$/.exec(frame);
      if (!match) throw new Error(`not a frame of ours: ${JSON.stringify(frame)}`);
      return { id: Number(match[1]), event: match[2] as string, data: JSON.parse(match[3] as string) };
    });
}
