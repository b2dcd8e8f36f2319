import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { createEmbeddedLlamaEngine } from '../../src/engines/llamacpp/embedded.ts';
import { conformance, errorOf, never, promptCall, record, recordingHost } from './conformance.ts';
import { failureOf, recordResults } from './vectors-conformance.ts';

const MODEL = fileURLToPath(new URL('../../models/storyteller/storyteller.gguf', import.meta.url));
const CHILD = fileURLToPath(new URL('../../src/engines/llamacpp/embedded-child.ts', import.meta.url));
const OPTIONS = { model_path: MODEL, model_id: 'storyteller', slots: 2, ctx: 256 };

function kill(pid: number | undefined): void {
  if (pid === undefined) throw new Error('there is no child to kill');
  process.kill(pid, 'SIGKILL');
}

conformance(test, {
  reloads: true,
  start(kind, host) {
    const model_path = kind === 'unloadable' ? `${MODEL}.missing` : MODEL;
    const engine = createEmbeddedLlamaEngine({ ...OPTIONS, model_path, host });
    return Promise.resolve({ engine, crash: () => kill(engine.pid), close: () => undefined });
  },
});

async function loaded(
  t: ExecutionContext,
  options: Partial<typeof OPTIONS> & { reuse_prefix?: boolean } = {},
) {
  const engine = createEmbeddedLlamaEngine({ ...OPTIONS, ...options, host: recordingHost() });
  t.teardown(() => engine.unload());
  return { engine, properties: await engine.load(never) };
}

test.serial('it says what it is', async (t) => {
  const { engine, properties } = await loaded(t);
  t.is(engine.family, 'llamacpp');
  t.regex(properties.engine_version, /^llama\.cpp-v\S+\+node-llama-cpp-\S+$/u);
  t.regex(properties.model_digest ?? '', /^sha256:[0-9a-f]{64}$/u);
  t.like(properties, { ctx_max: 256, slots_total: 2, model_id: 'storyteller' });
  t.true((properties.memory_bytes ?? 0) > 0);
  t.deepEqual(properties.workloads, ['completion', 'embedding']);
  // Four layers with four heads of 32 numbers, keys and values, two bytes each.
  t.is(properties.kv_bytes_per_token, 2 * 4 * 4 * 32 * 2);
});

test.serial('a file that is no model is refused with one line, and leaves no process', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'taskchart-'));
  t.teardown(() => rm(folder, { recursive: true }));
  const notes = join(folder, 'notes.gguf');
  const broken = join(folder, 'broken.gguf');
  await writeFile(notes, 'not a model');
  await writeFile(broken, Buffer.concat([Buffer.from('GGUF'), Buffer.alloc(64, 0xff)]));
  for (const model_path of [notes, broken]) {
    const engine = createEmbeddedLlamaEngine({ ...OPTIONS, model_path, host: recordingHost() });
    const error = errorOf(t, await t.throwsAsync(engine.load(never)));
    t.is(error.code, 'POOL_UNAVAILABLE');
    t.false(error.message.includes('\n') || error.message.includes(folder));
    t.is(engine.pid, undefined);
  }
});

test.serial('a child that dies while it loads rejects the load', async (t) => {
  const host = recordingHost();
  const engine = createEmbeddedLlamaEngine({ ...OPTIONS, host });
  const loading = engine.load(never);
  kill(engine.pid);
  const error = errorOf(t, await t.throwsAsync(loading));
  t.regex(error.message, /SIGKILL/u);
  t.deepEqual(host.losses, []);
});

test.serial('an abort or an unload ends the loading and the child', async (t) => {
  const engine = createEmbeddedLlamaEngine({ ...OPTIONS, host: recordingHost() });
  const abort = new AbortController();
  const loading = engine.load(abort.signal);
  abort.abort();
  await t.throwsAsync(loading, { message: 'Loading was aborted.' });
  t.is(engine.pid, undefined);
  const again = engine.load(never);
  const unloading = engine.unload();
  await t.throwsAsync(again, { message: 'Unloaded while loading.' });
  await unloading;
  t.is(engine.pid, undefined);
});

