import test, { type ExecutionContext } from 'ava';
import { systemClock } from '../../src/clock.ts';
import { TaskchartError } from '../../src/errors.ts';
import { Engines, type EngineRequest } from '../../src/provisioning/engines.ts';
import type { EngineProgress } from '../../src/provisioning/step.ts';
import { fakeTools, type FakeTools } from '../helpers/fake-tools.ts';

const never = new AbortController().signal;
const SAYS = `#!/bin/sh\\necho "version: 6000 (fake)"\\n`;

/** Puts a llama-server where the package manager itself is. */
const INSTALLS = `printf '${SAYS}' > "$(dirname "$0")/llama-server"; chmod +x "$(dirname "$0")/llama-server"`;

function engines({ env }: FakeTools, offline = false): Engines {
  return new Engines({ policy: { offline, allowlist: [] }, env, clock: systemClock });
}

function named(more: object = {}): EngineRequest {
  return { mode: 'package', name: 'llama.cpp', is_allowed: true, ...more };
}

async function refusal(t: ExecutionContext, work: Promise<unknown>): Promise<string> {
  const error = await t.throwsAsync(work, { instanceOf: TaskchartError });
  t.false((error as TaskchartError).failure.retriable);
  return error?.message ?? '';
}

/** Where nobody is root, sudo goes before it; it must not ask. */
function installs(calls: readonly string[]): string[] {
  return calls.filter((call) => call.startsWith('pacman')).map((call) => call.slice('pacman '.length));
}

test('a package is installed by pacman, without a question, where the pool allows it', async (t) => {
  const tools = fakeTools();
  tools.add('pacman', INSTALLS);
  tools.add('sudo', 'shift; exec "$@"');
  const told: EngineProgress[] = [];
  const request = named({ repo: 'extra', version: '6000-1' });
  const prepared = await engines(tools).ensure(request, never, (progress) => told.push(progress));
  t.like(prepared, { mode: 'package', version: '6000 (fake)' });
  t.deepEqual(installs(tools.calls()), ['-S --noconfirm --needed extra/llama.cpp=6000-1']);
  t.true(tools.calls().every((call) => !call.startsWith('sudo') || call.startsWith('sudo -n ')));
  t.deepEqual(
    told.map(({ phase }) => phase),
    ['installing', 'prepared'],
  );
  t.deepEqual(await engines(tools, true).ensure(request, never), prepared);
  t.is(installs(tools.calls()).length, 1, 'what is there is not installed again');
});

test('nothing is installed that was not allowed, or where packages are of another kind', async (t) => {
  const tools = fakeTools();
  const ask = (more: object, offline = false): Promise<string> =>
    refusal(t, engines(tools, offline).ensure(named(more), never));
  t.regex(await ask({}), /^there is no pacman on PATH, .*; install llama\.cpp with the package manager/);
  tools.add('pacman');
  tools.add('sudo', 'shift; exec "$@"');
  t.regex(await ask({ is_allowed: false }), /provisioning\.allow_package_installs is false/);
  t.regex(await ask({}, true), /^policy\.offline forbids to install the package llama\.cpp/);
  t.deepEqual(tools.calls(), []);
  t.regex(await ask({}), /^package llama\.cpp is installed, and has no llama-server/);
  tools.add('pacman', 'echo "error: target not found: llama.cpp" >&2; exit 1');
  t.regex(await ask({}), /^package llama\.cpp could not be installed: .*target not found: llama\.cpp/);
});

test('a plan says the command, and is the same every time', (t) => {
  const tools = fakeTools();
  const steps = engines(tools).plan(named());
  t.deepEqual(
    steps.map(({ kind }) => kind),
    ['preflight-tools', 'package-install'],
  );
  t.deepEqual(steps.at(-1)?.command?.slice(-4), ['-S', '--noconfirm', '--needed', 'llama.cpp']);
  t.deepEqual(engines(tools).plan(named()), steps);
  t.deepEqual(tools.calls(), []);
});
