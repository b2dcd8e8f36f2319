import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { pino } from 'pino';
import { createOrchestrator } from '../../src/embed.ts';
import { narrate } from '../../src/observe/narrate.ts';

test('what happens to a model is told in one sentence each, without its digest', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'taskchart-catalog-'));
  const file = join(folder, 'm.gguf');
  writeFileSync(file, 'weights');
  const digest = `sha256:${createHash('sha256').update('weights').digest('hex')}`;
  const orchestrator = createOrchestrator({
    pools: [{ id: 'fast', engine: 'synthetic', model: 'synthetic' }],
    catalog: { trust_policy: { require_signature: true } },
  });
  t.teardown(async () => {
    await orchestrator.close(0);
    rmSync(folder, { recursive: true });
  });
  const lines: Record<string, unknown>[] = [];
  const sink = { write: (line: string) => void lines.push(JSON.parse(line) as (typeof lines)[0]) };
  narrate(orchestrator.core, pino({ level: 'info' }, sink));
  const { catalog } = orchestrator;
  const verify = async (): Promise<unknown> => (await catalog.verify('mine')).finished;
  const signed = [{ signer: 'me', algo: 'ed25519', verified: true }];
  await catalog.add({ id: 'mine', digest, source_url: `file:${file}` });
  await catalog.add({ id: 'mine', digest, source_url: `file:${file}`, signatures: signed });
  await verify();
  writeFileSync(file, 'others');
  await verify();
  rmSync(file);
  await verify();
  await catalog.setState('mine', 'Retired', 250);
  await catalog.setState('mine', 'Active');
  await catalog.remove('mine');
  const ours = lines.filter(({ actor }) => actor === 'catalog');
  t.deepEqual(
    ours.map(({ action, level, human }) => [action, level, human]),
    [
      ['ingest', 40, 'The catalog has model mine, which lacks what strict trust would demand.'],
      ['ingest', 30, 'The catalog has model mine.'],
      ['verify', 30, 'Model mine has the digest that it should have.'],
      ['verify', 50, 'Model mine has another digest than it should have.'],
      ['verify', 40, 'Model mine has no file here to compare.'],
      ['retire', 30, 'Model mine takes no new work; what runs has 250 ms.'],
      ['activate', 30, 'Model mine takes new work.'],
      [
        'remove',
        30,
        'The catalog forgets model mine; its files are in use, shared or were never fetched, and stay.',
      ],
    ],
  );
  for (const { model_id, target } of ours) t.deepEqual([model_id, target], ['mine', 'model']);
  t.is(ours[0]?.['decision_reason'], 'signatures: the model is not signed');
});