test.serial('a child without a parent ends by itself', async (t) => {
  const child = fork(CHILD, [], { execArgv: [], stdio: 'ignore' });
  const exited = once(child, 'exit');
  child.send({ type: 'load', options: OPTIONS });
  const [first] = (await once(child, 'message')) as [{ type: string }];
  t.true(['loading', 'loaded'].includes(first.type));
  child.disconnect();
  t.deepEqual(await exited, [null, 'SIGKILL']);
});

test.serial('a killed child is told with its signal', async (t) => {
  const host = recordingHost();
  const engine = createEmbeddedLlamaEngine({ ...OPTIONS, host });
  t.teardown(() => engine.unload());
  await engine.load(never);
  kill(engine.pid);
  t.like(await host.firstLoss, { signal: 'SIGKILL' });
  t.is((await record(engine, promptCall('Once'))).outcome.kind, 'failed');
});

test.serial('it keeps to its slots', async (t) => {
  const { engine } = await loaded(t, { slots: 1 });
  const [first, second] = await Promise.all([
    record(engine, promptCall('Once', { max_tokens: 30 })),
    record(engine, promptCall('Once')),
  ]);
  t.is(first.outcome.kind, 'finished');
  t.is(second.outcome.kind === 'failed' && second.outcome.failure.code, 'REPLICA_EXHAUSTED');
});

test.serial('one slot gives the same bytes whatever ran before, and several do not promise it', async (t) => {
  const { engine, properties } = await loaded(t, { slots: 1 });
  t.true(properties.features.deterministic);
  const calls = [0, 1].map((temperature) =>
    promptCall('Once upon a time', { max_tokens: 60, sampling: { temperature } }),
  );
  const first: string[] = [];
  for (const call of calls) first.push((await record(engine, call)).text);
  await record(engine, promptCall('a dog and a cat '.repeat(20), { max_tokens: 30, seed: 3 }));
  await recordResults(engine, 'embedding', ['a dog', 'the moon']);
  for (const [i, call] of calls.entries()) t.is((await record(engine, call)).text, first[i] ?? '');
  const { properties: several } = await loaded(t, { slots: 2 });
  t.false(several.features.deterministic);
  const { properties: warm } = await loaded(t, { slots: 1, reuse_prefix: true });
  t.like(warm.features, { deterministic: false, kv_reuse: true });
});

test.serial('sampled text follows the seed', async (t) => {
  const { engine } = await loaded(t);
  const call = (seed: number) =>
    promptCall('Once upon a time', {
      seed,
      max_tokens: 40,
      sampling: { temperature: 1, repeat_penalty: 1.1 },
    });
  const first = await record(engine, call(1));
  t.is((await record(engine, call(1))).text, first.text);
  t.not((await record(engine, call(2))).text, first.text);
});

test.serial('a stop string ends the output before it', async (t) => {
  const { engine } = await loaded(t);
  const whole = await record(engine, promptCall('Once upon a time', { max_tokens: 20 }));
  const stop = whole.text.slice(6, 12);
  const run = await record(
    engine,
    promptCall('Once upon a time', { max_tokens: 20, sampling: { stop: [stop] } }),
  );
  t.is(run.outcome.kind === 'finished' && run.outcome.reason, 'stop');
  t.is(run.text, whole.text.slice(0, whole.text.indexOf(stop)));
  t.is(run.tokens, run.outcome.usage.tokens_out);
});

