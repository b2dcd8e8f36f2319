import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { openStorage } from '../../src/storage.ts';
import { startTestServer } from '../helpers/server.ts';
import { SimulatedClock } from '../helpers/simulated-clock.ts';
import { steppedServer, type SteppedServer, type SteppedSettings } from './stepped-server.ts';
import { call, idOf, type Answer } from './wire.ts';

const PLAN = { kind: 'plan', content: { steps: ['a', { b: 1 }] }, tags: ['mine'], metadata: { by: 'me' } };

interface Ref {
  id: string;
  kind: string;
  digest: string;
  created_ms: number;
  tags?: string[];
}
interface Transcript {
  kind: string;
  tags: string[];
  content: { events: { type: string; data: Record<string, unknown>; ts_ms: number }[] };
  metadata: Record<string, unknown>;
}

async function memoryServer(t: ExecutionContext, settings?: SteppedSettings): Promise<SteppedServer> {
  const server = await steppedServer(settings);
  t.teardown(server.close);
  return server;
}

/** Stops at once and starts again on the same files. */
async function durableServer(
  t: ExecutionContext,
): Promise<{ start: (settings?: SteppedSettings) => Promise<SteppedServer> }> {
  const folder = mkdtempSync(join(tmpdir(), 'taskchart-artifacts-'));
  let current: SteppedServer | undefined;
  t.teardown(async () => {
    await current?.close();
    rmSync(folder, { recursive: true, force: true });
  });
  return {
    async start(settings) {
      await current?.close();
      const clock = new SimulatedClock(current ? current.clock.wall() + 1000 : undefined);
      return (current = await steppedServer(settings, { ...(await openStorage(folder)), clock }));
    },
  };
}

const list = async (server: SteppedServer, query = ''): Promise<Ref[]> => {
  const { status, body } = await call(server, 'GET', `/v1/artifacts${query}`);
  if (status !== 200) throw new Error(JSON.stringify(body));
  return body['artifacts'] as Ref[];
};
const post = (server: SteppedServer, body: unknown): Promise<Answer> =>
  call(server, 'POST', '/v1/artifacts', body);
const get = (server: SteppedServer, id: string): Promise<Answer> =>
  call(server, 'GET', `/v1/artifacts/${id}`);

async function transcriptOf(server: SteppedServer, task_id: string): Promise<Transcript & { id: string }> {
  const [ref, ...more] = await list(server, `?tag=task:${task_id}`);
  if (!ref || more.length > 0) throw new Error(`${more.length + (ref ? 1 : 0)} artifacts for a task`);
  const { status, body } = await get(server, ref.id);
  if (status !== 200) throw new Error(JSON.stringify(body));
  return { ...(body as unknown as Transcript), id: ref.id };
}

function checkTimes(t: ExecutionContext, { content }: Transcript, from_ms: number, to_ms: number): void {
  let last = from_ms;
  for (const { ts_ms } of content.events) {
    t.true(Number.isInteger(ts_ms) && ts_ms >= last && ts_ms <= to_ms, String(ts_ms));
    last = ts_ms;
  }
}

test('an artifact is stored under its SHA-256, read, listed, and the same again is the same', async (t) => {
  const server = await memoryServer(t);
  const stored = await post(server, PLAN);
  t.is(stored.status, 201);
  const ref = stored.body as unknown as Ref;
  t.like(ref, { kind: 'plan', digest: ref.id, created_ms: Math.floor(server.clock.wall()), tags: ['mine'] });
  server.clock.advance(5000);
  const again = await post(server, {
    metadata: { by: 'me' },
    tags: ['mine'],
    content: PLAN.content,
    kind: 'plan',
  });
  t.is(again.status, 201);
  t.deepEqual(again.body, stored.body);
  const read = await get(server, ref.id);
  t.is(read.status, 200);
  t.deepEqual(read.body, PLAN);
  t.deepEqual((await get(server, encodeURIComponent(ref.id))).body, PLAN);
  t.deepEqual(await list(server), [ref]);
  t.deepEqual(await list(server, '?tag=mine&kind=plan'), [ref]);
  t.deepEqual(await list(server, '?kind=diff'), []);
});

