import { execFile } from 'node:child_process';
import { utimes, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import { TaskchartError } from '../../src/errors.ts';
import { readGgufVocabulary } from '../../src/models/gguf.ts';
import { countTokens, createTokenizer } from '../../src/models/tokenizer/tokenizer.ts';
import { createThreadPool } from '../../src/threads/thread-pool.ts';
import type { ThreadPool, ThreadPoolOptions } from '../../src/threads/thread-pool.ts';
import { scratchFile, STORYTELLER, storytellerJson, vocabularyFile } from '../models/tokenizer-files.ts';

function pool(t: ExecutionContext, options?: ThreadPoolOptions): ThreadPool {
  const threads = createThreadPool(options);
  t.teardown(() => threads.close());
  return threads;
}

async function vocabulary(): Promise<NonNullable<Awaited<ReturnType<typeof readGgufVocabulary>>>> {
  const tables = await readGgufVocabulary(STORYTELLER);
  if (tables === undefined) throw new Error('the bundled model has no vocabulary');
  return tables;
}

test('a thread counts what the tokenizer counts', async (t) => {
  const tokenizer = createTokenizer(await vocabulary());
  if (tokenizer === undefined) return t.fail();
  const threads = pool(t);
  const text = 'Once upon a time <|endoftext|> 👍 '.repeat(50);
  for (const options of [{}, { parse_special: false }, { add_special: false }]) {
    const counted = await threads.countTokens({ model_path: STORYTELLER, text, ...options });
    t.is(counted, countTokens(tokenizer, text, options));
  }
});

test('a model that cannot be counted with exactly yields no count', async (t) => {
  const path = await scratchFile(t, vocabularyFile({ ...(await vocabulary()), pre: 'tekken' }));
  const threads = pool(t);
  t.is(await threads.countTokens({ model_path: path, text: 'hello' }), undefined);
  t.deepEqual(await threads.tokenize({ model_path: path, text: 'hello' }), {
    exact: false,
    tokenizer_name: 'gguf:tekken',
  });
});

test('a tokenizer.json, or the folder it is in, counts as the model file does', async (t) => {
  const threads = pool(t);
  const content = Buffer.from(JSON.stringify(storytellerJson(await vocabulary())));
  const path = await scratchFile(t, content, 'tokenizer.json');
  const text = 'Once upon a time <|endoftext|> 👍 '.repeat(50);
  const { tokenizer_name, ...counted } = await threads.tokenize({ model_path: STORYTELLER, text });
  t.is(tokenizer_name, 'gguf:gpt-2');
  t.true(counted.exact);
  for (const model_path of [path, dirname(path)]) {
    const answer = await threads.tokenize({ model_path, text });
    t.deepEqual(answer, { ...counted, tokenizer_name: 'tokenizer.json' });
  }
});

test('a model file that changed is read again', async (t) => {
  const threads = pool(t);
  const tables = await vocabulary();
  const path = await scratchFile(t, vocabularyFile({ ...tables, pre: 'tekken' }));
  t.is(await threads.countTokens({ model_path: path, text: 'hello' }), undefined);
  await writeFile(path, vocabularyFile({ ...tables, pre: 'smollm' }));
  await utimes(path, 1, 1);
  t.true(((await threads.countTokens({ model_path: path, text: 'hello' })) ?? 0) > 0);
});

test('a thread that has to forget vocabularies still counts with all of them', async (t) => {
  const threads = pool(t);
  const file = vocabularyFile(await vocabulary());
  const paths = await Promise.all([0, 1, 2, 3].map(() => scratchFile(t, file)));
  const counts = [];
  for (const path of [...paths, ...paths]) {
    counts.push(await threads.countTokens({ model_path: path, text: 'the little fox' }));
  }
  t.is(new Set(counts).size, 1);
  t.true((counts[0] ?? 0) > 0);
});

test('a call beyond the waiting room is refused as an admission', async (t) => {
  const threads = pool(t, { threads: 1, max_waiting: 1 });
  const call = (): Promise<number | undefined> =>
    threads.countTokens({ model_path: STORYTELLER, text: 'hello' });
  const accepted = [call(), call()];
  const error = await t.throwsAsync(call(), { instanceOf: TaskchartError });
  t.like(error.failure, { code: 'ADMISSION_REJECT', retriable: true, policy_label: 'tokenizer' });
  const { retry_after_ms = 0 } = error.failure;
  t.true(retry_after_ms >= 250 && retry_after_ms <= 30_000);
  await Promise.all(accepted);
  t.true(((await call()) ?? 0) > 0);
});

test('a model file that cannot be read is a failure without its path', async (t) => {
  const threads = pool(t);
  const count = (model_path: string): Promise<unknown> => threads.countTokens({ model_path, text: 'hello' });
  await t.throwsAsync(count('/nowhere/model.gguf'), {
    instanceOf: TaskchartError,
    code: 'INTERNAL',
    message: 'cannot count tokens: cannot read the model file: ENOENT',
  });
  await t.throwsAsync(count(await scratchFile(t, Buffer.from('GGUF'))), {
    instanceOf: TaskchartError,
    message: 'cannot count tokens: GGUF file is cut off in its header',
  });
});

test('a caller that leaves is told at once, and the thread goes on with its vocabularies', async (t) => {
  const threads = pool(t);
  const file = vocabularyFile(await vocabulary());
  const path = await scratchFile(t, file);
  await utimes(path, 1, 1);
  const count = (text: string, signal?: AbortSignal): Promise<number | undefined> =>
    threads.countTokens({ model_path: path, text, ...(signal && { signal }) });
  const reason = new Error('the caller left');
  t.is(await t.throwsAsync(count('hello', AbortSignal.abort(reason))), reason);
  await count('start the thread');
  // Looks the same from outside: only a thread that started anew would read it, and fail.
  await writeFile(path, Buffer.alloc(file.length));
  await utimes(path, 1, 1);
  const controller = new AbortController();
  const long = 'x'.repeat(3_000_000);
  const busy = t.throwsAsync(count(long, controller.signal));
  const waiting = t.throwsAsync(count(long, controller.signal));
  const patient = count('hello');
  setImmediate(() => controller.abort(reason));
  t.deepEqual(await Promise.all([busy, waiting]), [reason, reason]);
  t.true(((await patient) ?? 0) > 0);
});

test('a caller that leaves while it waits makes room for another', async (t) => {
  const threads = pool(t, { max_waiting: 1 });
  const controller = new AbortController();
  const call = (signal?: AbortSignal): Promise<number | undefined> =>
    threads.countTokens({ model_path: STORYTELLER, text: 'hello', ...(signal && { signal }) });
  const first = call();
  const left = t.throwsAsync(call(controller.signal), { name: 'AbortError' });
  controller.abort();
  const [counted] = await Promise.all([call(), first, left]);
  t.true((counted ?? 0) > 0);
});

test('a call that takes too long fails, and so does not block the next', async (t) => {
  const threads = pool(t, { limit_ms: 1 });
  const text = 'x'.repeat(10_000_000);
  const calls = [1, 2].map(() => threads.countTokens({ model_path: STORYTELLER, text }));
  for (const call of calls) {
    const error = await t.throwsAsync(call, { instanceOf: TaskchartError, code: 'INTERNAL' });
    t.is(error.message, 'cannot count tokens: it took longer than 1 ms');
  }
});

test('a closed pool refuses calls and rejects those in flight', async (t) => {
  const threads = createThreadPool();
  await threads.countTokens({ model_path: STORYTELLER, text: 'start the thread' });
  const busy = threads.countTokens({ model_path: STORYTELLER, text: 'x'.repeat(3_000_000) });
  const outcome = t.throwsAsync(busy, { instanceOf: TaskchartError, code: 'POOL_UNAVAILABLE' });
  await Promise.all([threads.close(), threads.close()]);
  await outcome;
  await t.throwsAsync(threads.countTokens({ model_path: STORYTELLER, text: '' }), {
    code: 'POOL_UNAVAILABLE',
  });
  await t.notThrowsAsync(createThreadPool().close());
});

for (const ending of ['', 'await pool.close();']) {
  test(`a process ends by itself ${ending === '' ? 'with an idle pool' : 'after close'}`, async (t) => {
    const url = new URL('../../src/threads/thread-pool.ts', import.meta.url);
    const script = `
      const { createThreadPool } = await import(${JSON.stringify(url.href)});
      const pool = createThreadPool();
      console.log(await pool.countTokens({ model_path: ${JSON.stringify(STORYTELLER)}, text: 'hello' }));
      ${ending}`;
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], {
      timeout: 50_000,
    });
    t.regex(stdout, /^\d+\n$/);
  });
}
