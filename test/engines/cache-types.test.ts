import test from 'ava';
import { cacheScale } from '../../src/engines/llamacpp/cache-types.ts';

test('a KV cache in f16 is the measure of others; keys and values count for half of it each', (t) => {
  t.is(cacheScale([]), 1);
  t.is(cacheScale(['-ctk', 'q8_0', '-ctv', 'q8_0']), 34 / 64);
  t.is(cacheScale(['--cache-type-k', 'q4_0']), (18 / 32 + 2) / 4);
  t.is(cacheScale(['--cache-type-k=f32', '--cache-type-v=f32']), 2);
  t.is(cacheScale(['-ctk', 'of-the-future']), 1);
});