test('an id that is not known, or none at all, is a 404', async (t) => {
  const server = await memoryServer(t);
  const { body } = await post(server, PLAN);
  for (const id of [
    `sha256:${'0'.repeat(64)}`,
    (body['id'] as string).slice('sha256:'.length),
    'x',
    'sha256:..%2F..%2Ftasks.db',
    '..%2F..%2Fetc%2Fpasswd',
    '%2e%2e',
  ]) {
    const answer = await get(server, id);
    t.is(answer.status, 404, id);
    t.is(answer.body['code'], 'NOT_FOUND');
  }
});

test('a mistake is a 400 that names the field, and too much is a 413', async (t) => {
  const server = await memoryServer(t, { server: { body_limit_bytes: 2000 }, artifacts: { max_bytes: 500 } });
  for (const [body, message] of [
    [{ content: {} }, /^kind: /],
    [{ kind: 'doc', content: {} }, /^kind: /],
    [{ kind: 'plan', content: 'x' }, /^content: /],
    [{ kind: 'plan', content: {}, tags: [1] }, /^tags\[0\]: /],
    [{ kind: 'plan', content: {}, parent: '../x' }, /^parent: /],
    [`{"kind":"plan","content":{"a":${'['.repeat(500)}${']'.repeat(500)}}}`, /^content: .*64 levels/],
    ['', /^body: /],
    ['{', /^body: /],
  ] as const) {
    const answer = await post(server, body);
    t.is(answer.status, 400, JSON.stringify(body));
    t.is(answer.body['code'], 'INVALID_PARAMS');
    t.regex(answer.body['message'] as string, message);
  }
  for (const [bytes, key] of [
    [3000, /server\.body_limit_bytes/],
    [1000, /artifacts\.max_bytes/],
  ] as const) {
    const answer = await post(server, { kind: 'plan', content: { text: 'x'.repeat(bytes) } });
    t.is(answer.status, 413);
    t.regex(answer.body['message'] as string, key);
  }
  for (const query of ['?kind=doc', '?limit=0', '?limit=x', '?cursor=x', '?cursor=made-x']) {
    const answer = await call(server, 'GET', `/v1/artifacts${query}`);
    t.is(answer.status, 400, query);
    t.regex(answer.body['message'] as string, /^(kind|limit|cursor): must be /);
  }
  t.deepEqual(await list(server), []);
});

test('the transcript of a finished task holds started, tokens, metrics and end with their times, and no prompt', async (t) => {
  const server = await memoryServer(t);
  const from_ms = server.clock.wall();
  const prompt = 'a secret the transcript must not have';
  const session_id = idOf(1);
  const id = await server.submit({ prompt, max_tokens: 200, session_id, seed: 7, ctx: 2048 });
  t.deepEqual(await list(server), [], 'there is none before the end');
  await server.step(() => server.state(id) === 'ended');
  const transcript = await transcriptOf(server, id);
  t.is(transcript.kind, 'trace');
  t.deepEqual(transcript.tags, ['sse', 'stream', `task:${id}`, `session:${session_id}`]);
  const stream = await server.events(id);
  t.deepEqual(
    transcript.content.events.map(({ type, data }) => ({ type, data })),
    stream.map(({ event, data }) => ({ type: event, data })),
  );
  const types = transcript.content.events.map(({ type }) => type);
  t.deepEqual([types[0], types.at(-1)], ['started', 'end']);
  t.deepEqual([...new Set(types)].toSorted(), ['end', 'metrics', 'started', 'token']);
  checkTimes(t, transcript, from_ms, server.clock.wall());
  t.is(transcript.content.events[0]?.ts_ms, from_ms);
  // A token each simulated 10 ms.
  const tokens = transcript.content.events.filter(({ type }) => type === 'token').map(({ ts_ms }) => ts_ms);
  t.is((tokens.at(-1) as number) - (tokens[0] as number), 1990);
  t.is(new Set(tokens).size, 200);
  t.deepEqual(transcript.metadata, {
    job_id: id,
    session_id,
    model_ref: 'synthetic',
    ctx: 2048,
    max_tokens: 200,
    seed: 7,
    engine: 'synthetic',
    engine_version: server.orchestrator.core.pools.get('slow')?.properties?.engine_version,
    sampler_profile_version: 'v1',
    pool_id: 'slow',
    replica_id: 'slow/r0',
    tokens_out: 200,
    decode_time_ms: stream.at(-1)?.data['decode_time_ms'],
  });
  t.false(JSON.stringify(transcript).includes(prompt));
  const { body } = await call(server, 'GET', `/v1/tasks/${id}`);
  t.is(body['transcript_id'], transcript.id);
  t.deepEqual(
    (await list(server, `?tag=session:${session_id}`)).map((ref) => ref.id),
    [transcript.id],
  );
  const [ref] = await list(server);
  t.deepEqual(ref, {
    id: transcript.id,
    kind: 'trace',
    digest: transcript.id,
    created_ms: transcript.content.events.at(-1)?.ts_ms,
    tags: transcript.tags,
  } as Ref);
  // Whoever stores what was read gets the same id.
  const { id: _id, ...artifact } = transcript;
  t.is((await post(server, artifact)).body['id'], transcript.id);
});

