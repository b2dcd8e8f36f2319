import { readFile } from 'node:fs/promises';
import test from 'ava';
import * as fc from 'fast-check';
import { readGgufVocabulary } from '../../src/models/gguf.ts';
import { createJsonTokenizer, readTokenizerJson } from '../../src/models/tokenizer/json/tokenizer-json.ts';
import type { JsonTokenizer } from '../../src/models/tokenizer/json/tokenizer-json.ts';
import { createTokenizer } from '../../src/models/tokenizer/tokenizer.ts';
import { scratchFile, STORYTELLER, storytellerJson } from './tokenizer-files.ts';
import { CORPUS, TEXT } from './tokenizer-texts.ts';

/** What the library that most engines use makes of texts; made by `make-tokenizer-cases.py`. */
interface Cases {
  texts: string[];
  bases: Record<string, Base>;
  cases: {
    name: string;
    base: string;
    settings: object;
    model: object;
    /** For each text the number of its tokens and a sum over their ids, with and without special tokens. */
    parsed: number[];
    plain: number[];
  }[];
}

interface Base {
  model: { vocab: string; merges: string };
}

const CASES = JSON.parse(await readFile(new URL('tokenizer-cases.json', import.meta.url), 'utf8')) as Cases;

function contentOf(base: string, settings: object = {}, model: object = {}): Record<string, unknown> {
  const { model: tables, ...rest } = CASES.bases[base] as Base;
  const vocab = Object.fromEntries(tables.vocab.split(' ').map((token, id) => [token, id]));
  return { ...rest, ...settings, model: { ...tables, ...model, vocab, merges: tables.merges.split('\n') } };
}

function tokenizerOf(content: unknown): JsonTokenizer {
  const tokenizer = createJsonTokenizer(content);
  if (tokenizer === undefined) throw new Error('this tokenizer.json cannot be followed');
  return tokenizer;
}

function checked(ids: readonly number[]): [number, number] {
  return [ids.length, ids.reduce((sum, id, at) => (sum + (at + 1) * id) % 1_000_003, 0)];
}

for (const { name, base, settings, model, parsed, plain } of CASES.cases) {
  test(`the tokens of a tokenizer.json are those of the library: ${name}`, (t) => {
    const tokenizer = tokenizerOf(contentOf(base, settings, model));
    let followed = 0;
    CASES.texts.forEach((text, at) => {
      for (const [want, options] of [
        [parsed, {}],
        [plain, { parse_special: false, add_special: false }],
      ] as const) {
        const ids = tokenizer.encode(text, options);
        if (ids === undefined) continue;
        followed += 1;
        t.deepEqual(checked(ids), [want[at * 2], want[at * 2 + 1]] as [number, number], JSON.stringify(text));
      }
    });
    // Some texts have characters about which Unicode versions disagree: those have no count.
    t.true(followed > CASES.texts.length * 2 * 0.9);
  });
}

test('the bundled vocabulary makes the same tokens from a tokenizer.json', async (t) => {
  const vocabulary = await readGgufVocabulary(STORYTELLER);
  const gguf = vocabulary && createTokenizer(vocabulary);
  if (vocabulary === undefined || gguf === undefined) return t.fail();
  const tokenizer = await readTokenizerJson(
    await scratchFile(t, Buffer.from(JSON.stringify(storytellerJson(vocabulary))), 'tokenizer.json'),
  );
  const same = (text: string): boolean => {
    const ids = tokenizer?.encode(text);
    return ids === undefined || ids.join(' ') === gguf.encode(text).join(' ');
  };
  for (const text of CORPUS) t.true(same(text), JSON.stringify(text));
  t.notThrows(() => fc.assert(fc.property(TEXT, same), { numRuns: 500 }));
  t.true(CORPUS.filter((text) => tokenizer?.encode(text) !== undefined).length > CORPUS.length - 3);
});

const SPLIT = (regex: string): object => ({
  pre_tokenizer: {
    type: 'Sequence',
    pretokenizers: [
      { type: 'Split', pattern: { Regex: regex }, behavior: 'Isolated', invert: false },
      { type: 'ByteLevel', add_prefix_space: false, use_regex: false },
    ],
  },
});

