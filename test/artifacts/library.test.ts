import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import test from 'ava';
import { createOrchestrator, openStorage, TaskchartError } from '../../src/index.ts';
import type { Artifact } from '../../src/contract/generated/types.ts';
import { SYNTHETIC } from '../helpers/server.ts';
import { pathFor } from '../sqlite/files.ts';
import { PLAN } from './conformance.ts';

const { pools = [] } = SYNTHETIC;

test('a program that embeds has artifacts in memory, checked as the daemon checks them', async (t) => {
  const orchestrator = createOrchestrator({ pools, artifacts: { max_bytes: 400 } });
  const { artifacts } = orchestrator;
  const { id } = await artifacts.put(PLAN);
  t.deepEqual(await artifacts.get(id), PLAN);
  await t.throwsAsync(artifacts.put({ kind: 'doc', content: {} } as unknown as Artifact), {
    instanceOf: TaskchartError,
    message: /^kind: must be one of/,
  });
  await t.throwsAsync(artifacts.put({ kind: 'plan', content: { text: 'x'.repeat(500) } }), {
    message: /artifacts\.max_bytes/,
  });
  const task = await orchestrator.submit({ prompt: 'private words', max_tokens: 3 });
  for await (const _event of task.events());
  const { transcript_id } = await task.info();
  const transcript = await artifacts.get(transcript_id ?? '');
  t.like(transcript, { kind: 'trace', metadata: { job_id: task.id, tokens_out: 3 } });
  t.deepEqual(
    (await artifacts.list({ limit: 5 })).artifacts.map((ref) => ref.id),
    [id, transcript_id],
  );
  await orchestrator.close();
  await t.throwsAsync(artifacts.put({ kind: 'plan', content: {} }), { message: /shutting down/ });
});

test('with openStorage artifacts are kept in its folder, and the next process has them', async (t) => {
  const folder = dirname(pathFor(t, 'x'));
  const first = createOrchestrator({ pools, ...(await openStorage(folder)) });
  const { id } = await first.artifacts.put(PLAN);
  const hex = id.slice('sha256:'.length);
  t.true(existsSync(`${folder}/artifacts/${hex.slice(0, 2)}/${hex}`));
  await first.close();
  const second = createOrchestrator({ pools, ...(await openStorage(folder)) });
  t.deepEqual(await second.artifacts.get(id), PLAN);
  await second.close();
});
