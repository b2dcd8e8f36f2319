import test from 'ava';
import type { ExecutionContext } from 'ava';
import * as fc from 'fast-check';
import { getLlama, LlamaLogLevel } from 'node-llama-cpp';
import type { Llama } from 'node-llama-cpp';
import { readGgufVocabulary } from '../../src/models/gguf.ts';
import type { GgufVocabulary } from '../../src/models/gguf.ts';
import { countTokens, createTokenizer } from '../../src/models/tokenizer/tokenizer.ts';
import type { Tokenizer } from '../../src/models/tokenizer/tokenizer.ts';
import { CORPUS, TEXT } from './tokenizer-texts.ts';
import { scratchFile, STORYTELLER, vocabularyFile } from './tokenizer-files.ts';

let engine: Llama;

test.before(async () => {
  engine = await getLlama({
    gpu: false,
    build: 'never',
    skipDownload: true,
    maxThreads: 1,
    progressLogs: false,
    logLevel: LlamaLogLevel.disabled,
  });
});

test.after.always(() => engine.dispose());

/** Compares ids, not counts, on the corpus and on `runs` random texts, with and without special tokens. */
async function agrees(t: ExecutionContext, path: string, runs: number): Promise<void> {
  const tokenizer = await tokenizerOf(path);
  const model = await engine.loadModel({ modelPath: path, vocabOnly: true });
  const differs = (text: string): string | undefined => {
    for (const parse_special of [false, true]) {
      const theirs = model.tokenize(text, parse_special).join(' ');
      const ours = tokenizer.encode(text, { parse_special, add_special: false }).join(' ');
      if (ours !== theirs) return `${JSON.stringify(text)} is ${theirs}, not ${ours}`;
    }
    return undefined;
  };
  for (const text of CORPUS) t.is(differs(text), undefined);
  t.notThrows(() =>
    fc.assert(
      fc.property(TEXT, (text) => differs(text) === undefined),
      { numRuns: runs },
    ),
  );
  await model.dispose();
}

async function tokenizerOf(path: string): Promise<Tokenizer> {
  const tokenizer = createTokenizer(await bundled(path));
  if (tokenizer === undefined) throw new Error('this model has no exact tokenizer');
  return tokenizer;
}

async function bundled(path = STORYTELLER): Promise<GgufVocabulary> {
  const vocabulary = await readGgufVocabulary(path);
  if (vocabulary === undefined) throw new Error('this model has no vocabulary');
  return vocabulary;
}

/**
 * The bundled vocabulary with a merge for every pair of the characters at which pre-tokenizers cut: a cut in the
 * wrong place then shows in the tokens. On top come two special tokens of which one contains the other, and a
 * token that no merge makes.
 */
function revealing(vocabulary: GgufVocabulary): GgufVocabulary {
  const edges = [..."aestSTlLvdm'123!$`-.Ġ\u010a\u0109\u010dÃÙÂâðãàå"];
  const pairs = edges.flatMap((left) => edges.map((right) => [left, right] as const));
  const known = new Set([...vocabulary.tokens, '==', '===']);
  const added = pairs.map((pair) => pair.join('')).filter((text) => !known.has(text));
  return {
    ...vocabulary,
    tokens: [...vocabulary.tokens, ...added, '==', '===', 'Ġvessel'],
    types: [...(vocabulary.types ?? []), ...added.map(() => 1), 4, 4, 1],
    merges: [...pairs.map((pair) => pair.join(' ')), ...(vocabulary.merges ?? []), 'a a', 'Ġ Ġ'],
  };
}

/** SentencePiece tables made of the bundled vocabulary's plain words. */
function sentencePiece({ tokens, types }: GgufVocabulary): GgufVocabulary {
  const words = tokens
    .filter((text, id) => types?.[id] === 1 && /^[\u0120!-~]+$/.test(text))
    .map((text) => text.replaceAll('\u0120', '▁'));
  const bytes = Array.from(
    { length: 256 },
    (_, byte) => `<0x${byte.toString(16).padStart(2, '0').toUpperCase()}>`,
  );
  const all = [
    '<unk>',
    '<s>',
    '</s>',
    '<|endoftext|>',
    ...bytes,
    ...new Set(['▁', '▁▁', '▁▁▁▁', 'é', '日本', ...words]),
  ];
  return {
    model: 'llama',
    tokens: all,
    types: all.map((_, id) => (id === 0 ? 2 : id < 4 ? 3 : id < 260 ? 6 : id % 50 === 0 ? 4 : 1)),
    scores: all.map((_, id) => (id < 260 ? 0 : -Math.floor(id / 3))),
    named_tokens: new Map(),
    architecture: 'llama',
  };
}

