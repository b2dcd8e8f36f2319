import test from 'ava';
import type { TaskRecord } from '../../src/actors/task-record.ts';
import { interleaved } from '../../src/http/interleave.ts';
import { preparationOf } from '../../src/http/preparation.ts';
import { until } from '../helpers/until.ts';
import { steppedServer } from './stepped-server.ts';
import { framesOf } from './wire.ts';

test('a reader that does not keep up gets the newest of what is prepared, and what it missed is counted', async (t) => {
  const server = await steppedServer({ pool: { preload: false, synthetic: { load_ms: 60_000 } } });
  t.teardown(server.close);
  const { core } = server.orchestrator;
  const id = await server.submit();
  await until(() => server.state(id) === 'provisioning' && core.pools.get('slow')?.phase === 'starting');
  let drops = 0;
  const gone = new AbortController();
  const log = core.read(id, undefined, gone.signal);
  const notes = preparationOf(core, core.record(id) as TaskRecord, () => drops++);
  const frames = interleaved(log, notes);
  const read = async (): Promise<unknown> =>
    framesOf(((await frames.next()).value as { frames: string }).frames)[0]?.data['queue_depth'];
  t.is(await read(), undefined, 'started');
  t.is(await read(), 1);
  for (const bytes_done of [1, 2, 3]) {
    await server.submit();
    core.observers.tell({
      type: 'model.progress',
      pool_id: 'slow',
      phase: 'fetching',
      bytes_done,
      bytes_total: 3,
    });
  }
  t.is(drops, 2);
  t.is(await read(), 4);
  gone.abort();
  await frames.return();
});
