import test from 'ava';
import { createTgiEngine } from '../../src/engines/tgi/tgi.ts';
import type { FakeEngine } from '../helpers/fake-engine.ts';
import { type FakeTgiOptions, startFakeTgiServer } from '../helpers/fake-tgi-server.ts';
import { conformance, errorOf, never, promptCall, record } from './conformance.ts';
import { remoteConformance } from './remote-conformance.ts';
import { type RemoteKind, attachRemote, chatCall, failing, failureOf, remoteSubject } from './remote-rig.ts';

const TGI: RemoteKind<FakeTgiOptions> = { create: createTgiEngine, start: startFakeTgiServer };

conformance(test, remoteSubject(TGI, {}));
remoteConformance(
  test,
  'tgi',
  TGI,
  {},
  { path: '/generate_stream', health: '/health', error: /CUDA error/u },
);

function parametersOf(fake: FakeEngine): { stop?: string[] } {
  return (fake.askedFor('/generate_stream').at(-1)?.body['parameters'] ?? {}) as { stop?: string[] };
}

test('it says what it is', async (t) => {
  const { engine } = await attachRemote(t, TGI, {}, { slots: 500 });
  t.deepEqual(await engine.load(never), {
    engine_version: 'tgi-3.3.4',
    ctx_max: 512,
    slots_total: 128,
    model_id: 'story',
    workloads: ['completion'],
    features: {
      chat: 'native',
      grammar: false,
      json_schema: true,
      resume: true,
      tokenizer: true,
      deterministic: false,
      kv_reuse: true,
    },
  });
});

test('a server with another model than the one that is named fails the load', async (t) => {
  const { engine } = await attachRemote(t, TGI, {}, { model: 'org/other' });
  const error = errorOf(t, await t.throwsAsync(engine.load(never)));
  t.is(error.message, 'The server has the model "org/story", not "org/other".');
  const right = await attachRemote(t, TGI, {}, { model: 'org/story' });
  t.is((await right.engine.load(never)).model_id, 'story');
});

test('a greedy run has no sampler at all, for any one of them switches sampling on', async (t) => {
  const { fake, engine } = await attachRemote(t, TGI, {});
  await engine.load(never);
  await record(engine, promptCall('Once', { sampling: { top_p: 0.5, top_k: 3 }, seed: -1 }));
  t.deepEqual(fake.askedFor('/generate_stream').at(-1)?.body, {
    inputs: 'Once',
    parameters: {
      max_new_tokens: 12,
      details: true,
      return_full_text: false,
      seed: Number.MAX_SAFE_INTEGER - 1,
      do_sample: false,
    },
  });
  const sampling = { temperature: 0.7, top_p: 1, top_k: 0, repeat_penalty: 1.2 };
  await record(engine, promptCall('Once', { sampling }));
  t.deepEqual(fake.askedFor('/generate_stream').at(-1)?.body['parameters'], {
    max_new_tokens: 12,
    details: true,
    return_full_text: false,
    seed: 7,
    do_sample: true,
    temperature: 0.7,
    repetition_penalty: 1.2,
  });
});

test('what TGI does not have is refused before it is asked', async (t) => {
  const { fake, engine } = await attachRemote(t, TGI, {});
  await engine.load(never);
  const refused = [
    promptCall('Once', { sampling: { temperature: 1, min_p: 0.1 } }),
    promptCall('Once', { output: { kind: 'grammar', gbnf: 'root ::= "a"' } }),
    chatCall({ sampling: { temperature: 1, top_k: 4 } }),
    chatCall({ sampling: { repeat_penalty: 1.1 } }),
  ];
  for (const call of refused) t.is(failureOf(await record(engine, call)).code, 'INVALID_PARAMS');
  t.deepEqual(fake.askedFor('/generate_stream'), []);
  t.deepEqual(fake.askedFor('/v1/chat/completions'), []);
});

test('a schema is a grammar of the kind that it has', async (t) => {
  const { fake, engine } = await attachRemote(t, TGI, {});
  await engine.load(never);
  const schema = { type: 'object' };
  await record(engine, promptCall('Once', { output: { kind: 'json_schema', schema } }));
  t.like(parametersOf(fake), { grammar: { type: 'json', value: schema } });
});

test('errors are first frames of a 200, and mean what they say', async (t) => {
  const codes = {
    validation: 'INVALID_PARAMS',
    overloaded: 'ADMISSION_REJECT',
    generation: 'POOL_UNAVAILABLE',
  } as const;
  for (const [error_type, code] of Object.entries(codes)) {
    const { failure, deltas } = await failing(t, TGI, { first_error: { error: 'no', error_type } });
    t.is(failure.code, code);
    t.is(deltas.length, 0);
  }
});

test('a stop string that comes over several frames is held back, and more than four of them work', async (t) => {
  const { fake, engine } = await attachRemote(t, TGI, {});
  await engine.load(never);
  const whole = await record(engine, promptCall('Once'));
  const [, second = '', third = ''] = whole.deltas.map(({ text }) => text);
  const stop = ['q1', 'q2', 'q3', 'q4', second.slice(2) + third.slice(0, 2)];
  const run = await record(engine, promptCall('Once', { sampling: { stop } }));
  t.like(run.outcome, { kind: 'finished', reason: 'stop' });
  t.is(run.text, (whole.deltas[0]?.text ?? '') + second.slice(0, 2));
  t.is(parametersOf(fake).stop?.length, 4);
  // The engine does not know of it, so it has to be told that nobody wants the rest.
  await fake.clientLeft();
});

test('an input that the server does not take is named with both limits', async (t) => {
  const { engine } = await attachRemote(t, TGI, { max_input: 100 });
  await engine.load(never);
  const { code, message } = failureOf(await record(engine, promptCall('a '.repeat(200))));
  t.is(code, 'INVALID_PARAMS');
  t.is(message, 'The input is 201 tokens; the engine takes 100, and its context holds 512.');
});

test('messages go through the server’s own template, without penalties, and cannot be resumed', async (t) => {
  const { fake, engine } = await attachRemote(t, TGI, {});
  await engine.load(never);
  const run = await record(engine, chatCall());
  t.is(run.tokens, 12);
  const { body } = fake.askedFor('/v1/chat/completions').at(-1) ?? {};
  t.like(body, { temperature: 0, max_tokens: 12, stream: true });
  for (const name of ['presence_penalty', 'frequency_penalty', 'top_p']) t.false(name in (body ?? {}));
  const lost = await record(engine, chatCall({ resume: { text: run.text, tokens_out: 12 } }));
  t.like(failureOf(lost), { code: 'WORKER_RESET', retriable: true });
});

test('stop strings are held back from a conversation too', async (t) => {
  const { engine } = await attachRemote(t, TGI, {});
  await engine.load(never);
  const whole = await record(engine, chatCall());
  const stop = [whole.deltas[3]?.text.trim() ?? ''];
  const run = await record(engine, chatCall({ sampling: { stop } }));
  t.like(run.outcome, { kind: 'finished', reason: 'stop' });
  t.false(run.text.includes(stop[0] ?? ''));
});
