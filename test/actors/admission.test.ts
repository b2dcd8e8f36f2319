import test from 'ava';
import { failure, TaskchartError } from '../../src/errors.ts';
import { remoteModels } from '../../src/models/source.ts';
import type { ThreadPool } from '../../src/threads/thread-pool.ts';
import { until } from '../helpers/until.ts';
import { threadsOf, createRig, settle, type Rig } from './rig.ts';

/** More bytes than room, so that the prompt has to be counted. */
const LONG = { prompt: 'x'.repeat(2000), ctx: 1000, max_tokens: 10 };

/** A pool whose model is a file, which is what prompts are counted from. */
async function countingRig(countTokens: ThreadPool['countTokens']): Promise<Rig> {
  const rig = createRig({
    ports: { threads: threadsOf(countTokens) },
    pool: {
      models: {
        ...remoteModels,
        verify: async (model) => ({ ...(await remoteModels.verify(model)), path: 'a.gguf' }),
      },
    },
  });
  await rig.ready();
  return rig;
}

test('a prompt that cannot be too long is not counted', async (t) => {
  let counted = 0;
  const rig = await countingRig(async () => counted++);
  t.teardown(rig.close);
  await rig.submit({ prompt: 'short' });
  t.is(counted, 0);
});

test('a prompt that leaves no room for the output is refused with both numbers', async (t) => {
  const rig = await countingRig(async () => 991);
  t.teardown(rig.close);
  const refused = await t.throwsAsync(rig.submit(LONG), { instanceOf: TaskchartError });
  t.is(refused?.code, 'INVALID_PARAMS');
  t.regex(refused?.message ?? '', /^prompt: has 991 tokens, at most 990 fit/);
  t.is(rig.orchestrator.tasks.inFlight, 0);
});

test('a prompt that fits is admitted with its count', async (t) => {
  const rig = await countingRig(async () => 990);
  t.teardown(rig.close);
  const { task_id } = await rig.submit(LONG);
  t.is(rig.record(task_id).tokens_in, 990);
});

test('a count that takes too long refuses the task, which may be tried again: it is not admitted unchecked', async (t) => {
  const rig = await countingRig(
    ({ signal }) =>
      new Promise((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason as Error))),
  );
  t.teardown(rig.close);
  const submitting = rig.submit(LONG);
  await settle();
  rig.clock.advance(15_000);
  const refused = await t.throwsAsync(submitting, { instanceOf: TaskchartError });
  t.like(refused?.failure, { code: 'ADMISSION_REJECT', policy_label: 'tokenizer', engine: 'synthetic' });
  t.is(refused?.failure.retry_after_ms, 15_000);
});

test('counting that is overwhelmed refuses the task, and says that it may be tried again', async (t) => {
  const rig = await countingRig(async () => {
    throw new TaskchartError(
      failure('ADMISSION_REJECT', 'too many prompts are waiting to be counted', {
        policy_label: 'tokenizer',
      }),
    );
  });
  t.teardown(rig.close);
  const refused = await t.throwsAsync(rig.submit(LONG), { instanceOf: TaskchartError });
  t.like(refused?.failure, { code: 'ADMISSION_REJECT', retriable: true, policy_label: 'tokenizer' });
  await until(() => rig.observations.some(({ type }) => type === 'task.refused'));
});
