import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { createEmbeddedLlamaEngine } from '../../src/engines/llamacpp/embedded.ts';
import { type Subject, never, promptCall, record, recordingHost } from './conformance.ts';
import { writeTinyRanker } from './tiny-ranker.ts';
import { failureOf, recordResults, vectorsConformance } from './vectors-conformance.ts';

const MODEL = fileURLToPath(new URL('../../models/storyteller/storyteller.gguf', import.meta.url));
const OPTIONS = { model_path: MODEL, model_id: 'storyteller', slots: 2, ctx: 256 };

const folder = await mkdtemp(join(tmpdir(), 'taskchart-'));
const RANKER = join(folder, 'ranker.gguf');
test.before(() => writeTinyRanker(RANKER, MODEL));
test.after.always(() => rm(folder, { recursive: true }));

function subject(model_path: string): Subject {
  return {
    reloads: true,
    start(_kind, host) {
      const engine = createEmbeddedLlamaEngine({ ...OPTIONS, model_path, host });
      const crash = () => void (engine.pid !== undefined && process.kill(engine.pid, 'SIGKILL'));
      return Promise.resolve({ engine, crash, close: () => undefined });
    },
  };
}

vectorsConformance(test, 'embedding', subject(MODEL));
vectorsConformance(test, 'rerank', subject(RANKER));

async function loaded(t: ExecutionContext, options: Partial<typeof OPTIONS> = {}) {
  const engine = createEmbeddedLlamaEngine({ ...OPTIONS, ...options, host: recordingHost() });
  t.teardown(() => engine.unload());
  return { engine, properties: await engine.load(never) };
}

test.serial('vectors take slots as text does', async (t) => {
  const { engine } = await loaded(t, { slots: 1 });
  const [run, second] = await Promise.all([
    record(engine, promptCall('Once', { max_tokens: 30 })),
    recordResults(engine, 'embedding', ['a dog']),
  ]);
  t.is(run.outcome.kind, 'finished');
  t.is(failureOf(t, second).code, 'REPLICA_EXHAUSTED');
  t.is((await recordResults(engine, 'embedding', ['a dog'])).outcome.kind, 'finished');
});

test.serial('a vector does not depend on how long its neighbours are', async (t) => {
  const { engine, properties } = await loaded(t, { ctx: 1024 });
  const alone = await recordResults(engine, 'embedding', ['a little dog']);
  const filler = ' a'.repeat(properties.ctx_max - 2);
  const beside = await recordResults(engine, 'embedding', [filler, 'a little dog']);
  t.deepEqual(beside.results[1], alone.results[0]);
  t.true(beside.outcome.usage.tokens_in > 1000);
});
