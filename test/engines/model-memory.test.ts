import { mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { GrowingContext } from '../../src/engines/llamacpp/growing-context.ts';
import { type GgufHeader, readGgufHeader } from '../../src/models/gguf.ts';
import { kvBytesOfHeader, kvBytesPerToken } from '../../src/models/kv-size.ts';
import { fileModels, folderModels } from '../../src/models/source.ts';

function counted() {
  const made: number[] = [];
  let open = 0;
  const context = new GrowingContext((tokens) => {
    made.push(tokens);
    open++;
    return Promise.resolve({
      tokens,
      dispose() {
        open--;
        return Promise.resolve();
      },
    });
  });
  return { context, made, open: () => open };
}

test('a context is made when it is needed, grows with what it is needed for, and there is one', async (t) => {
  const { context, made, open } = counted();
  t.deepEqual(made, []);
  const sizes = await Promise.all(
    [10, 600, 20, 5000].map((size) => context.use(size, ({ tokens }) => tokens)),
  );
  t.deepEqual(sizes, [512, 1024, 1024, 8192]);
  t.is(open(), 1);
  await context.dispose();
  t.is(open(), 0);
  t.is(await context.use(10, ({ tokens }) => tokens), 512);
  await context.dispose();
});

test('uses take turns, and one that fails does not stop the next', async (t) => {
  const { context } = counted();
  const order: string[] = [];
  const slow = context.use(1, async () => {
    await new Promise(setImmediate);
    order.push('slow');
    throw new Error('no');
  });
  const next = context.use(1, () => order.push('next'));
  await t.throwsAsync(slow, { message: 'no' });
  await next;
  t.deepEqual(order, ['slow', 'next']);
  await context.dispose();
});

test('the cache of a token is counted from the heads', (t) => {
  const llama = { block_count: 32, embedding_length: 4096, attention: { head_count: 32, head_count_kv: 8 } };
  t.is(kvBytesPerToken(llama), 2 * 32 * 8 * 128 * 2);
  t.is(kvBytesPerToken({ ...llama, attention: { head_count: 32 } }), 2 * 32 * 32 * 128 * 2);
  const wide = { head_count: 32, head_count_kv: 8, key_length: 256, value_length: 128 };
  t.is(kvBytesPerToken({ ...llama, attention: wide }), 32 * 8 * (256 + 128) * 2);
  const uneven = { head_count: 32, head_count_kv: [8, 0, 4], key_length: 64, value_length: 64 };
  t.is(kvBytesPerToken({ block_count: 3, attention: uneven }), 12 * 128 * 2);
});

test('a cache that holds something else is not counted', (t) => {
  const llama = { block_count: 2, embedding_length: 64, attention: { head_count: 2, head_count_kv: 2 } };
  t.is(kvBytesPerToken({}), undefined);
  t.is(kvBytesPerToken({ ...llama, ssm: {} }), undefined);
  t.is(kvBytesPerToken({ ...llama, attention: { ...llama.attention, sliding_window: 512 } }), undefined);
  t.is(kvBytesPerToken({ ...llama, attention: { ...llama.attention, kv_lora_rank: 512 } }), undefined);
});

test('the cache of a token is read off a model file before it is loaded', async (t) => {
  const file = (await fileModels.resolve('storyteller')).path;
  t.is(kvBytesOfHeader(await readGgufHeader(file)), 2 * 4 * 4 * 32 * 2);
  const { kv_bytes_per_token } = await fileModels.verify({ id: 'm', path: file, present: true });
  t.is(kv_bytes_per_token, 2 * 4 * 4 * 32 * 2);
  const header = { version: 3, architecture: 'llama', tensor_count: 0, size_bytes: 0 };
  const entries: GgufHeader['metadata'] = new Map<string, number | { element_type: number; length: number }>([
    ['llama.block_count', 80],
    ['llama.embedding_length', 4096],
    ['llama.attention.head_count', 32],
  ]);
  t.is(kvBytesOfHeader({ ...header, metadata: entries }), 2 * 80 * 4096 * 2);
  // An array of that length is stepped over, and what it says is not known.
  const uneven = new Map(entries).set('llama.attention.head_count_kv', { element_type: 4, length: 80 });
  t.is(kvBytesOfHeader({ ...header, metadata: uneven }), undefined);
  const state_space = new Map(entries).set('llama.ssm.state_size', 128);
  t.is(kvBytesOfHeader({ ...header, metadata: state_space }), undefined);
});

test('a model that is a folder takes what its files do, wherever they lie', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'taskchart-folder-'));
  mkdirSync(join(folder, 'snapshot', 'original'), { recursive: true });
  writeFileSync(join(folder, 'blob'), Buffer.alloc(1000));
  const path = join(folder, 'snapshot');
  writeFileSync(join(path, 'config.json'), '{}');
  writeFileSync(join(path, 'original', 'weights'), Buffer.alloc(50));
  symlinkSync(join(folder, 'blob'), join(path, 'model.safetensors'));
  symlinkSync(join(folder, 'gone'), join(path, 'old.safetensors'));
  const { size_bytes } = await folderModels.verify({ id: 'm', path, present: true });
  t.is(size_bytes, 1052);
});
