import { readdirSync, readFileSync } from 'node:fs';
import test from 'ava';
import {
  handoffFile,
  parseHandoff,
  removeHandoff,
  writeHandoff,
  type Handoff,
} from '../../src/engines/handoff.ts';
import { newFolder } from './managed-rig.ts';

const handoff: Handoff = {
  engine: 'llamacpp',
  engine_version: 'b1',
  provisioning_mode: 'source',
  url: 'http://127.0.0.1:8090',
  pool_id: 'p',
  replica_id: 'p/r0',
  model: { id: 'm', path: '/m.gguf' },
  flags: ['--metrics'],
  device_mask: '0,1',
  slots_total: 2,
  slots_free: 2,
};

test('what is written is read again, and removed without a trace', async (t) => {
  const folder = newFolder();
  const file = handoffFile(folder, 'p/r0');
  await writeHandoff(file, handoff);
  t.deepEqual(readdirSync(folder), ['p-r0.json']);
  t.deepEqual(parseHandoff(readFileSync(file, 'utf8')), handoff);
  await removeHandoff(file);
  await removeHandoff(file);
  t.deepEqual(readdirSync(folder), []);
});

test('a file of another program may say less, and more', (t) => {
  const said = { engine: 'vllm', url: 'http://h:1/v1', model: { id: 'm' }, something: 'new' };
  t.deepEqual(parseHandoff(JSON.stringify(said)), {
    engine: 'vllm',
    engine_version: 'unknown',
    provisioning_mode: 'external',
    url: 'http://h:1/v1',
    pool_id: 'default',
    replica_id: 'r0',
    model: { id: 'm', path: '' },
    flags: [],
  });
});

for (const [title, change, message] of [
  ['no address', { url: undefined }, /^url: must be a string, got nothing/],
  ['an address that is none', { url: 'ftp://x' }, /^url: must be an http or https URL, got "ftp:\/\/x"/],
  ['an engine that nobody knows', { engine: 'x' }, /^engine: must be one of llamacpp, .*, got "x"/],
  ['no model', { model: 'm' }, /^model: must be an object/],
  ['a model without a name', { model: {} }, /^model\.id: must be a string/],
  ['flags in one string', { flags: '-a' }, /^flags: must be a list of strings/],
  ['half a slot', { slots_total: 0.5 }, /^slots_total: must be an integer ≥ 0, got 0.5/],
] as const)
  test(`a file is refused and the mistake named: ${title}`, (t) => {
    t.throws(() => parseHandoff(JSON.stringify({ ...handoff, ...change })), { message });
  });

test('what is no object is refused', (t) => {
  t.throws(() => parseHandoff('{'), { message: 'must be JSON' });
  t.throws(() => parseHandoff('[]'), { message: 'must be a JSON object' });
});
