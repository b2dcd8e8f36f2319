import test from 'ava';
import type { Commit, CommitResult } from '../../src/store/store.ts';
import { MemoryStore } from '../../src/store/memory-store.ts';
import { request, startTestServer } from '../helpers/server.ts';
import { steppedServer } from './stepped-server.ts';
import { call, idOf, type Answer } from './wire.ts';

type Server = Parameters<typeof call>[0];

function post(server: Server, fields: object = {}, key?: string): Promise<Answer> {
  return call(
    server,
    'POST',
    '/v1/tasks',
    { ...request, ...fields },
    key === undefined ? {} : { 'Idempotency-Key': key },
  );
}

async function known(server: Server): Promise<number> {
  return ((await call(server, 'GET', '/v1/tasks')).body['tasks'] as unknown[]).length;
}

test('two posts with one key are one task, and the second is told its current place', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  await server.submit();
  const ahead = await server.submit();
  const first = await post(server, {}, 'retry');
  t.like(first.body, { queue_position: 1 });
  await server.cancel(ahead);
  const second = await post(server, {}, 'retry');
  t.is(second.status, 202);
  t.is(second.body['task_id'], first.body['task_id']);
  t.is(second.body['session_id'], first.body['session_id']);
  t.is(second.body['queue_position'], 0);
  t.is(await known(server), 3);
});

test('fifty posts at once with one key are one task, one turn and one place in the queue', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  const session_id = idOf(7);
  const answers = await Promise.all(Array.from({ length: 50 }, () => post(server, { session_id }, 'storm')));
  t.deepEqual(new Set(answers.map(({ status }) => status)), new Set([202]));
  t.is(new Set(answers.map(({ body }) => body['task_id'])).size, 1);
  t.is(await known(server), 1);
  t.is((await call(server, 'GET', `/v1/sessions/${session_id}`)).body['turns'], 1);
});

test('a key that comes with another body is 409, also where both come at once', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  const answers = await Promise.all([post(server, {}, 'k'), post(server, { prompt: 'another' }, 'k')]);
  t.deepEqual(answers.map(({ status }) => status).toSorted(), [202, 409]);
  const refused = answers.find(({ status }) => status === 409) as Answer;
  t.like(refused.body, { code: 'INVALID_PARAMS', retriable: false, engine: 'synthetic' });
  t.regex(refused.body['message'] as string, /^Idempotency-Key: .* was accepted with another body/);
  t.notRegex(refused.body['message'] as string, /upon|another time/);
  t.is(await known(server), 1);
});

test('the order of the fields does not make another body', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  const sampling = { temperature: 0, top_p: 1 };
  const first = await post(server, { sampling }, 'k');
  const turned = Object.fromEntries(
    Object.entries({ ...request, sampling: { top_p: 1, temperature: 0 } }).toReversed(),
  );
  const second = await call(server, 'POST', '/v1/tasks', turned, { 'Idempotency-Key': 'k' });
  t.is(second.status, 202);
  t.is(second.body['task_id'], first.body['task_id']);
});

test('a key may have 128 characters, and with 129 it is 400 and nothing is queued', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  const { status, body } = await post(server, {}, 'x'.repeat(129));
  t.is(status, 400);
  t.like(body, { code: 'INVALID_PARAMS', engine: 'synthetic' });
  t.regex(body['message'] as string, /^Idempotency-Key: must have at most 128 characters, got 129/);
  t.is(await known(server), 0);
  t.is((await post(server, {}, 'x'.repeat(128))).status, 202);
});

test('a key whose window is over stands for nothing any more', async (t) => {
  const server = await steppedServer({ admission: { idempotency_ttl_ms: 5000 } });
  t.teardown(server.close);
  const first = await post(server, {}, 'k');
  server.clock.advance(4999);
  t.is((await post(server, {}, 'k')).body['task_id'], first.body['task_id']);
  server.clock.advance(1);
  const later = await post(server, { prompt: 'another' }, 'k');
  t.is(later.status, 202);
  t.not(later.body['task_id'], first.body['task_id']);
});

test('a refused post uses no key: the same one may come again', async (t) => {
  const server = await steppedServer({ pool: { queue: { capacity: 1 } } });
  t.teardown(server.close);
  await server.submit();
  const queued = await server.submit();
  t.is((await post(server, {}, 'k')).status, 429);
  await server.cancel(queued);
  t.is((await post(server, {}, 'k')).status, 202);
});

test('different keys, and no key, are different tasks', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  const answers = await Promise.all([
    post(server, {}, 'a'),
    post(server, {}, 'b'),
    post(server),
    post(server),
  ]);
  t.is(new Set(answers.map(({ body }) => body['task_id'])).size, 4);
});

