import { mkdir, mkdtemp, rename, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { HandoffWatcher } from '../../src/actors/handoff-watcher.ts';
import { Observers, type Observation } from '../../src/actors/observation.ts';
import { Workers, type WorkerDescription } from '../../src/actors/workers.ts';
import { FolderOfHandoffs, isElsewhere } from '../../src/engines/handoff-folder.ts';
import { failure, TaskchartError, type Failure } from '../../src/errors.ts';
import { SimulatedClock } from '../helpers/simulated-clock.ts';
import { until } from '../helpers/until.ts';

const POLL_MS = 1000;
/** What a provisioner writes, with fields that nobody here needs. */
const PAYLOAD = {
  engine: 'llamacpp',
  engine_version: 'b9430',
  provisioning_mode: 'source',
  url: 'http://127.0.0.1:8081',
  pool_id: 'big',
  replica_id: 'r1',
  model: { id: 'm', path: '/m.gguf' },
  flags: ['-ngl', '99'],
  device_mask: '0',
  slots_total: 2,
  slots_free: 2,
};
const WORKER: WorkerDescription = {
  engine: 'llamacpp',
  engine_version: 'b9430',
  url: 'http://127.0.0.1:8081',
  pool_id: 'big',
  replica_id: 'r1',
  device_mask: '0',
  slots_total: 2,
};

interface Rig {
  dir: string;
  clock: SimulatedClock;
  workers: Workers;
  watcher: HandoffWatcher;
  /** What pools were told, as `+url` and `-url`. */
  calls: string[];
  rejected: () => string[];
  /** Writes a file; `age_s` is how long ago. */
  write(name: string, payload: unknown, age_s?: number): Promise<void>;
  /** One more look, to its end. */
  look(): Promise<void>;
}

async function rig(
  t: ExecutionContext,
  {
    refuse,
    folder = 'engines',
  }: { refuse?: (worker: WorkerDescription) => Failure | undefined; folder?: string } = {},
): Promise<Rig> {
  const parent = await mkdtemp(join(tmpdir(), 'taskchart-handoff-'));
  t.teardown(() => rm(parent, { recursive: true, force: true }));
  const dir = join(parent, folder);
  const clock = new SimulatedClock();
  const observers = new Observers();
  const seen: Observation[] = [];
  observers.add((observation) => seen.push(observation));
  const calls: string[] = [];
  const workers = new Workers({
    observers,
    knows: (pool_id) => pool_id !== 'nowhere',
    host: {
      attach(worker) {
        const cause = refuse?.(worker);
        if (cause) throw new TaskchartError(cause);
        calls.push(`+${worker.url}`);
      },
      detach: ({ url }) => void calls.push(`-${url}`),
    },
  });
  const watcher = new HandoffWatcher({
    clock,
    poll_ms: POLL_MS,
    folder: new FolderOfHandoffs(dir),
    isElsewhere,
    workers,
    observers,
  });
  watcher.start();
  t.teardown(() => watcher.stop());
  const looked = (): Promise<void> => until(() => clock.pending === 1, 'the end of a look');
  await looked();
  return {
    dir,
    clock,
    workers,
    watcher,
    calls,
    rejected: () =>
      seen.flatMap((each) =>
        each.type === 'handoff.rejected' ? [`${each.file}: ${each.failure.message}`] : [],
      ),
    async write(name, payload, age_s = 0) {
      await mkdir(dir, { recursive: true });
      const text = typeof payload === 'string' ? payload : JSON.stringify(payload);
      // As whoever writes such a file should: it is there whole, or not at all.
      await writeFile(join(dir, `${name}.new`), text);
      const at = 1_700_000_000 - age_s;
      await utimes(join(dir, `${name}.new`), at, at);
      await rename(join(dir, `${name}.new`), join(dir, name));
    },
    async look() {
      clock.advance(POLL_MS);
      await looked();
    },
  };
}

test('a folder that is not there holds nothing up, and is looked for again', async (t) => {
  const { write, look, workers, calls, rejected } = await rig(t);
  t.deepEqual(calls, []);
  await write('big.json', PAYLOAD);
  await look();
  t.deepEqual(workers.get('big', 'r1'), WORKER);
  t.deepEqual(rejected(), []);
});

test('a file that was not written again is read once, and one that says the same changes nothing', async (t) => {
  const { write, look, calls } = await rig(t);
  await write('big.json', PAYLOAD);
  await look();
  await look();
  await write('big.json', { ...PAYLOAD, slots_free: 0 }, -1);
  await look();
  t.deepEqual(calls, ['+http://127.0.0.1:8081']);
  await write('big.json', { ...PAYLOAD, url: 'http://127.0.0.1:8082' }, -2);
  await look();
  t.deepEqual(calls, ['+http://127.0.0.1:8081', '+http://127.0.0.1:8082']);
});

test('what a file leaves out is the pool default and the replica r0', async (t) => {
  const { write, look, workers } = await rig(t);
  const { engine, engine_version, url } = PAYLOAD;
  await write('llamacpp.json', { engine, engine_version, url });
  await look();
  t.deepEqual(workers.get('default', 'r0'), {
    engine: 'llamacpp',
    engine_version,
    url,
    pool_id: 'default',
    replica_id: 'r0',
  });
});

test('of two files for one place the one that was written last wins; without it the other one is back', async (t) => {
  const { dir, write, look, workers } = await rig(t);
  await write('a.json', { ...PAYLOAD, url: 'http://127.0.0.1:1' }, 5);
  await write('b.json', { ...PAYLOAD, url: 'http://127.0.0.1:2' }, 10);
  await look();
  t.is(workers.get('big', 'r1')?.url, 'http://127.0.0.1:1');
  await write('b.json', { ...PAYLOAD, url: 'http://127.0.0.1:2' }, 1);
  await look();
  t.is(workers.get('big', 'r1')?.url, 'http://127.0.0.1:2');
  await rm(join(dir, 'b.json'));
  await look();
  t.is(workers.get('big', 'r1')?.url, 'http://127.0.0.1:1');
});

test('an engine goes with its file, but not one that has registered in its place since', async (t) => {
  const { dir, write, look, workers, calls } = await rig(t);
  await write('big.json', PAYLOAD);
  await look();
  await rm(join(dir, 'big.json'));
  await look();
  t.is(workers.get('big', 'r1'), undefined);
  t.deepEqual(calls, ['+http://127.0.0.1:8081', '-http://127.0.0.1:8081']);
  await write('big.json', PAYLOAD, -1);
  await look();
  const registered = { ...WORKER, url: 'http://127.0.0.1:9' };
  await workers.bind(registered);
  await look();
  t.is(workers.get('big', 'r1'), registered);
  await rm(join(dir, 'big.json'));
  await look();
  t.is(workers.get('big', 'r1'), registered);
});

for (const [title, payload, said] of [
  ['no address', { ...PAYLOAD, url: undefined }, /^x\.json: url: is required/],
  ['no JSON', '{"url": ', /^x\.json: is not valid JSON$/],
  ['a list', '[]', /^x\.json: the body must be/],
  ['an engine of no kind', { ...PAYLOAD, engine: 'mine' }, /^x\.json: engine: must be one of/],
  [
    'an owner that is none',
    { ...PAYLOAD, owner_pid: -1 },
    /^x\.json: owner_pid: must be the id of a process$/,
  ],
  ['far too much', 'x'.repeat(70_000), /^x\.json: must have at most 65536 bytes, has 70000$/],
  [
    'a pool that there is not',
    { ...PAYLOAD, pool_id: 'nowhere' },
    /^x\.json: pool_id: there is no pool "nowhere"$/,
  ],
] as const)
  test(`a file that cannot be used is told of once, and others are bound all the same: ${title}`, async (t) => {
    const { write, look, workers, rejected } = await rig(t);
    await write('x.json', payload);
    await write('z.json', { ...PAYLOAD, replica_id: 'r2' });
    await look();
    await look();
    t.is(rejected().length, 1);
    t.regex(String(rejected()[0]), said);
    t.truthy(workers.get('big', 'r2'));
    await write('x.json', PAYLOAD, -1);
    await look();
    t.deepEqual(workers.get('big', 'r1'), WORKER);
    t.is(rejected().length, 1);
  });

test('a pool that may take it later is asked again, and told of once', async (t) => {
  let isTaken = false;
  const refuse = (): Failure | undefined =>
    isTaken ? undefined : failure('POOL_UNAVAILABLE', 'it does not answer');
  const { write, look, workers, rejected } = await rig(t, { refuse });
  await write('big.json', PAYLOAD);
  await look();
  await look();
  t.deepEqual(rejected(), ['big.json: it does not answer']);
  isTaken = true;
  await look();
  t.truthy(workers.get('big', 'r1'));
});

test('what this process starts itself is not bound, nor what a dead one has left behind', async (t) => {
  const { write, look, workers } = await rig(t);
  await write('own.json', { ...PAYLOAD, replica_id: 'own', owner_pid: process.pid });
  await write('parent.json', { ...PAYLOAD, replica_id: 'parent', owner_pid: process.ppid });
  await write('init.json', { ...PAYLOAD, replica_id: 'init', owner_pid: 1 });
  // Above every limit of a kernel: nobody has it.
  await write('dead.json', { ...PAYLOAD, replica_id: 'dead', owner_pid: 2 ** 30 });
  await look();
  const bound = ['own', 'parent', 'init', 'dead'].filter((replica_id) => workers.get('big', replica_id));
  t.deepEqual(bound, ['parent', 'init']);
});

test('nothing is said of a file that tells of an engine of this process, as its pool calls it', async (t) => {
  const { write, look, rejected } = await rig(t);
  await write('own.json', { ...PAYLOAD, replica_id: 'big/r0', owner_pid: process.pid });
  await look();
  t.deepEqual(rejected(), []);
});

test('only files are read, and only those that are called .json', async (t) => {
  const { dir, write, look, workers, rejected } = await rig(t);
  await write('r1.log', 'no JSON');
  await write('.hidden.json', 'no JSON');
  await mkdir(join(dir, 'folder.json'));
  await write('big.json', PAYLOAD);
  await look();
  t.truthy(workers.get('big', 'r1'));
  t.deepEqual(rejected(), []);
});

test('a folder that cannot be read is told of once', async (t) => {
  const { dir, look, rejected } = await rig(t);
  await writeFile(dir, 'a file');
  await look();
  await look();
  t.deepEqual(rejected(), ['.: the folder cannot be read (ENOTDIR)']);
});

test('once stopped it looks no more, and what is bound stays', async (t) => {
  const { write, look, watcher, workers, clock } = await rig(t);
  await write('big.json', PAYLOAD);
  await look();
  await watcher.stop();
  t.is(clock.pending, 0);
  t.truthy(workers.get('big', 'r1'));
});