test('a tokenizer.json that cannot be followed exactly has no tokenizer', (t) => {
  const inexact: [settings: object, model?: object][] = [
    [{}, { type: 'Unigram' }],
    [{}, { dropout: 0.1 }],
    [{}, { end_of_word_suffix: '</w>' }],
    [{}, { unk_token: 'nowhere' }],
    [{ normalizer: { type: 'Lowercase' } }],
    [{ pre_tokenizer: { type: 'Whitespace' } }],
    [{ post_processor: { type: 'Later' } }],
    [{ truncation: { max_length: 512 } }],
    [{ added_tokens: [{ id: 7, content: '<|im_end|>', special: true }] }],
    [{ added_tokens: 'none' }],
  ];
  for (const [settings, model] of inexact) {
    t.is(
      createJsonTokenizer(contentOf('bytes', settings, model)),
      undefined,
      JSON.stringify([settings, model]),
    );
  }
  for (const [merges] of [[['a b c']], [['nowhere x']], [['t h', 't h']]]) {
    const content = contentOf('bytes');
    t.is(createJsonTokenizer({ ...content, model: { ...(content['model'] as object), merges } }), undefined);
  }
});

test('a pattern that two kinds of regular expressions may read differently is not followed', (t) => {
  const foreign = [
    '^a',
    'a$',
    '\\p{Han}',
    '\\w+',
    '[a[bc]]',
    '[a-z&&[^b]]',
    '(?>a)',
    '(?i:ss)',
    '(?i:é)',
    '\\p{L}++',
    'a{2}+',
    'a{,2}',
    '\\X',
    '(?<n>a)',
    '[]a]',
    '(',
  ];
  for (const regex of foreign) t.is(createJsonTokenizer(contentOf('bytes', SPLIT(regex))), undefined, regex);
  t.is(tokenizerOf(contentOf('bytes', SPLIT('x*'))).encode('ab'), undefined);
  t.not(tokenizerOf(contentOf('bytes', SPLIT('x+'))).encode('ab'), undefined);
});

test('a character that Unicode versions see differently leaves a text without a count', (t) => {
  const plain = tokenizerOf(contentOf('bytes'));
  const composed = tokenizerOf(contentOf('bytes', { normalizer: { type: 'NFC' } }));
  t.is(plain.encode('a \u{1e6c0} b'), undefined);
  t.not(plain.encode('a \u{105c9} b'), undefined);
  t.is(composed.encode('a \u{105c9} b'), undefined);
});

test('the runtime follows the Unicode version for which disagreeing characters were listed', (t) => {
  t.is(process.versions['unicode'], '17.0');
});

test('a file that is no tokenizer.json is refused in one line', async (t) => {
  const read = async (content: string): Promise<unknown> =>
    readTokenizerJson(await scratchFile(t, Buffer.from(content), 'tokenizer.json'));
  await t.throwsAsync(read('{"model":'), {
    name: 'TokenizerJsonError',
    message: 'tokenizer.json is not valid JSON',
  });
  await t.throwsAsync(read('[]'), { name: 'TokenizerJsonError', message: 'tokenizer.json has no model' });
  await t.throwsAsync(readTokenizerJson('/nowhere/tokenizer.json'), { code: 'ENOENT' });
});

test('a long word costs no more than a long text', (t) => {
  const llama3 = CASES.cases.find(({ name }) => name === 'llama 3');
  const tokenizers = [
    tokenizerOf(contentOf('chars')),
    tokenizerOf(contentOf('bytes', llama3?.settings, llama3?.model)),
  ];
  // Quadratic work would run into the test's time limit by hours.
  for (const text of [
    'ab'.repeat(500_000),
    ' '.repeat(1_000_000),
    'x'.repeat(10_000),
    '\n'.repeat(1_000_000),
  ]) {
    for (const tokenizer of tokenizers) t.true((tokenizer.encode(text)?.length ?? 0) > 100);
  }
});