test('a task may be posted again while it waits, while it runs and when it is over', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  await server.submit({ max_tokens: 3 });
  const task = { task_id: idOf(1), session_id: idOf(2), max_tokens: 20 };
  const again = async (state: string): Promise<void> => {
    t.is(server.state(task.task_id), state);
    const { status, body } = await post(server, task);
    t.is(status, 202);
    t.like(body, { task_id: task.task_id, session_id: task.session_id, queue_position: 0 });
    const other = await post(server, { ...task, seed: 1 });
    t.is(other.status, 409);
    t.like(other.body, { code: 'INVALID_PARAMS' });
    t.regex(other.body['message'] as string, /^task_id: .* was accepted with another body/);
  };
  t.is((await post(server, task)).status, 202);
  await again('admitted');
  await server.step(() => server.tokens(task.task_id) === 5);
  await again('streaming');
  await server.step(() => server.state(task.task_id) === 'ended');
  await again('ended');
  t.is((await call(server, 'GET', `/v1/sessions/${task.session_id}`)).body['turns'], 1);
  t.like((await server.events(task.task_id)).at(-1), { event: 'end', data: { tokens_out: 20 } });
});

test('an id and a key of two different tasks do not go together', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  await post(server, { task_id: idOf(1) }, 'k');
  t.is((await post(server, { task_id: idOf(2) }, 'k')).status, 409);
  t.is((await post(server, { task_id: idOf(1) }, 'other')).status, 202);
});

test('a task may be posted again under the ids that its answer named', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  const { task_id, session_id } = (await post(server)).body as Record<string, string>;
  for (const ids of [{ task_id }, { task_id, session_id }])
    t.is((await post(server, ids)).body['task_id'], task_id);
  t.is((await post(server, { task_id, session_id: idOf(9) })).status, 409);
  await server.step(() => server.state(task_id as string) === 'ended');
  t.is((await post(server, { task_id, session_id })).status, 202);
  t.is(await known(server), 1);
});

test('a key that a task was posted again with stands for it as well, also when it is over', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  const fields = { task_id: idOf(1) };
  for (const key of ['first', 'second']) t.is((await post(server, fields, key)).status, 202);
  t.is((await post(server, { task_id: idOf(2) }, 'second')).status, 409);
  t.is((await post(server, {}, 'second')).status, 409, 'another body, as under the first key');
  await post(server, { task_id: idOf(3) }, 'third');
  t.is((await post(server, fields, 'third')).status, 409, 'an id and a key of two tasks');
  await server.step(() => server.state(idOf(1)) === 'ended');
  for (const key of ['first', 'second', 'fourth']) t.is((await post(server, fields, key)).status, 202);
  t.is((await post(server, {}, 'fourth')).status, 409);
  t.is(await known(server), 2);
});

test('ids that are left out are UUIDs of version 7, in the order of admission', async (t) => {
  const server = await steppedServer();
  t.teardown(server.close);
  const ids: string[] = [];
  for (const _ of [1, 2, 3]) {
    const { body } = await post(server);
    for (const name of ['task_id', 'session_id'])
      t.regex(body[name] as string, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    t.not(body['task_id'], body['session_id']);
    ids.push(body['task_id'] as string);
  }
  t.deepEqual(ids, ids.toSorted());
});

test('202 names the stream and the task, and what it names is there', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  const { headers, body } = await post(server);
  const { sse, sse_verbose } = body['streams'] as { sse: string; sse_verbose: string };
  t.is((await call(server, 'GET', headers.get('location') as string)).body['task_id'], body['task_id']);
  for (const path of [sse, sse_verbose]) {
    const response = await server.fetch(path);
    t.is(response.status, 200);
    t.regex(await response.text(), /event: end/);
  }
});

/** A disk that does not answer: whether the task is on it, nobody knows. */
class SilentStore extends MemoryStore {
  isSilent = true;

  override commit(change: Commit): CommitResult {
    return this.isSilent ? 'unknown' : super.commit(change);
  }
}

test('a store that does not answer is 500 INTERNAL, retriable, and the same post goes through later', async (t) => {
  const store = new SilentStore();
  const server = await steppedServer({}, { store });
  t.teardown(server.close);
  const task = { task_id: idOf(1), session_id: idOf(2) };
  const { status, body } = await post(server, task, 'k');
  t.is(status, 500);
  t.like(body, { code: 'INTERNAL', retriable: true, engine: 'synthetic' });
  t.is(await known(server), 0);
  t.is((await call(server, 'GET', `/v1/sessions/${task.session_id}`)).body['turns'], 0);
  store.isSilent = false;
  t.is((await post(server, task, 'k')).status, 202);
});

test('a key is over in time, also where an older one was used again meanwhile', async (t) => {
  const server = await steppedServer({ admission: { idempotency_ttl_ms: 5000 } });
  t.teardown(server.close);
  const older = (await post(server, {}, 'older')).body['task_id'] as string;
  server.clock.advance(1000);
  const first = (await post(server, {}, 'newer')).body['task_id'];
  await server.cancel(older);
  t.is((await call(server, 'DELETE', `/v1/tasks/${older}`)).status, 204);
  server.clock.advance(3000);
  await post(server, {}, 'older');
  server.clock.advance(2500);
  t.not((await post(server, {}, 'newer')).body['task_id'], first);
});