test('a canceled task has a transcript, whether it waited or ran', async (t) => {
  const server = await memoryServer(t);
  const running = await server.submit({ max_tokens: 100, prompt: 'private words' });
  const waiting = await server.submit({ prompt: 'private words' });
  await server.step(() => server.tokens(running) === 3);
  t.is((await call(server, 'GET', `/v1/tasks/${running}`)).body['transcript_id'], undefined);
  await server.cancel(waiting);
  server.clock.advance(50);
  await server.cancel(running);
  const ran = await transcriptOf(server, running);
  t.deepEqual(
    ran.content.events.filter(({ type }) => type !== 'metrics').map(({ type }) => type),
    ['started', ...Array.from({ length: server.tokens(running) }, () => 'token'), 'end'],
  );
  t.like(ran.content.events.at(-1), { type: 'end', data: { canceled: true } });
  t.is(ran.metadata['tokens_out'], server.tokens(running));
  const waited = await transcriptOf(server, waiting);
  t.deepEqual(
    waited.content.events.map(({ type }) => type),
    ['started', 'end'],
  );
  t.is(waited.metadata['replica_id'], undefined);
  for (const transcript of [ran, waited]) {
    checkTimes(t, transcript, 0, server.clock.wall());
    t.false(JSON.stringify(transcript).includes('private words'));
  }
});

test('a failed task has a transcript with its error', async (t) => {
  const server = await memoryServer(t, { pool: { timeouts: { wall_ms: 500 } } });
  const id = await server.submit({ max_tokens: 100, prompt: 'private words' });
  await server.step(() => server.state(id) === 'error');
  const transcript = await transcriptOf(server, id);
  const types = transcript.content.events.map(({ type }) => type);
  t.is(types[0], 'started');
  t.true(types.includes('token'));
  t.is(types.at(-1), 'error');
  t.deepEqual(transcript.metadata['error'], transcript.content.events.at(-1)?.data);
  t.is((transcript.metadata['error'] as { code: string }).code, 'DECODE_TIMEOUT');
  const written = types.filter((type) => type === 'token').length;
  t.is(transcript.metadata['tokens_out'], written);
  t.true((transcript.metadata['decode_time_ms'] as number) >= (written - 1) * 10);
  checkTimes(t, transcript, 0, server.clock.wall());
  t.false(JSON.stringify(transcript).includes('private words'));
});

test('a transcript is gone with its task', async (t) => {
  const server = await memoryServer(t, { retention: { max_tasks: 1 } });
  const first = await server.submit({ max_tokens: 1 });
  await server.step(() => server.state(first) === 'ended');
  const { id } = await transcriptOf(server, first);
  const second = await server.submit({ max_tokens: 1 });
  await server.step(() => server.state(second) === 'ended');
  t.is((await get(server, id)).status, 404);
  t.deepEqual(await list(server, `?tag=task:${first}`), []);
  const { id: other } = await transcriptOf(server, second);
  t.is((await call(server, 'DELETE', `/v1/tasks/${second}`)).status, 204);
  t.is((await get(server, other)).status, 404);
  t.deepEqual(await list(server), []);
});

test('without transcripts there are none', async (t) => {
  const server = await memoryServer(t, { artifacts: { transcripts: false } });
  const id = await server.submit({ max_tokens: 1 });
  await server.step(() => server.state(id) === 'ended');
  t.deepEqual(await list(server), []);
  t.deepEqual(await list(server, `?tag=task:${id}`), []);
  t.is((await call(server, 'GET', `/v1/tasks/${id}`)).body['transcript_id'], undefined);
});

