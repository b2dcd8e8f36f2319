import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { deviceMemory, hostMemory } from '../../src/engines/process/process-memory.ts';
import { fakeSmi } from '../helpers/fake-smi.ts';
import { never } from './conformance.ts';
import { managed } from './managed-rig.ts';

const MIB = 1024 ** 2;

test('the resident memory of a process follows what it holds, and one that is gone has none', async (t) => {
  const holder = spawn(process.execPath, [
    '-e',
    `globalThis.held = Buffer.alloc(${200 * MIB}, 1); console.log('held'); setInterval(() => {}, 1000);`,
  ]);
  await once(holder.stdout, 'data');
  const bytes = (await hostMemory(holder.pid ?? 0)) ?? 0;
  t.true(bytes > 200 * MIB && bytes < 1000 * MIB, String(bytes));
  const gone = once(holder, 'exit');
  holder.kill('SIGKILL');
  await gone;
  t.is(await hostMemory(holder.pid ?? 0), undefined);
});

test('what a process holds on several devices is added up; others on them do not count', async (t) => {
  const program = fakeSmi(t, '7, 1000\n70, 20\n7, 24\n8, [N/A]');
  t.is(await deviceMemory(7, program), 1024 * MIB);
  t.is(await deviceMemory(70, program), 20 * MIB);
  t.is(await deviceMemory(8, program), undefined);
  t.is(await deviceMemory(9, program), undefined);
  t.is(await deviceMemory(7, join(tmpdir(), 'there-is-no-such-program')), undefined);
});

test('a started server is measured once it is up, unless it is smaller than its model', async (t) => {
  const { engine } = managed();
  const { memory_bytes = 0 } = await engine.load(never);
  t.true(memory_bytes > 10 * MIB, String(memory_bytes));
  await engine.unload();
  const model_path = join(mkdtempSync(join(tmpdir(), 'taskchart-large-')), 'model.gguf');
  writeFileSync(model_path, 'GGUF');
  truncateSync(model_path, 1024 ** 4);
  const wrapped = managed({}, { model_path });
  t.is((await wrapped.engine.load(never)).memory_bytes, undefined);
  await wrapped.engine.unload();
});
