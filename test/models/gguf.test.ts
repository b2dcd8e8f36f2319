import { readFile, stat, truncate, writeFile } from 'node:fs/promises';
import test from 'ava';
import * as fc from 'fast-check';
import { GgufError, readGgufHeader, readGgufVocabulary } from '../../src/models/gguf.ts';
import { ggufFile, scratchFile, STORYTELLER } from './tokenizer-files.ts';

const CLEAR = /^(not a GGUF file: .+|GGUF version \d+ is not supported|GGUF file is cut off in its header)$/;

const EVERYTHING = ggufFile({
  'general.architecture': { string: 'llama' },
  'general.name': { string: 'Ångström 📐' },
  'llama.context_length': { u32: 4096 },
  'llama.embedding_length': { u64: 64n },
  'llama.block_count': { u16: 2 },
  'general.file_type': { u8: 7 },
  small: { i8: -8 },
  medium: { i16: -16 },
  large: { i32: -32 },
  half: { f32: 0.5 },
  tenth: { f64: 0.1 },
  yes: { bool: true },
  huge: { u64: 2n ** 63n },
  deep: { i64: -(2n ** 60n) },
  list: { array: [{ string: 'a' }, { string: '' }] },
  lists: { array: [{ array: [{ u8: 1 }, { u8: 2 }] }, { array: [] }] },
  long: { array: Array.from({ length: 65 }, (_, i) => ({ i32: i })) },
  words: { array: Array.from({ length: 65 }, (_, i) => ({ string: `w${i}` })) },
  last: { i32: 1 },
});

test('the header of the bundled model tells what it is', async (t) => {
  const header = await readGgufHeader(STORYTELLER);
  t.is(header.version, 3);
  t.is(header.architecture, 'llama');
  t.truthy(header.name);
  t.true((header.context_length ?? 0) >= 128);
  t.true((header.embedding_length ?? 0) > 0);
  t.true((header.block_count ?? 0) > 0);
  t.true(header.tensor_count > 0);
  t.is(header.size_bytes, (await stat(STORYTELLER)).size);
});

test('the vocabulary of the bundled model is complete', async (t) => {
  const vocabulary = await readGgufVocabulary(STORYTELLER);
  t.is(vocabulary?.model, 'gpt2');
  t.is(vocabulary?.types?.length, vocabulary?.tokens.length);
  t.true((vocabulary?.merges?.length ?? 0) > 0);
  t.true((vocabulary?.bos ?? -1) >= 0);
});

test('every value type is read, and long arrays are stepped over', async (t) => {
  const header = await readGgufHeader(await scratchFile(t, EVERYTHING));
  t.like(header, {
    architecture: 'llama',
    name: 'Ångström 📐',
    context_length: 4096,
    embedding_length: 64,
    block_count: 2,
    file_type: 7,
    tensor_count: 0,
    size_bytes: EVERYTHING.length,
  });
  t.false('chat_template' in header);
  t.deepEqual(Object.fromEntries([...header.metadata].slice(6)), {
    small: -8,
    medium: -16,
    large: -32,
    half: 0.5,
    tenth: 0.1,
    yes: true,
    huge: 2n ** 63n,
    deep: -(2n ** 60n),
    list: ['a', ''],
    lists: [[1, 2], []],
    long: { element_type: 5, length: 65 },
    words: { element_type: 8, length: 65 },
    last: 1,
  });
});

test('a header that spans many blocks is read to its end', async (t) => {
  const long = 'x'.repeat(300_000);
  const many = Array.from({ length: 50_000 }, (_, i) => ({ string: `token ${i}` }));
  const bytes = ggufFile({
    a: { string: long },
    'tokenizer.ggml.model': { string: 'gpt2' },
    'tokenizer.ggml.tokens': { array: many },
    numbers: { array: Array.from({ length: 200_000 }, () => ({ i32: 1 })) },
    b: { string: 'end' },
  });
  const path = await scratchFile(t, bytes);
  const { metadata } = await readGgufHeader(path);
  t.is(metadata.get('a'), long);
  t.is(metadata.get('b'), 'end');
  t.deepEqual(
    (await readGgufVocabulary(path))?.tokens,
    many.map(({ string }) => string),
  );
});