test('pages go through what was stored and then through transcripts, each once', async (t) => {
  const server = await memoryServer(t);
  const tasks: string[] = [];
  for (let n = 0; n < 4; n++) tasks.push(await server.submit({ max_tokens: 1, session_id: idOf(n % 2) }));
  await server.step(() => tasks.every((id) => server.state(id) === 'ended'));
  const stored: string[] = [];
  for (let n = 0; n < 5; n++) {
    server.clock.advance(1);
    stored.unshift(
      (await post(server, { kind: n === 0 ? 'trace' : 'summary', content: { n } })).body['id'] as string,
    );
  }
  const made: string[] = [];
  for (const id of tasks) made.unshift((await transcriptOf(server, id)).id);
  const pages = async (query: string, limit: number): Promise<string[]> => {
    const ids: string[] = [];
    for (let cursor = ''; ;) {
      const { body } = await call(server, 'GET', `/v1/artifacts?limit=${limit}${query}${cursor}`);
      const artifacts = body['artifacts'] as Ref[];
      ids.push(...artifacts.map(({ id }) => id));
      if (body['next_cursor'] === undefined) return ids;
      t.is(artifacts.length, limit);
      cursor = `&cursor=${body['next_cursor'] as string}`;
    }
  };
  for (const limit of [1, 2, 3, 5, 9, 100]) {
    t.deepEqual(await pages('', limit), [...stored, ...made]);
    t.deepEqual(await pages('&kind=trace', limit), [stored[4], ...made]);
    t.deepEqual(await pages('&kind=summary', limit), stored.slice(0, 4));
    t.deepEqual(await pages('&tag=sse', limit), made);
    t.deepEqual(await pages(`&tag=session:${idOf(1)}`, limit), [made[0], made[2]]);
    t.deepEqual(await pages(`&tag=session:${idOf(9)}`, limit), []);
  }
});

test('after a restart artifacts and transcripts have the ids that they had', async (t) => {
  const { start } = await durableServer(t);
  const before = await start();
  const ids = [await before.submit({ max_tokens: 20 }), await before.submit({ max_tokens: 5 })];
  const canceled = await before.submit({ max_tokens: 5 });
  await before.cancel(canceled);
  await before.step(() => ids.every((id) => before.state(id) === 'ended'));
  const { body: plan } = await post(before, PLAN);
  const refs = await list(before);
  t.is(refs.length, 4);
  const transcripts = await Promise.all([...ids, canceled].map((id) => transcriptOf(before, id)));
  t.is(transcripts[0]?.metadata['replica_id'], 'slow/r0');
  t.truthy(transcripts[0]?.metadata['engine_version']);
  // Not ready: nothing of the pool as it is now may be in them.
  const after = await start({ pool: { preload: false } });
  t.is((await get(after, refs[1]?.id as string)).status, 404, 'its id is known once it was told');
  t.deepEqual(await list(after), refs);
  for (const [n, id] of [...ids, canceled].entries()) {
    t.deepEqual(await transcriptOf(after, id), transcripts[n]);
    t.is((await call(after, 'GET', `/v1/tasks/${id}`)).body['transcript_id'], transcripts[n]?.id);
  }
  t.deepEqual((await get(after, plan['id'] as string)).body, PLAN);
  t.deepEqual((await post(after, PLAN)).body, plan);
  t.is((await call(after, 'DELETE', `/v1/tasks/${ids[0]}`)).status, 204);
  t.is((await get(after, transcripts[0]?.id as string)).status, 404);
  const again = await start();
  t.deepEqual(
    (await list(again)).map(({ id }) => id),
    refs.map(({ id }) => id).filter((id) => id !== transcripts[0]?.id),
  );
});

test('a task that goes on in the next process has one transcript with the times of both', async (t) => {
  const { start } = await durableServer(t);
  const before = await start();
  const from_ms = before.clock.wall();
  const id = await before.submit({ max_tokens: 30 });
  await before.step(() => before.tokens(id) === 10);
  const after = await start();
  await after.step(() => after.state(id) === 'ended');
  const transcript = await transcriptOf(after, id);
  const types = transcript.content.events.map(({ type }) => type);
  t.is(types.filter((type) => type === 'token').length, 30);
  t.is(types.at(-1), 'end');
  checkTimes(t, transcript, from_ms, Infinity);
});

test('the same on the real clock: times are those of the wall', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  const from_ms = Date.now();
  const id = await server.submit({ max_tokens: 50 });
  await server.raw(id);
  const transcript = await transcriptOf(server as SteppedServer, id);
  checkTimes(t, transcript, from_ms, Date.now());
});
