import test from 'ava';
import { systemClock } from '../../src/clock.ts';
import { createEngine } from '../../src/engines/create-engine.ts';
import { startFakeLlamaServer } from '../helpers/fake-llama-server.ts';
import { startFakeOpenAiServer } from '../helpers/fake-openai-server.ts';
import { startFakeTgiServer } from '../helpers/fake-tgi-server.ts';
import { startFakeTritonServer } from '../helpers/fake-triton-server.ts';
import { startFakeVllmServer } from '../helpers/fake-vllm-server.ts';
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

for (const [family, start] of Object.entries({
  vllm: startFakeVllmServer,
  tgi: startFakeTgiServer,
  triton: startFakeTritonServer,
  openai: startFakeOpenAiServer,
} as const)) {
  test(`settings become the engine they name: ${family}`, async (t) => {
    const fake = await start();
    const spec = {
      family: family as 'vllm' | 'tgi' | 'triton' | 'openai',
      url: fake.url,
      model_id: 'story',
      slots: 3,
      ctx: 256,
    };
    const engine = await createEngine(spec, recordingHost(), systemClock);
    t.is(engine.family, spec.family);
    t.like(await engine.load(never), { model_id: 'story', slots_total: 3, ctx_max: 256 });
    await engine.unload();
    await fake.kill();
  });
}
