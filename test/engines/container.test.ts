import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { systemClock } from '../../src/clock.ts';
import { containerCommand, type ContainerSettings } from '../../src/engines/container-command.ts';
import { createContainerEngine } from '../../src/engines/container.ts';
import { parseHandoff } from '../../src/engines/handoff.ts';
import { ensureImage, imageSteps } from '../../src/provisioning/image.ts';
import type { EngineProgress } from '../../src/provisioning/step.ts';
import { Toolbox } from '../../src/provisioning/toolbox.ts';
import { fakeTools } from '../helpers/fake-tools.ts';
import { never, promptCall, record, recordingHost } from './conformance.ts';
import { newFolder } from './managed-rig.ts';

const settings: ContainerSettings = {
  family: 'llamacpp',
  tool: '/usr/bin/podman',
  kind: 'podman',
  image: 'ghcr.io/x/y@sha256:1',
  name: 'taskchart-1-p-r0',
  model_path: '/models/m.gguf',
  model: 'm',
  slots: 2,
  ctx: 512,
  threads: 4,
  devices: [],
  flags: [],
  variables: {},
  env: { PATH: '/bin' },
};

const argsOf = (more: Partial<ContainerSettings>): string =>
  containerCommand({ ...settings, ...more }, 8090).args.join(' ');

test('a container gets a port of the loopback, its model to read, and nothing of the network', (t) => {
  const args = argsOf({});
  t.regex(args, /^run --rm --name taskchart-1-p-r0 --pull=never --security-opt=no-new-privileges /);
  t.regex(args, /--publish 127\.0\.0\.1:8090:8080 --volume \/models\/m\.gguf:\/model\/m\.gguf:ro /);
  t.regex(
    args,
    /ghcr\.io\/x\/y@sha256:1 --model \/model\/m\.gguf --host 0\.0\.0\.0 --port 8080 --parallel 2/,
  );
  t.regex(argsOf({ model_path: '/models/m-00001-of-00003.gguf' }), /--volume \/models:\/model:ro/);
});

test('podman and docker are told of GPUs in their own ways', (t) => {
  t.regex(argsOf({ devices: [0, 2] }), /--device nvidia\.com\/gpu=0 --device nvidia\.com\/gpu=2/);
  t.regex(argsOf({ devices: [0, 2], kind: 'docker' }), /--gpus "device=0,2"/);
  t.notRegex(argsOf({}), /gpu/);
});

test('values of variables are not on the command line', (t) => {
  const { args, env } = containerCommand({ ...settings, variables: { KEY: 'secret' } }, 1);
  t.regex(args.join(' '), /--env KEY /);
  t.notRegex(args.join(' '), /secret/);
  t.deepEqual(env, { PATH: '/bin', KEY: 'secret' });
});

test('each server is told its model, its context and its GPUs in its own words', (t) => {
  const folder = { model_path: '/models/org--repo', model: 'hf:org/repo', devices: [0, 1] };
  t.regex(
    argsOf({ ...folder, family: 'vllm', flags: ['--dtype', 'half'] }),
    /--volume \/models\/org--repo:\/model:ro --shm-size=2g .* --model \/model --served-model-name hf:org\/repo --host 0\.0\.0\.0 --port 8000 --max-num-seqs 2 --max-model-len 512 --tensor-parallel-size 2 --dtype half$/,
  );
  t.regex(
    argsOf({ ...folder, family: 'tgi' }),
    /--model-id \/model --hostname 0\.0\.0\.0 --port 8080 --max-input-tokens 511 --max-total-tokens 512 --num-shard 2$/,
  );
  t.regex(
    argsOf({ ...folder, family: 'triton' }),
    /--volume \/models\/org--repo:\/models\/org--repo:ro .* tritonserver --model-repository=\/models --http-port=8000$/,
  );
});

const DIGEST = `sha256:${'a'.repeat(64)}`;
const request = { image: 'ghcr.io/x/y', tag: 'server' };

async function ensure(tools: ReturnType<typeof fakeTools>, more: object = {}, offline = false) {
  const told: EngineProgress[] = [];
  const prepared = await ensureImage(
    { ...request, ...more },
    { tools: new Toolbox(tools.env), offline },
    never,
    (how) => told.push(how),
  );
  return { prepared, told };
}

test('an image is pulled once, by its digest where there is one, and a tag is warned of', async (t) => {
  const tools = fakeTools();
  const pulled = join(newFolder(), 'pulled');
  tools.add(
    'docker',
    `case "$1" in pull) touch '${pulled}';; image) [ -e '${pulled}' ] || exit 1; echo '["ghcr.io/x/y@${DIGEST}"]';; esac`,
  );
  t.like(imageSteps(request, new Toolbox(tools.env))[1], {
    command: ['docker', 'pull', 'ghcr.io/x/y:server'],
  });
  const { prepared, told } = await ensure(tools);
  t.like(prepared, { mode: 'container', kind: 'docker', image: `ghcr.io/x/y@${DIGEST}` });
  t.regex(told.at(-1)?.note ?? '', new RegExp(`tag of image ghcr.io/x/y:server .* today it is ${DIGEST}`));
  t.deepEqual((await ensure(tools, { digest: DIGEST }, true)).told, []);
  t.is(tools.calls().filter((call) => call.startsWith('docker pull')).length, 1);
});

test('podman goes before docker; without both, and without a network, it is said what is missing', async (t) => {
  const tools = fakeTools();
  await t.throwsAsync(ensure(tools), { message: /neither podman nor docker on PATH; install one/ });
  tools.add('docker');
  tools.add('podman', 'echo "Error: no such image" >&2; exit 125');
  await t.throwsAsync(ensure(tools), {
    message:
      /^image "ghcr\.io\/x\/y:server" could not be pulled: podman pull ended with code 125: Error: no such image$/,
  });
  await t.throwsAsync(ensure(tools, {}, true), { message: /policy\.offline forbids to pull it/ });
});

test('a container is swept before its start and after its end, serves in between, and is told of', async (t) => {
  t.timeout(60_000);
  const tools = fakeTools();
  const folder = newFolder();
  const model = join(newFolder(), 'm.gguf');
  mkdirSync(folder, { recursive: true });
  writeFileSync(model, 'GGUF');
  const server = fileURLToPath(new URL('../helpers/fake-llama-server.ts', import.meta.url));
  // What a container's client does: it listens on the published port, and forwards signals.
  tools.add(
    'podman',
    `[ "$1" = run ] || exit 0
     port=$(echo "$*" | sed 's/.*127.0.0.1:\\([0-9]*\\):.*/\\1/')
     exec '${process.execPath}' '${server}' --port "$port"`,
  );
  const engine = createContainerEngine({
    ...settings,
    tool: join(tools.env['PATH'] ?? '', 'podman'),
    model_path: model,
    env: tools.env,
    devices: [1],
    folder,
    pool_id: 'p',
    replica_id: 'p/r0',
    model_id: 'm',
    ports: [],
    avoid_ports: [],
    clock: systemClock,
    host: recordingHost(),
  });
  t.is((await engine.load(never)).slots_total, 2);
  t.is((await record(engine, promptCall('Once'))).outcome.kind, 'finished');
  t.like(parseHandoff(readFileSync(join(folder, 'p-r0.json'), 'utf8')), {
    provisioning_mode: 'container',
    device_mask: '1',
  });
  await engine.unload();
  t.false(existsSync(join(folder, 'p-r0.json')));
  const calls = tools.calls().map((call) => call.split(' ').slice(0, 2).join(' '));
  t.deepEqual(calls, ['podman rm', 'podman run', 'podman rm']);
});
