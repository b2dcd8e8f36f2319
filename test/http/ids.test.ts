import test from 'ava';
import { request, startTestServer } from '../helpers/server.ts';
import { call, idOf } from './wire.ts';

const LOWER = idOf(0xabcdef);
const UPPER = LOWER.toUpperCase();

test('a task is the same in either case of its id, and is told in lower case', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  const body = { ...request, task_id: UPPER, max_tokens: 2 };
  t.is((await call(server, 'POST', '/v1/tasks', body)).body['task_id'], LOWER);
  await server.raw(LOWER);
  await server.raw(UPPER);
  for (const id of [LOWER, UPPER]) t.is((await call(server, 'GET', `/v1/tasks/${id}`)).status, 200);
  const again = await call(server, 'POST', '/v1/tasks', { ...body, task_id: LOWER });
  t.is(again.status, 202);
  t.is(server.orchestrator.task(UPPER).id, LOWER);
  t.is((await call(server, 'POST', `/v1/tasks/${UPPER}/cancel`)).status, 204);
  t.is((await call(server, 'DELETE', `/v1/tasks/${UPPER}`)).status, 204);
  t.is((await call(server, 'GET', `/v1/tasks/${LOWER}`)).status, 404);
});

test('a session is the same in either case of its id', async (t) => {
  const server = await startTestServer();
  t.teardown(server.close);
  await server.submit({ session_id: UPPER });
  await server.submit({ session_id: LOWER });
  for (const id of [LOWER, UPPER])
    t.is((await call(server, 'GET', `/v1/sessions/${id}`)).body['turns'], 2, id);
  t.is(server.orchestrator.session(UPPER).turns, 2);
  const list = await call(server, 'GET', `/v1/tasks?session_id=${UPPER}`);
  t.is((list.body['tasks'] as unknown[]).length, 2);
  t.is(server.orchestrator.tasks({ session_id: UPPER }).length, 2);
  t.is((await call(server, 'POST', `/v1/sessions/${UPPER}`)).status, 204);
  t.is((await call(server, 'DELETE', `/v1/sessions/${UPPER}`)).status, 204);
  t.is((await call(server, 'GET', `/v1/sessions/${LOWER}`)).body['turns'], 0);
});