test.serial('a grammar and a schema bind the output, and a bad one is refused', async (t) => {
  const { engine } = await loaded(t);
  const gbnf = 'root ::= "yes" | "no"';
  const answer = await record(engine, promptCall('Is it?', { output: { kind: 'grammar', gbnf } }));
  t.true(['yes', 'no'].includes(answer.text));
  t.true(
    answer.deltas.every(({ text }) => text !== ''),
    'the mark at the end is no output',
  );
  t.is(answer.outcome.usage.tokens_out, answer.tokens);
  t.is(answer.outcome.kind === 'finished' && answer.outcome.reason, 'eos');
  const schema = { type: 'object', properties: { happy: { type: 'boolean' } } };
  const object = await record(
    engine,
    promptCall('JSON:', { max_tokens: 100, output: { kind: 'json_schema', schema } }),
  );
  t.is(typeof (JSON.parse(object.text) as { happy: unknown }).happy, 'boolean');
  const bad = await record(engine, promptCall('x', { output: { kind: 'grammar', gbnf: 'root ::= (' } }));
  t.is(bad.outcome.kind === 'failed' && bad.outcome.failure.code, 'INVALID_PARAMS');
  const resume = { text: 'y', tokens_out: 1 };
  const resumed = await record(engine, promptCall('x', { resume, output: { kind: 'grammar', gbnf } }));
  t.is(resumed.outcome.kind === 'failed' && resumed.outcome.failure.code, 'INVALID_PARAMS');
});

test.serial('the output of a schema is JSON and nothing else', async (t) => {
  const { engine } = await loaded(t);
  const schema = { anyOf: [{ const: 'yes' }, { enum: ['no', null] }] };
  const run = await record(engine, promptCall('Is it?', { output: { kind: 'json_schema', schema } }));
  t.true(['"yes"', '"no"', 'null'].includes(run.text));
  t.is(run.outcome.kind === 'finished' && run.outcome.reason, 'eos');
});

test.serial('a constraint that cannot be read or goes too deep is refused, and harms nobody', async (t) => {
  const { engine } = await loaded(t);
  const running = record(engine, promptCall('Once', { max_tokens: 150 }));
  let arrays: object = { type: 'boolean' };
  let choices: object = { type: 'boolean' };
  for (let depth = 0; depth < 20_000; depth++) {
    arrays = { type: 'array', items: arrays };
    choices = { oneOf: [choices] };
  }
  const grammars = [
    '',
    'x ::= "a"',
    'root ::= root "a"',
    'root ::= other',
    `root ::= ${'('.repeat(100_000)}"a"${')'.repeat(100_000)}`,
    `root ::= r0\n${Array.from({ length: 100_000 }, (_, i) => `r${i} ::= r${i + 1}`).join('\n')}`,
  ];
  for (const gbnf of grammars) {
    const run = await record(engine, promptCall('x', { output: { kind: 'grammar', gbnf } }));
    t.is(failureOf(t, run).code, 'INVALID_PARAMS');
    t.regex(failureOf(t, run).message, /`grammar`/u);
  }
  const schemas = [arrays, choices, { type: 'string', pattern: 'a' }, { type: 'bool' }];
  for (const schema of schemas) {
    const run = await record(engine, promptCall('x', { output: { kind: 'json_schema', schema } }));
    t.is(failureOf(t, run).code, 'INVALID_PARAMS');
    t.regex(failureOf(t, run).message, /`json_schema/u);
  }
  t.is((await running).outcome.kind, 'finished');
});

test.serial('characters of many bytes arrive whole', async (t) => {
  const { engine } = await loaded(t);
  const gbnf = 'root ::= "🐻 ünd 日本語 🎈"';
  const run = await record(engine, promptCall('x', { max_tokens: 100, output: { kind: 'grammar', gbnf } }));
  t.is(run.text, '🐻 ünd 日本語 🎈');
  t.true(run.deltas.every((delta) => !delta.text.includes('\uFFFD')));
  t.is(run.tokens, run.outcome.usage.tokens_out);
});

test.serial('the prefix is decoded anew unless asked otherwise', async (t) => {
  const { engine } = await loaded(t, { slots: 1 });
  await record(engine, promptCall('Once upon a time'));
  t.is((await record(engine, promptCall('Once upon a time'))).outcome.usage.tokens_cached, 0);
  const { engine: warm } = await loaded(t, { slots: 1, reuse_prefix: true });
  await record(warm, promptCall('Once upon a time'));
  const { usage } = (await record(warm, promptCall('Once upon a time'))).outcome;
  t.is(usage.tokens_cached, usage.tokens_in - 1);
});
