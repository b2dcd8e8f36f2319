import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { startProvisioner } from '../../../src/actors/provisioner.ts';
import { createOrchestrator } from '../../../src/embed.ts';
import type { ModelProgress } from '../../../src/machines/provisioner.ts';
import { taskchart } from '../../helpers/cli.ts';
import { until } from '../../helpers/until.ts';
import { createSourceRig, gguf, STORYTELLER } from './rig.ts';

const REFERENCE = 'hf:org/stories:Q8_0';

test('a pool with a model of the hub fetches it, loads it and tells a story', async (t) => {
  const { registry, cache_dir, folder } = await createSourceRig(t);
  registry.addRepository('org/stories', { 'stories-Q8_0.gguf': readFileSync(STORYTELLER) });
  const faults = [{ cut_after: 500_000 }];
  registry.fault = () => faults.shift();
  const orchestrator = createOrchestrator({
    pools: [{ id: 'stories', engine: 'llamacpp', model: REFERENCE, preload: false }],
    models: { cache_dir },
    runtime: { dir: join(folder, 'runtime') },
    hub: { endpoint: registry.url },
  });
  t.teardown(() => orchestrator.close(0));
  const task = await orchestrator.submit({ prompt: 'Once upon a time', max_tokens: 8 });
  const types = [];
  for await (const { type } of task.events()) types.push(type);
  t.is(types.filter((type) => type === 'token').length, 8);
  t.is(types.at(-1), 'end');
  t.like(await task.info(), { state: 'ended', model_ref: REFERENCE } as object);
  t.true(existsSync(join(folder, 'runtime/provenance/models.jsonl')));
});

test('the daemon takes hub and token from its environment, and its settings from the file', async (t) => {
  const { registry, cache_dir, folder } = await createSourceRig(t);
  registry.addRepository(
    'org/stories',
    { 'stories-Q8_0.gguf': readFileSync(STORYTELLER) },
    { token: 'hf_x' },
  );
  const config = join(folder, 'taskchart.yaml');
  writeFileSync(
    config,
    [
      'server: { bind_addr: "127.0.0.1:0" }',
      'models: { cache_dir: cache }',
      'policy: { allowlist: [127.0.0.1, localhost] }',
      `pools: [{ id: stories, engine: llamacpp, model: "${REFERENCE}" }]`,
    ].join('\n'),
  );
  const { child, complained, exit, printed } = taskchart(['serve', '--config', config], {
    HF_ENDPOINT: registry.url,
    HF_TOKEN: 'hf_x',
  });
  t.teardown(() => child.kill('SIGKILL'));
  const listening = /listens on (http:\/\/[\d.]+:\d+)/;
  const [, url = ''] = await Promise.any([printed(listening), complained(listening)]);
  const isReady = async () => {
    const answer = await fetch(`${url}/v1/pools/stories/health`);
    return ((await answer.json()) as { ready?: boolean }).ready;
  };
  await until(isReady);
  t.true(existsSync(join(cache_dir, 'hf/org/stories')));
  child.kill('SIGTERM');
  t.is(await exit, 0);
});

test('a pool whose model cannot be had says why, and takes no work', async (t) => {
  const { registry, cache_dir, folder } = await createSourceRig(t);
  registry.addRepository('org/stories', { 'stories-Q8_0.gguf': gguf(1000) });
  const orchestrator = createOrchestrator({
    pools: [{ id: 'stories', engine: 'llamacpp', model: REFERENCE }],
    models: { cache_dir },
    policy: { offline: true },
    runtime: { dir: join(folder, 'runtime') },
    hub: { endpoint: registry.url },
  });
  t.teardown(() => orchestrator.close(0));
  await until(
    () => orchestrator.pools()[0]?.ready === false && orchestrator.core.pools.get('stories')?.refusal,
  );
  await t.throwsAsync(orchestrator.submit({ prompt: 'Once' }), {
    message: /is not ready: model "hf:org\/stories:Q8_0" is not on this machine, and policy\.offline forbids/,
  });
  t.deepEqual(registry.seen, []);
});

test('progress comes through the provisioner, until it has been canceled', async (t) => {
  const { registry, library } = await createSourceRig(t);
  registry.addRepository('org/stories', { 'stories-Q8_0.gguf': gguf(100_000) });
  registry.fault = () => ({ stall_after: 50_000 });
  const told: ModelProgress[] = [];
  const facts: unknown[] = [];
  const cancel = startProvisioner(
    REFERENCE,
    { ...library().source(), nameOf: (model_ref) => model_ref },
    (fact) => facts.push(fact),
    (progress) => progress.type === 'model.progress' && told.push(progress),
  );
  await until(() => told.length > 0);
  t.like(told[0], { phase: 'fetching', bytes_done: 0, bytes_total: 100_000 });
  cancel();
  t.like(facts[0], { type: 'model.failed' });
  t.is(facts.length, 1);
});
