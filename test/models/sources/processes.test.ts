import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { until } from '../../helpers/until.ts';
import { createSourceRig, gguf, provisionWith, type SourceRig } from './rig.ts';

const PROGRAM = fileURLToPath(new URL('fetching-program.ts', import.meta.url));
const SIZE = 300_000;
const MODEL = gguf(SIZE);
const REFERENCE = 'hf:org/repo/a.gguf';

function start(t: ExecutionContext, { cache_dir, registry }: SourceRig) {
  const child = spawn(process.execPath, [PROGRAM, REFERENCE, cache_dir, registry.url], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (said += text));
  const exit = once(child, 'close');
  return {
    child,
    exit,
    said: () => said,
    isDone: () => said.includes('{'),
    async end() {
      child.stdin.end();
      await exit;
    },
  };
}

async function withRegistry(t: ExecutionContext) {
  const rig = await createSourceRig(t);
  const commit = rig.registry.addRepository('org/repo', { 'a.gguf': MODEL });
  const part = join(rig.cache_dir, 'hf/org/repo', commit, 'a.gguf.part');
  return { ...rig, partSize: () => statSync(part, { throwIfNoEntry: false })?.size };
}

test('after kill -9 in the middle the next process goes on where it was', async (t) => {
  const rig = await withRegistry(t);
  let requests = 0;
  rig.registry.fault = () => (requests++ === 0 ? { stall_after: SIZE / 3 } : undefined);
  const first = start(t, rig);
  await until(() => rig.partSize() === SIZE / 3);
  first.child.kill('SIGKILL');
  await first.exit;
  const model = await rig.provision(REFERENCE);
  t.deepEqual(readFileSync(model.path), MODEL);
  t.deepEqual(rig.registry.offsets(), [0, SIZE / 3]);
  t.is(model.verification, 'pass');
});

test('two processes at once fetch it once, and the one that waits tells how far the other is', async (t) => {
  const rig = await withRegistry(t);
  let requests = 0;
  rig.registry.fault = () => (requests++ === 0 ? { stall_after: SIZE / 3 } : undefined);
  const [first, second] = [start(t, rig), start(t, rig)];
  await until(() => [first, second].some(({ said }) => said().includes(`waiting ${SIZE / 3}`)));
  // Whoever waits takes over when the other dies.
  const [waiting, fetching] = first.said().includes('waiting') ? [first, second] : [second, first];
  t.is(rig.registry.requests('storage').length, 1);
  fetching.child.kill('SIGKILL');
  await until(() => waiting.isDone());
  t.deepEqual(rig.registry.offsets(), [0, SIZE / 3]);

  // A third one finds it there.
  const third = start(t, rig);
  await until(() => third.isDone());
  t.is(rig.registry.requests('storage').length, 2);
  await Promise.all([waiting.end(), third.end()]);
});

test('what another process uses is not evicted, until it is over, however that ends', async (t) => {
  const rig = await withRegistry(t);
  const user = start(t, rig);
  await until(() => user.isDone());
  rig.registry.addRepository('org/new', { 'b.gguf': gguf(SIZE, 2) });
  const library = () => rig.library({ max_bytes: SIZE });
  await t.throwsAsync(provisionWith(library(), 'hf:org/new/b.gguf'), {
    message: /is taken up by models in use/,
  });
  user.child.kill('SIGKILL');
  await user.exit;
  t.is((await provisionWith(library(), 'hf:org/new/b.gguf')).verification, 'pass');
});
