import { DEFAULT_DEADLINE_MS, DEFAULT_MAX_TOKENS } from '../contract/defaults.ts';
import type { AdmissionResponse, Capabilities, TaskInfo, TaskRequest } from '../contract/generated/types.ts';
import { failure, TaskchartError, type Failure } from '../errors.ts';
import type { NewLogEvent } from '../streams/task-log.ts';
import type { TaskTarget } from './task-target.ts';

/** A daemon behind a URL. @throws TaskchartError its refusals, or POOL_UNAVAILABLE where nobody answers */
export function remoteTarget(url: string): TaskTarget {
  if (!URL.canParse(url)) throw new Error(`--url: must be a URL such as http://127.0.0.1:8080, got "${url}"`);
  const base = url.replace(/\/+$/, '');

  async function ask(path: string, init: RequestInit = {}): Promise<Response> {
    let response: Response;
    try {
      response = await fetch(base + path, init);
    } catch (error) {
      const cause = (error as Error).cause as NodeJS.ErrnoException | undefined;
      throw new TaskchartError(
        failure('POOL_UNAVAILABLE', `nobody answers at ${base} (${cause?.code ?? (error as Error).message})`),
      );
    }
    if (response.ok) return response;
    const body = (await response.json().catch(() => undefined)) as Failure | undefined;
    throw new TaskchartError(
      body?.code ? body : failure('INTERNAL', `${base}${path} answered ${response.status}`),
    );
  }
  const read = async <T>(path: string): Promise<T> => (await ask(path)).json() as Promise<T>;

  return {
    async submit({ prompt, model, max_tokens = DEFAULT_MAX_TOKENS }) {
      const { engines } = await read<Capabilities>('/v1/capabilities');
      const engine = engines.find(({ model_id }) => model === undefined || model_id === model);
      const request: TaskRequest = {
        workload: 'completion',
        engine: engine?.engine ?? 'llamacpp',
        model_ref: model ?? engine?.model_id ?? '',
        ctx: engine?.ctx_max || Buffer.byteLength(prompt) + max_tokens + 64,
        priority: 'interactive',
        max_tokens,
        deadline_ms: DEFAULT_DEADLINE_MS,
        prompt,
      };
      const response = await ask('/v1/tasks', {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify(request),
      });
      const { task_id } = (await response.json()) as AdmissionResponse;
      const path = `/v1/tasks/${task_id}`;
      return {
        events: readStream(() => ask(`${path}/stream`)),
        info: () => read<TaskInfo>(path),
        cancel: async () => void (await ask(`${path}/cancel`, { method: 'POST' })),
      };
    },
    async close() {},
  };
}

async function* readStream(open: () => Promise<Response>): AsyncGenerator<NewLogEvent> {
  const { body } = await open();
  let rest = '';
  for await (const chunk of (body ?? new ReadableStream<Uint8Array>()).pipeThrough(new TextDecoderStream())) {
    const frames = (rest + chunk).split('\n\n');
    rest = frames.pop() ?? '';
    for (const frame of frames) {
      const event = parseFrame(frame);
      if (event) yield event;
    }
  }
}

/** Our own server's frames: one `event:` and one `data:` line each; comments have neither. */
function parseFrame(frame: string): NewLogEvent | undefined {
  const type = /^event: (.*)$/m.exec(frame)?.[1];
  const data = /^data: (.*)$/m.exec(frame)?.[1];
  return type === undefined || data === undefined
    ? undefined
    : ({ type, data: JSON.parse(data) } as NewLogEvent);
}