test('llama.cpp makes the same tokens with the bundled model', (t) => agrees(t, STORYTELLER, 500));

for (const pre of ['default', 'gpt-2', 'smollm', 'llama-bpe', 'dbrx', 'qwen2']) {
  test(`llama.cpp makes the same tokens with the ${pre} pre-tokenizer`, async (t) => {
    const file = vocabularyFile({ ...revealing(await bundled()), pre });
    await agrees(t, await scratchFile(t, file), 300);
  });
}

test('llama.cpp makes the same tokens where the file names no pre-tokenizer', async (t) => {
  const { pre: _, ...vocabulary } = await bundled();
  await agrees(t, await scratchFile(t, vocabularyFile(revealing(vocabulary))), 200);
});

test('llama.cpp makes the same tokens of merges whose tokens are missing', async (t) => {
  const whole = await bundled();
  const missing = (text: string, id: number): boolean =>
    whole.types?.[id] === 1 && (text.length > 1 ? id % 7 === 3 : '\u0120AE3'.includes(text));
  const kept = whole.tokens.map((text, id) => ({ text, id })).filter(({ text, id }) => !missing(text, id));
  const file = vocabularyFile({
    ...whole,
    tokens: kept.map(({ text }) => text),
    types: kept.map(({ id }) => whole.types?.[id] ?? 1),
  });
  await agrees(t, await scratchFile(t, file), 300);
});

for (const model_name of ['plain', 'Phi-3 mini']) {
  test(`llama.cpp makes the same tokens with a SentencePiece vocabulary named ${model_name}`, async (t) => {
    const vocabulary = { ...sentencePiece(await bundled()), model_name };
    await agrees(t, await scratchFile(t, vocabularyFile(vocabulary)), 300);
  });
}

test('BOS and EOS are counted as the model asks, and only as part of a prompt', async (t) => {
  const vocabulary = await bundled();
  const count = (add_bos: boolean, add_eos: boolean, add_special?: boolean): number | undefined => {
    const tokenizer = createTokenizer({ ...vocabulary, add_bos, add_eos });
    return tokenizer && countTokens(tokenizer, '', add_special === undefined ? {} : { add_special });
  };
  t.is(count(false, false), 0);
  t.is(count(true, false), 1);
  t.is(count(true, true), 2);
  t.is(count(true, true, false), 0);
});

test('special tokens are parsed unless the caller says otherwise', async (t) => {
  const tokenizer = await tokenizerOf(STORYTELLER);
  const { tokens, eos = -1 } = await bundled();
  const text = tokens[eos] ?? '';
  t.deepEqual(tokenizer.encode(text, { add_special: false }), [eos]);
  t.true(tokenizer.encode(text, { add_special: false, parse_special: false }).length > 1);
});

test('a vocabulary that cannot be followed exactly has no tokenizer', async (t) => {
  const vocabulary = await bundled();
  const { merges: _, ...without_merges } = vocabulary;
  const [first = ''] = vocabulary.tokens;
  const inexact: GgufVocabulary[] = [
    { ...vocabulary, pre: 'tekken' },
    { ...vocabulary, model: 'bert' },
    { ...vocabulary, tokens: [...vocabulary.tokens, first] },
    { ...vocabulary, types: [1] },
    { ...vocabulary, model_name: 'Modern-BERT base' },
    { ...vocabulary, model: 'llama' },
    without_merges,
  ];
  for (const tables of inexact) t.is(createTokenizer(tables), undefined);
});

test('a long word costs no more than a long text', async (t) => {
  const tokenizer = await tokenizerOf(STORYTELLER);
  // Quadratic work would run into the test's time limit by hours.
  for (const text of ['ab'.repeat(500_000), ' '.repeat(1_000_000), 'x'.repeat(1_000_000)]) {
    t.true(countTokens(tokenizer, text) > 1000);
  }
});
