import test from 'ava';
import * as fc from 'fast-check';
import { createEmbeddedLlamaEngine } from '../../src/engines/llamacpp/embedded.ts';
import { createThreadPool } from '../../src/threads/thread-pool.ts';
import { STORYTELLER } from './tokenizer-files.ts';
import { CORPUS, TEXT } from './tokenizer-texts.ts';

const never = new AbortController().signal;

test('a thread counts what the running engine counts', async (t) => {
  const engine = createEmbeddedLlamaEngine({
    model_path: STORYTELLER,
    model_id: 'storyteller',
    slots: 1,
    ctx: 256,
    host: { lost: () => t.fail('the engine was lost') },
  });
  const threads = createThreadPool({ max_waiting: 1000 });
  t.teardown(() => Promise.all([engine.unload(), threads.close()]));
  await engine.load(never);
  const same = async (text: string): Promise<boolean> => {
    const [theirs, ours] = await Promise.all([
      engine.count({ kind: 'prompt', text }, never),
      threads.countTokens({ model_path: STORYTELLER, text }),
    ]);
    return theirs !== undefined && ours === theirs;
  };
  const differing = await Promise.all(CORPUS.map(async (text) => ((await same(text)) ? [] : [text])));
  t.deepEqual(differing.flat(), []);
  await t.notThrowsAsync(() => fc.assert(fc.asyncProperty(TEXT, same), { numRuns: 300 }));
});
