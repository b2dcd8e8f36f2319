import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { ExecutionContext } from 'ava';
import { systemClock } from '../../src/clock.ts';
import type { Engine, EngineCall, EngineHost } from '../../src/engines/engine.ts';
import type { RemoteOptions } from '../../src/engines/remote-engine.ts';
import type { Failure } from '../../src/errors.ts';
import type { FakeEngine, FakeEngineOptions } from '../helpers/fake-engine.ts';
import { type Recorded, type Subject, never, promptCall, record, recordingHost } from './conformance.ts';

export interface RemoteKind<Options extends FakeEngineOptions> {
  create(options: RemoteOptions): Engine;
  start(options: Options): Promise<FakeEngine>;
  /** What the engine is configured with. */
  settings?: Partial<RemoteOptions>;
}

const CLOCK = { clock: systemClock, model_id: 'story', slots: 2 };

/** The engine over its fake, for the suites. */
export function remoteSubject<Options extends FakeEngineOptions>(
  { create, start, settings }: RemoteKind<Options>,
  options: Options,
): Subject {
  return {
    reloads: false,
    async start(kind, host) {
      if (kind === 'unloadable') {
        const other = createServer((_req, res) => void res.writeHead(404).end());
        await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
        const url = `http://127.0.0.1:${(other.address() as AddressInfo).port}`;
        const engine = create({ ...CLOCK, ...settings, url, host });
        return { engine, crash: () => undefined, close: () => void other.close() };
      }
      const fake = await start(kind === 'crashing' ? { ...options, hold_at: 3 } : options);
      const engine = create({ ...CLOCK, ...settings, url: fake.url, host });
      return { engine, crash: () => fake.kill(), close: () => fake.kill() };
    },
  };
}

/** An engine over a fake of its own, both gone after the test. */
export async function attachRemote<Options extends FakeEngineOptions>(
  t: ExecutionContext,
  { create, start, settings }: RemoteKind<Options>,
  options: Options,
  { host = recordingHost(), ...own }: { host?: EngineHost } & Partial<RemoteOptions> = {},
): Promise<{ fake: FakeEngine; engine: Engine }> {
  const fake = await start(options);
  const engine = create({ ...CLOCK, ...settings, url: fake.url, host, ...own });
  t.teardown(async () => {
    await engine.unload();
    await fake.kill();
  });
  return { fake, engine };
}

export function chatCall(extra: Partial<EngineCall> = {}): EngineCall {
  const messages = [{ role: 'user' as const, content: 'Tell me a story.' }];
  return { ...promptCall(''), input: { kind: 'chat', messages }, ...extra };
}

export function failureOf({ outcome }: Pick<Recorded, 'outcome'>): Failure {
  if (outcome.kind !== 'failed') throw new Error(`expected a failure, got ${outcome.kind}`);
  if (outcome.failure.message.includes('\n')) throw new Error('a message has several lines');
  return outcome.failure;
}

/** Loads, runs a call that fails, and tells how. */
export async function failing<Options extends FakeEngineOptions>(
  t: ExecutionContext,
  kind: RemoteKind<Options>,
  options: Options,
  call: EngineCall = promptCall('Once upon a time'),
): Promise<Recorded & { failure: Failure; fake: FakeEngine }> {
  const { fake, engine } = await attachRemote(t, kind, options);
  await engine.load(never);
  const run = await record(engine, call);
  return { ...run, failure: failureOf(run), fake };
}
