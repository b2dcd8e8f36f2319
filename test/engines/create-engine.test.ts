import test from 'ava';
import { systemClock } from '../../src/clock.ts';
import { createEngine } from '../../src/engines/create-engine.ts';
import { startFakeLlamaServer } from '../helpers/fake-llama-server.ts';
import { never, recordingHost } from './conformance.ts';

test('settings become the engine they name', async (t) => {
  const made_up = await createEngine(
    { family: 'synthetic', model_id: 'm', slots: 3, ctx: 64 },
    recordingHost(),
    systemClock,
  );
  t.is(made_up.family, 'synthetic');
  t.is((await made_up.load(never)).slots_total, 3);

  const embedded = await createEngine(
    { family: 'llamacpp', mode: 'embedded', model_path: 'missing.gguf', model_id: 'm', slots: 1 },
    recordingHost(),
    systemClock,
  );
  await t.throwsAsync(embedded.load(never), { message: 'The model file missing.gguf cannot be opened.' });

  const fake = await startFakeLlamaServer({ slots: 4 });
  const external = await createEngine(
    { family: 'llamacpp', mode: 'external', url: fake.url, model_id: 'm' },
    recordingHost(),
    systemClock,
  );
  t.like(await external.load(never), { model_id: 'm', slots_total: 4 });
  await external.unload();
  await fake.kill();
});
