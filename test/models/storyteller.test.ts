import { readFile, stat } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { getLlama, LlamaCompletion, readGgufFileInfo } from 'node-llama-cpp';

const folder = new URL('../../models/storyteller/', import.meta.url);
const modelPath = fileURLToPath(new URL('storyteller.gguf', folder));

interface HeldOut {
  prompt: string;
  name: string;
  character: string;
  place: string;
  object: string;
}

const heldOut: HeldOut[] = JSON.parse(await readFile(new URL('held-out.json', folder), 'utf8'));
const words = new Set((await readFile(new URL('words.txt', folder), 'utf8')).trim().split('\n'));

async function openStoryteller() {
  const llama = await getLlama({
    gpu: false,
    build: 'never',
    skipDownload: true,
    // More threads spin on work this small and make it many times slower.
    maxThreads: 1,
    progressLogs: false,
  });
  const model = await llama.loadModel({ modelPath });
  const context = await model.createContext({ contextSize: 1024, sequences: 1 });
  const contextSequence = context.getSequence();
  const completion = new LlamaCompletion({ contextSequence });
  return {
    async tell(prompt: string, maxTokens = 400) {
      await contextSequence.clearHistory();
      const { response, metadata } = await completion.generateCompletionWithMeta(prompt, {
        maxTokens,
        temperature: 0,
        repeatPenalty: false,
        disableContextShift: true,
      });
      return { text: response, finished: metadata.stopReason === 'eogToken' };
    },
    async [Symbol.asyncDispose]() {
      await context.dispose();
      await model.dispose();
      await llama.dispose();
    },
  };
}

/** Everything a teacher would mark in red; empty for a good story. */
function flaws(prompt: string, told: { text: string; finished: boolean }): string[] {
  const found: string[] = [];
  if (!told.finished) found.push('does not end');
  const unknown = (told.text.toLowerCase().match(/[\p{L}\p{N}]+(?:'\p{L}+)*/gu) ?? []).filter(
    (word) => !words.has(word),
  );
  if (unknown.length > 0) found.push(`unknown words: ${unknown.join(', ')}`);
  const story = (prompt + told.text).trimEnd();
  if (!/[.!?]"?$/u.test(story)) found.push('no mark after the last sentence');
  for (const paragraph of story.split(/\n+/u)) {
    if (!/^"?\p{Lu}/u.test(paragraph)) found.push(`paragraph starts small: ${paragraph.slice(0, 30)}`);
    if ((paragraph.match(/"/gu) ?? []).length % 2 === 1)
      found.push(`open quotation: ${paragraph.slice(0, 30)}`);
    if (/[.!?]"?\s+"?[^"\p{Lu}\s]/u.test(paragraph)) found.push(`sentence starts small: ${paragraph}`);
  }
  return found;
}

test('the file is small and says what it is', async (t) => {
  t.true((await stat(modelPath)).size <= 4_000_000);
  const { metadata } = await readGgufFileInfo(modelPath, { sourceType: 'filesystem' });
  t.is(String(metadata.general.architecture), 'llama');
  t.is(metadata.general.name, 'storyteller');
  t.is(metadata.general.license, 'MIT');
  t.true((metadata.llama?.context_length ?? 0) >= 512);
  t.is(typeof metadata.tokenizer.chat_template, 'string');
});

test('the held-out prompts follow the rule that keeps them out of the corpus', (t) => {
  t.is(heldOut.length, 50);
  t.is(new Set(heldOut.map(({ prompt }) => prompt)).size, 50);
  for (const { prompt, character, place, object } of heldOut) {
    // generate.py leaves a combination out of the corpus when this sum is divisible by 16.
    const sum = [...(character + place + object)].reduce((total, char) => total + char.charCodeAt(0), 0);
    t.is(sum % 16, 0, prompt);
    for (const part of [character, place, object]) t.true(prompt.includes(part), prompt);
  }
});

test('at least 45 of 50 held-out prompts become proper stories', async (t) => {
  t.timeout(120_000);
  await using storyteller = await openStoryteller();
  const bad: string[] = [];
  for (const { prompt, name, object } of heldOut) {
    const told = await storyteller.tell(prompt);
    const found = flaws(prompt, told);
    if (!told.text.includes(name)) found.push(`forgets ${name}`);
    if (!told.text.includes(object)) found.push(`forgets the ${object}`);
    if (found.length > 0) bad.push(`${prompt}|${told.text}\n  ${found.join('\n  ')}`);
  }
  t.log(`${heldOut.length - bad.length} of ${heldOut.length} are proper stories`);
  t.true(heldOut.length - bad.length >= 45, bad.join('\n\n'));
});

test('greedy decoding repeats itself exactly, and any prompt leads to a story', async (t) => {
  t.timeout(120_000);
  await using storyteller = await openStoryteller();
  for (const prompt of ['Once upon a time', 'Tell me a story', 'GET /v1 🐙 日本語 {"a": 1}']) {
    const first = await storyteller.tell(prompt);
    const second = await storyteller.tell(prompt);
    t.deepEqual(first, second);
    t.true(first.finished, first.text);
    t.true(first.text.split(/\s+/u).length > 50, first.text);
  }
});
