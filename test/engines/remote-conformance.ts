import { createServer } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import type { TestFn } from 'ava';
import { systemClock } from '../../src/clock.ts';
import type { EngineHost } from '../../src/engines/engine.ts';
import type { FakeEngineOptions } from '../helpers/fake-engine.ts';
import { selfSigned } from '../helpers/self-signed.ts';
import { until } from '../helpers/until.ts';
import { errorOf, never, promptCall, record, recordingHost } from './conformance.ts';
import { type RemoteKind, attachRemote, failing, failureOf } from './remote-rig.ts';

export interface RemoteWays {
  /** Where a prompt is continued. */
  path: string;
  /** Where its health is asked for. */
  health: string;
  /** What its error event says. */
  error: RegExp;
  /** What a run without a last frame is; TensorRT-LLM has none, so that an end is an end. @default WORKER_RESET */
  truncated?: 'WORKER_RESET' | 'finished';
}

/** What every adapter of a server that somebody else runs has to do, whatever it speaks. */
export function remoteConformance<Options extends FakeEngineOptions>(
  test: TestFn,
  name: string,
  kind: RemoteKind<Options>,
  base: Options,
  ways: RemoteWays,
): void {
  const attach = (
    t: Parameters<typeof attachRemote>[0],
    options: Partial<Options>,
    own: Parameters<typeof attachRemote>[3] = {},
  ) => attachRemote(t, kind, { ...base, ...options }, own);
  const fail = (t: Parameters<typeof failing>[0], options: Partial<Options>) =>
    failing(t, kind, { ...base, ...options });

  for (const [chop, per_frame] of [
    [1, 1],
    [3, 1],
    [7, 2],
    [64, 3],
  ] as const) {
    test(`${name}: frames and characters may be split anywhere (${chop} bytes a chunk)`, async (t) => {
      const plain = await attach(t, {});
      await plain.engine.load(never);
      const expected = await record(plain.engine, promptCall('Once', { max_tokens: 30 }));
      t.true(expected.text.includes('🎈'));
      const options = { chop, crlf: chop % 2 === 1, pings: true, per_frame };
      const { engine } = await attach(t, options as unknown as Partial<Options>);
      await engine.load(never);
      const run = await record(engine, promptCall('Once', { max_tokens: 30 }));
      t.is(run.text, expected.text);
      t.is(run.outcome.usage.tokens_out, run.tokens);
    });
  }

  test(`${name}: the model may say that it is done before the limit`, async (t) => {
    const { engine } = await attach(t, { eos_at: 4 } as Partial<Options>);
    await engine.load(never);
    const run = await record(engine, promptCall('Once'));
    t.like(run.outcome, { kind: 'finished', reason: 'eos' });
    t.is(run.outcome.usage.tokens_out, run.tokens);
    t.is(run.tokens, 4, 'the mark at which it is done has no text, and does not count');
  });

  test(`${name}: no text of a stop string goes out`, async (t) => {
    const { engine } = await attach(t, {});
    await engine.load(never);
    const whole = await record(engine, promptCall('Once'));
    const stop = whole.deltas[4]?.text.trim() ?? '';
    const run = await record(engine, promptCall('Once', { sampling: { stop: [stop] } }));
    t.is(run.outcome.kind, 'finished');
    t.is(run.text, whole.text.slice(0, whole.text.indexOf(stop)));
    t.is(run.outcome.usage.tokens_out, run.tokens);
  });

  for (const fault of ['error_frame', 'garbage', 'odd_frame', 'cut_frame', 'truncate'] as const) {
    test(`${name}: a stream that ends by ${fault} is a WORKER_RESET, and what came before it stays`, async (t) => {
      const { engine } = await attach(t, { fault: { kind: fault, at: 3 } } as Partial<Options>);
      await engine.load(never);
      const run = await record(engine, promptCall('Once upon a time'));
      t.is(run.deltas.length, 3);
      t.is(run.outcome.usage.tokens_out, run.tokens);
      if (fault === 'truncate' && ways.truncated === 'finished') return t.is(run.outcome.kind, 'finished');
      t.like(failureOf(run), { code: 'WORKER_RESET', retriable: true });
      if (fault === 'error_frame') t.regex(failureOf(run).message, ways.error);
    });
  }

  for (const fault of ['reset', 'cut_character'] as const) {
    test(`${name}: a connection that breaks by ${fault} is a WORKER_RESET, and no loss of a server that answers`, async (t) => {
      const host = recordingHost();
      const options = { fault: { kind: fault, at: 3, streams: 1 } } as Partial<Options>;
      const { fake, engine } = await attach(t, options, { host });
      await engine.load(never);
      const asked = fake.askedFor(ways.health).length;
      const run = await record(engine, promptCall('Once upon a time'));
      t.like(failureOf(run), { code: 'WORKER_RESET', retriable: true });
      t.is(run.deltas.length, 3);
      t.false(run.text.includes('\uFFFD'));
      await until(() => fake.askedFor(ways.health).length > asked, 'the probe');
      t.is((await record(engine, promptCall('Once upon a time'))).outcome.kind, 'finished');
      t.deepEqual(host.losses, []);
    });
  }

  test(`${name}: a connection that breaks before the first token is POOL_UNAVAILABLE, and not tried again`, async (t) => {
    const { fake, engine } = await attach(t, { fault: { kind: 'reset', at: 0 } } as Partial<Options>);
    await engine.load(never);
    const asked = fake.askedFor(ways.path).length;
    const run = await record(engine, promptCall('Once upon a time'));
    t.like(failureOf(run), { code: 'POOL_UNAVAILABLE', retriable: true });
    t.is(run.deltas.length, 0);
    t.is(fake.askedFor(ways.path).length, asked + 1);
  });

  for (const [status, code] of [
    [400, 'INVALID_PARAMS'],
    [401, 'INTERNAL'],
    [403, 'INTERNAL'],
    [404, 'POOL_UNAVAILABLE'],
    [413, 'INVALID_PARAMS'],
    [422, 'INVALID_PARAMS'],
    [429, 'ADMISSION_REJECT'],
    [500, 'POOL_UNAVAILABLE'],
    [503, 'POOL_UNAVAILABLE'],
  ] as const) {
    test(`${name}: HTTP ${status} before the start is ${code}`, async (t) => {
      const body = { error: { message: 'no', type: 'x' } };
      const refuse = { status, body, headers: { 'retry-after': '2' } };
      const { failure, deltas } = await fail(t, { refuse } as unknown as Partial<Options>);
      t.is(failure.code, code);
      t.is(deltas.length, 0);
      if (status === 429) t.like(failure, { retry_after_ms: 2000, policy_label: 'engine' });
    });
  }

  test(`${name}: an overflow is the caller's, whatever status it comes with`, async (t) => {
    const body = { error: 'prompt exceeds the maximum context length of 512 tokens' };
    const { failure } = await fail(t, { refuse: { status: 500, body } } as unknown as Partial<Options>);
    t.is(failure.code, 'INVALID_PARAMS');
    t.regex(failure.message, /512/u);
  });

  test(`${name}: a page instead of a stream is named by its type`, async (t) => {
    const { failure } = await fail(t, { content_type: 'text/html' } as Partial<Options>);
    t.is(failure.code, 'POOL_UNAVAILABLE');
    t.regex(failure.message, /text\/html instead of a stream/u);
  });

  test(`${name}: what an engine quotes of the prompt is not passed on`, async (t) => {
    const secret = 'my diary of last summer, page one';
    const body = { error: { message: `bad value: ${secret} (type=str)`, type: 'x' } };
    const options = { ...base, refuse: { status: 400, body } };
    const { failure } = await failing(t, kind, options, promptCall(secret));
    t.regex(failure.message, /^The engine refused the request: bad value: …$/u);
  });

  test(`${name}: the key is sent to the server, and is in no message`, async (t) => {
    const key = 'sk-very-secret';
    const { fake, engine } = await attach(t, { api_key: key } as Partial<Options>, { api_key: key });
    await engine.load(never);
    t.is((await record(engine, promptCall('Once'))).outcome.kind, 'finished');
    t.true(fake.asked.every(({ headers }) => headers.authorization === `Bearer ${key}`));
    const wrong = await attach(t, { api_key: key } as Partial<Options>, { api_key: 'sk-wrong-one' });
    const error = errorOf(t, await t.throwsAsync(wrong.engine.load(never)));
    t.is(error.code, 'INTERNAL');
    t.false(error.message.includes('sk-w'));
    const refuse = { status: 400, body: { error: { message: `no such thing: Bearer ${key}`, type: 'x' } } };
    const echo = await attach(t, { refuse } as unknown as Partial<Options>, { api_key: key });
    await echo.engine.load(never);
    const { message } = failureOf(await record(echo.engine, promptCall('Once')));
    t.regex(message, /Bearer \*{4}[0-9a-f]{6}/u);
  });

  test(`${name}: a redirect is not followed, so that no other host sees the key`, async (t) => {
    const other = createServer((_req, res) => void res.end('{}'));
    let asked = 0;
    other.on('connection', () => asked++);
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    t.teardown(() => other.close());
    const redirect_to = `http://127.0.0.1:${(other.address() as AddressInfo).port}`;
    const lost = await attach(t, { redirect_to } as Partial<Options>, { api_key: 'k' });
    const error = errorOf(t, await t.throwsAsync(lost.engine.load(never)));
    t.regex(error.message, /307/u);
    const refuse = { status: 307, body: {}, headers: { location: `${redirect_to}/v1` } };
    const { failure } = await fail(t, { refuse } as unknown as Partial<Options>);
    t.is(failure.code, 'POOL_UNAVAILABLE');
    t.regex(failure.message, /redirect/u);
    t.is(asked, 0);
  });

  test(`${name}: loading waits for a server that is not ready, and an abort ends the wait`, async (t) => {
    const told: string[] = [];
    const host: EngineHost = { ...recordingHost(), waiting: (why) => void told.push(why) };
    const { fake, engine } = await attach(t, { loading: true } as Partial<Options>, { host });
    const abort = new AbortController();
    const given_up = engine.load(abort.signal);
    await until(() => told.length > 0);
    t.deepEqual(await engine.health(never), { live: true, ready: false });
    abort.abort();
    await t.throwsAsync(given_up, { message: 'Loading was aborted.' });
    const loading = engine.load(never);
    fake.release();
    t.is((await loading).slots_total, 2);
    t.regex(told[0] ?? '', /not ready/u);
  });

  test(`${name}: loading waits for a server that is not there yet`, async (t) => {
    const { fake } = await attach(t, {});
    await fake.kill();
    const told: string[] = [];
    const host: EngineHost = { ...recordingHost(), waiting: (why) => void told.push(why) };
    const engine = kind.create({
      clock: systemClock,
      model_id: 'story',
      slots: 2,
      ...kind.settings,
      url: fake.url,
      host,
    });
    const loading = engine.load(never);
    await until(() => told.length > 0);
    t.regex(told[0] ?? '', /ECONNREFUSED/u);
    const late = await kind.start({ ...base, port: Number(new URL(fake.url).port) });
    t.is((await loading).slots_total, 2);
    await engine.unload();
    await late.kill();
  });

  test(`${name}: what is no server of its kind fails the load at once`, async (t) => {
    const create = (url: string) =>
      kind.create({ clock: systemClock, model_id: 'story', ...kind.settings, url, host: recordingHost() });
    t.is(errorOf(t, await t.throwsAsync(create('not a url').load(never))).code, 'INVALID_PARAMS');
    const mail = createTcpServer((socket) => socket.on('error', () => undefined).write('220 ready\r\n'));
    await new Promise<void>((resolve) => mail.listen(0, '127.0.0.1', resolve));
    t.teardown(() => mail.close());
    const port = (server: { address(): unknown }) => (server.address() as AddressInfo).port;
    await t.throwsAsync(create(`http://127.0.0.1:${port(mail)}`).load(never), { message: /not HTTP/u });
    // A certificate that nobody vouches for: the key must not go there.
    const tls = createTlsServer(selfSigned(), (socket) => socket.on('error', () => undefined));
    tls.on('tlsClientError', () => undefined);
    await new Promise<void>((resolve) => tls.listen(0, '127.0.0.1', resolve));
    t.teardown(() => tls.close());
    await t.throwsAsync(create(`https://127.0.0.1:${port(tls)}`).load(never), { message: /CERT/u });
  });

  test(`${name}: a cancel closes the socket, in the middle of a stream and before its first token`, async (t) => {
    for (const hold_at of [2, 0]) {
      const { fake, engine } = await attach(t, { hold_at } as Partial<Options>);
      await engine.load(never);
      const abort = new AbortController();
      const run = record(engine, promptCall('Once', { max_tokens: 200 }), { signal: abort.signal });
      await fake.streaming(1);
      t.is(fake.busy, 1);
      abort.abort();
      t.is((await run).outcome.kind, 'aborted');
      await fake.clientLeft();
      await until(() => fake.busy === 0);
    }
  });

  test(`${name}: a stream that stands still is not given up here, that is its owner's`, async (t) => {
    const { fake, engine } = await attach(t, { hold_at: 3 } as Partial<Options>);
    await engine.load(never);
    const run = record(engine, promptCall('Once', { max_tokens: 6 }));
    await fake.streaming(1);
    t.deepEqual(await engine.health(never), { live: true, ready: true });
    fake.release();
    t.is((await run).tokens, 6);
  });

  test(`${name}: no connection is used for two requests, so none is met dead`, async (t) => {
    const { fake, engine } = await attach(t, {});
    await engine.load(never);
    await record(engine, promptCall('Once'));
    await record(engine, promptCall('Once'));
    t.true(fake.asked.every(({ headers }) => headers.connection === 'close'));
  });

  test(`${name}: the correlation id goes along`, async (t) => {
    const { fake, engine } = await attach(t, {});
    await engine.load(never);
    await record(engine, promptCall('Once', { correlation_id: 'c-1' }));
    t.is(fake.askedFor(ways.path).at(-1)?.headers['x-correlation-id'], 'c-1');
  });
}
