import test, { type ExecutionContext } from 'ava';
import type { ConfigInput } from '../../src/config.ts';
import type { TaskRequest } from '../../src/contract/generated/types.ts';
import type { FakeEngine, FakeEngineOptions } from '../helpers/fake-engine.ts';
import { startFakeOpenAiServer } from '../helpers/fake-openai-server.ts';
import { startFakeTgiServer } from '../helpers/fake-tgi-server.ts';
import { startFakeTritonServer } from '../helpers/fake-triton-server.ts';
import { startFakeVllmServer } from '../helpers/fake-vllm-server.ts';
import { type SseEvent, type TestServer, request, startTestServer } from '../helpers/server.ts';
import { until } from '../helpers/until.ts';

const FAKES = {
  vllm: startFakeVllmServer,
  tgi: startFakeTgiServer,
  triton: startFakeTritonServer,
  openai: startFakeOpenAiServer,
} as const;
type Family = keyof typeof FAKES;

const KEY = 'sk-end-to-end';

/** The daemon's face with one pool, over a fake of that family. */
async function serve(
  t: ExecutionContext,
  engine: Family,
  options: FakeEngineOptions = {},
  settings: Partial<ConfigInput> = {},
): Promise<{ fake: FakeEngine; server: TestServer; submit(fields?: Partial<TaskRequest>): Promise<string> }> {
  const fake = await FAKES[engine]({ ...options, api_key: KEY });
  const external = { url: fake.url, api_key: KEY };
  const server = await startTestServer({
    ...settings,
    pools: [{ id: 'remote', engine, model: 'story', ctx: 512, slots: 2, provisioning: { external } }],
  });
  t.teardown(async () => {
    await server.close();
    await fake.kill();
  });
  const submit = (fields: Partial<TaskRequest> = {}) =>
    server.submit({ engine, model_ref: 'story', ctx: 512, max_tokens: 20, ...fields });
  return { fake, server, submit };
}

function textOf(events: readonly SseEvent[]): string {
  return events
    .filter(({ event }) => event === 'token')
    .map(({ data }) => String(data['t']))
    .join('');
}

for (const family of Object.keys(FAKES) as Family[]) {
  test(`a story of ${family} is streamed to its end`, async (t) => {
    const { server, submit } = await serve(t, family);
    const events = await server.events(await submit({ seed: 7 }));
    t.is(events.at(-1)?.event, 'end');
    t.like(events.at(-1)?.data, { tokens_out: 20, tokens_in: 5 } as object);
    t.is(textOf(events).trim().split(' ').length, 20);
    const health = (await (await server.fetch('/v1/pools/remote/health')).json()) as object;
    t.like(health, { ready: true });
    t.false(JSON.stringify([health, events]).includes(KEY));
  });

  test(`a cancel reaches ${family}, and its slot is free again`, async (t) => {
    const { fake, server, submit } = await serve(t, family, { hold_at: 3 });
    const id = await submit({ max_tokens: 400 });
    await fake.streaming(1);
    t.is((await server.cancel(id)).status, 204);
    const events = await server.events(id);
    t.like(events.at(-1), { event: 'end', data: { canceled: true } });
    await fake.clientLeft();
    await until(() => fake.busy === 0);
  });

  test(`a stream that ${family} cuts goes on where it was`, async (t) => {
    const { fake, server, submit } = await serve(t, family, {
      fault: { kind: 'cut_character', at: 6, streams: 1 },
    });
    const whole = await serve(t, family);
    const expected = textOf(
      await whole.server.events(await whole.submit({ seed: 7, determinism: 'best_effort' })),
    );
    const events = await server.events(await submit({ seed: 7, determinism: 'best_effort' }));
    t.is(events.at(-1)?.event, 'end');
    t.is(textOf(events), expected);
    t.true(events.some(({ event, data }) => event === 'metrics' && data['resumed'] === true));
    const indices = events.filter(({ event }) => event === 'token').map(({ data }) => data['i']);
    t.deepEqual(indices, [...indices.keys()]);
    t.is(fake.left, 1);
  });

  test(`a stream that ${family} cuts for good is a WORKER_RESET`, async (t) => {
    const { server, submit } = await serve(
      t,
      family,
      { fault: { kind: 'reset', at: 4 } },
      { retry: { continuations: 0 } },
    );
    const events = await server.events(await submit());
    t.like(events.at(-1), { event: 'error', data: { code: 'WORKER_RESET', retriable: true } });
    t.is(textOf(events).trim().split(' ').length, 4);
  });
}

for (const family of ['vllm', 'tgi', 'openai'] as const) {
  test(`a conversation with ${family} that is cut ${family === 'vllm' ? 'goes on' : 'is a WORKER_RESET'}`, async (t) => {
    const { server } = await serve(t, family, { fault: { kind: 'reset', at: 5, streams: 1 } });
    const messages = [{ role: 'user', content: 'Tell me a story.' }] as const;
    const { prompt: _prompt, ...rest } = request;
    const response = await server.fetch('/v1/tasks', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        ...rest,
        engine: family,
        model_ref: 'story',
        ctx: 512,
        max_tokens: 20,
        messages,
      }),
    });
    const { task_id } = (await response.json()) as { task_id: string };
    const events = await server.events(task_id);
    if (family === 'vllm') t.is(textOf(events).trim().split(' ').length, 20);
    else t.like(events.at(-1), { event: 'error', data: { code: 'WORKER_RESET' } });
  });
}
