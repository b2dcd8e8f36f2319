import test from 'ava';
import { serverArguments } from '../../src/engines/llamacpp/server-flags.ts';

const settings = { model_path: '/m.gguf', host: '127.0.0.1', port: 8090, slots: 2, ctx: 256, threads: 3 };

test('the slots share nothing: the context is that of one slot, times the slots', (t) => {
  t.deepEqual(serverArguments({ ...settings, flags: [] }), [
    '--model',
    '/m.gguf',
    '--host',
    '127.0.0.1',
    '--port',
    '8090',
    '--parallel',
    '2',
    '--ctx-size',
    '512',
    '--threads',
    '3',
    '--no-webui',
    '--metrics',
  ]);
});

test('one slot has the deterministic profile', (t) => {
  const args = serverArguments({ ...settings, slots: 1, ctx: undefined, flags: [] });
  t.deepEqual(args.slice(6), [
    '--parallel',
    '1',
    '--threads',
    '3',
    '--no-cont-batching',
    '--no-webui',
    '--metrics',
  ]);
});

for (const [written, normal] of [
  [
    ['-ngl', '7'],
    ['--n-gpu-layers', '7'],
  ],
  [
    ['--ngl', '7'],
    ['--n-gpu-layers', '7'],
  ],
  [['--gpu-layers=7'], ['--n-gpu-layers', '7']],
  [
    ['--n-gpu-layers', '-1'],
    ['--n-gpu-layers', '-1'],
  ],
  [
    ['-ngl', '7', '--gpu-layers', '9'],
    ['--n-gpu-layers', '9'],
  ],
  [
    ['-ts', '3,1', '-fa', 'on'],
    ['--flash-attn', 'on', '--tensor-split', '3,1'],
  ],
  [['--no-ui'], []],
  [
    ['--lora', 'a', '--lora', 'b'],
    ['--lora', 'a', '--lora', 'b'],
  ],
  [
    ['--lora-scaled', 'a', '0.5'],
    ['--lora-scaled', 'a', '0.5'],
  ],
] as const)
  test(`flags have one spelling, one place and one value: ${written.join(' ')}`, (t) => {
    const plain = serverArguments({ ...settings, flags: [] });
    t.deepEqual(serverArguments({ ...settings, flags: written }), [...plain, ...normal]);
  });

for (const spelling of ['-c', '--ctx', '--context', '--ctx-size'])
  test(`${spelling} takes the place of the context that the model would have`, (t) => {
    const args = serverArguments({ ...settings, ctx: 64, flags: [spelling, '4096'] });
    t.is(args.filter((arg) => arg === '--ctx-size').length, 1);
    t.is(args[args.indexOf('--ctx-size') + 1], '4096');
  });