test('a file without a vocabulary has none', async (t) => {
  const path = await scratchFile(t, ggufFile({ a: { u8: 1 } }));
  t.is(await readGgufVocabulary(path), undefined);
});

test('a file that is no GGUF file of a known version is refused in one line', async (t) => {
  const refusal = async (bytes: Uint8Array): Promise<string | undefined> => {
    const error = await t.throwsAsync(readGgufHeader(await scratchFile(t, bytes)), { instanceOf: GgufError });
    return error?.message;
  };
  t.is(await refusal(Buffer.from('')), 'not a GGUF file: it has 0 bytes');
  t.is(await refusal(Buffer.from('<!doctype html>')), 'not a GGUF file: it does not start with GGUF');
  t.is(await refusal(ggufFile({}, 1)), 'GGUF version 1 is not supported');
  t.is(await refusal(ggufFile({}, 4)), 'GGUF version 4 is not supported');
  t.is(await refusal(ggufFile({}).subarray(0, 20)), 'GGUF file is cut off in its header');
  const unknown = ggufFile({ a: { u8: 1 } });
  unknown.writeUInt32LE(13, unknown.length - 5);
  t.is(await refusal(unknown), 'not a GGUF file: it has a value of unknown type 13');
});

test('a file cut off anywhere in its header is refused as cut off', async (t) => {
  const path = await scratchFile(t, EVERYTHING);
  for (let length = EVERYTHING.length - 1; length >= 4; length -= 1) {
    await truncate(path, length);
    await t.throwsAsync(readGgufHeader(path), { message: 'GGUF file is cut off in its header' }, `${length}`);
  }
});

test('the bundled model cut off anywhere is refused or, past its header, read', async (t) => {
  const whole = await readFile(STORYTELLER);
  const path = await scratchFile(t, whole.subarray(0, 0));
  const check = fc.asyncProperty(fc.nat({ max: 200_000 }), async (length) => {
    await writeFile(path, whole.subarray(0, length));
    try {
      await readGgufHeader(path);
    } catch (error) {
      return error instanceof GgufError && CLEAR.test(error.message);
    }
    return true;
  });
  await t.notThrowsAsync(fc.assert(check, { numRuns: 200 }));
});

test('garbage in a header is read as something or refused clearly, never more', async (t) => {
  const path = await scratchFile(t, EVERYTHING);
  const damage = fc.array(
    fc.tuple(fc.nat({ max: EVERYTHING.length - 1 }), fc.integer({ min: 0, max: 255 })),
    {
      minLength: 1,
      maxLength: 8,
    },
  );
  const check = fc.asyncProperty(damage, fc.uint8Array({ maxLength: 64 }), async (changes, tail) => {
    const bytes = Buffer.concat([EVERYTHING, tail]);
    for (const [at, value] of changes) bytes[at] = value;
    await writeFile(path, bytes);
    for (const read of [readGgufHeader, readGgufVocabulary]) {
      try {
        await read(path);
      } catch (error) {
        if (!(error instanceof GgufError && CLEAR.test(error.message))) return false;
      }
    }
    return true;
  });
  await t.notThrowsAsync(fc.assert(check, { numRuns: 500 }));
});

test('a text longer than any header has is refused without being allocated', async (t) => {
  const bytes = ggufFile({ a: { string: 'x' } });
  const length = 100 * 1024 * 1024;
  bytes.writeBigUInt64LE(BigInt(length), bytes.length - 9);
  const path = await scratchFile(t, bytes);
  await t.throwsAsync(readGgufHeader(path), { message: 'GGUF file is cut off in its header' });
  await truncate(path, bytes.length + length);
  await t.throwsAsync(readGgufHeader(path), { message: `not a GGUF file: it has a text of ${length} bytes` });
});

test('an aborted signal ends the reading with its reason', async (t) => {
  const reason = new Error('not needed any more');
  const error = await t.throwsAsync(readGgufHeader(STORYTELLER, { signal: AbortSignal.abort(reason) }));
  t.is(error, reason);
});

test('a missing file is the file system’s error', async (t) => {
  await t.throwsAsync(readGgufHeader(`${STORYTELLER}.missing`), { code: 'ENOENT' });
});
