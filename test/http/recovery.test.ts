import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { loadConfig } from '../../src/config.ts';
import { orchestrate } from '../../src/embed.ts';
import { mountHttp } from '../../src/mount.ts';
import { openStorage } from '../../src/storage.ts';
import { SimulatedClock } from '../helpers/simulated-clock.ts';
import { until } from '../helpers/until.ts';
import { steppedServer } from './stepped-server.ts';

test('a reader that leaves while its task is still being recovered does not count as there', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'taskchart-http-'));
  const before = await steppedServer({}, await openStorage(folder));
  const id = await before.submit({ max_tokens: 2000 });
  await before.close();

  const { store, task_log } = await openStorage(folder);
  const gate = Promise.withResolvers<void>();
  const fold = store.fold.bind(store);
  store.fold = async function* () {
    await gate.promise;
    yield* fold();
  };
  const clock = new SimulatedClock();
  const config = loadConfig({
    overrides: { pools: [{ id: 'slow', engine: 'synthetic', synthetic: { first_token_ms: 60_000 } }] },
  });
  const orchestrator = orchestrate(config, { store, task_log, clock });
  const http = mountHttp(orchestrator, { clock });
  let waiting = 0;
  const server = createServer((incoming, response) => {
    response.once('close', () => waiting--);
    waiting++;
    http.handler(incoming, response);
  }).listen(0, '127.0.0.1');
  t.teardown(async () => {
    http.close();
    server.close();
    await orchestrator.close(0);
    rmSync(folder, { recursive: true, force: true });
  });
  await once(server, 'listening');
  const gone = new AbortController();
  const { port } = server.address() as AddressInfo;
  const asking = fetch(`http://127.0.0.1:${port}/v1/tasks/${id}/stream`, { signal: gone.signal });
  await until(() => waiting === 1);
  gone.abort();
  await t.throwsAsync(asking);
  await until(() => waiting === 0);
  const { core } = orchestrator;
  let attached = 0;
  core.attachReader = () => {
    attached++;
    return () => attached--;
  };
  gate.resolve();
  await orchestrator.recovered;
  let turns = 0;
  await until(() => ++turns > 50);
  t.is(core.record(id)?.id, id);
  t.is(attached, 0);
});
