import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { PoolConfigInput } from '../../src/contract/generated/types.ts';
import { openStorage } from '../../src/storage.ts';
import { startTestServer, type TestServer } from '../helpers/server.ts';
import { until } from '../helpers/until.ts';
import { call, idOf } from './wire.ts';

const POOLS: PoolConfigInput[] = ['a', 'b', 'c'].map((id) => ({
  id,
  engine: 'synthetic',
  model: 'synthetic',
  slots: 2,
  queue: { capacity: 100 },
  // Nobody gets a token, so that no measured rate tells the pools apart.
  synthetic: { first_token_ms: 600_000 },
  timeouts: { first_token_ms: 600_000 },
}));

async function start(folder: string, pools: PoolConfigInput[]): Promise<TestServer> {
  const server = await startTestServer({ pools }, await openStorage(folder));
  await until(() => [...server.orchestrator.core.pools.values()].every((pool) => pool.isReady));
  return server;
}

/** Posts the tasks of these numbers. @returns the pools that they go to */
async function place(server: TestServer, numbers: readonly number[]): Promise<unknown[]> {
  const pools: unknown[] = [];
  for (const n of numbers) {
    const id = await server.submit({
      task_id: idOf(n),
      session_id: idOf(1000 + (n % 4)),
      priority: n % 3 === 0 ? 'batch' : 'interactive',
      max_tokens: 1 + n,
    });
    pools.push((await call(server, 'GET', `/v1/tasks/${id}`)).body['pool_id']);
  }
  return pools;
}

function folderOf(t: ExecutionContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'taskchart-placement-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

test('the same tasks go to the same pools, also across a restart and whatever order the pools are written in', async (t) => {
  t.timeout(60_000);
  const first = [1, 2, 3, 4, 5, 6, 7];
  const second = [8, 9, 10, 11, 12, 13, 14];
  const steady = await start(folderOf(t), POOLS);
  const before = await place(steady, first);
  const after = await place(steady, second);
  await steady.close();
  t.is(new Set(before).size, 3, 'all pools are used');

  const folder = folderOf(t);
  const stopped = await start(folder, POOLS.toReversed());
  t.deepEqual(await place(stopped, first), before);
  await stopped.close();
  const again = await start(folder, POOLS);
  t.teardown(again.close);
  for (const [i, n] of first.entries())
    t.is((await call(again, 'GET', `/v1/tasks/${idOf(n)}`)).body['pool_id'], before[i]);
  t.deepEqual(await place(again, second), after);
});
