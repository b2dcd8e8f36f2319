import test from 'ava';
import type { EngineCall } from '../../src/engines/engine.ts';
import { failure } from '../../src/errors.ts';
import type { LogEvent } from '../../src/streams/task-log.ts';
import { until } from '../helpers/until.ts';
import { createRig, settle, typesOf, type Rig, type RigOptions } from './rig.ts';
import type { ScriptedEngine, ScriptedRun } from './scripted-engine.ts';

/** An engine that does the same again, one that goes on after a text, one that can do either, and one that can neither. */
const CAN = {
  replay: { deterministic: true },
  resume: { resume: true },
  both: { deterministic: true, resume: true },
  neither: {},
} as const;

async function start(can: keyof typeof CAN, options: RigOptions = {}): Promise<Rig> {
  const rig = createRig({ ...options, engine: (engine) => (engine.features = CAN[can]) });
  await rig.ready();
  return rig;
}

/** The engine dies, and is back. */
async function crash(rig: Rig, engine: ScriptedEngine = rig.engine): Promise<void> {
  engine.crash();
  await until(() => rig.pool.snapshot.value === 'starting');
  await settle();
  for (let time = 0; time < 10 && !rig.pool.isReady; time++) {
    rig.clock.advance(8000);
    await settle();
  }
  await rig.ready();
}

function textOf(events: readonly LogEvent[]): string {
  return events.map((event) => (event.type === 'token' ? event.data.t : '')).join('');
}

function indicesOf(events: readonly LogEvent[]): number[] {
  return events.flatMap((event) => (event.type === 'token' ? [event.data.i] : []));
}

const whole = (tokens: number): string => Array.from({ length: tokens }, (_, i) => ` s${i}`).join('');

async function over(rig: Rig, id: string): Promise<readonly LogEvent[]> {
  await until(() => ['ended', 'error'].includes(rig.record(id).state));
  await settle();
  return rig.log(id);
}

function finish(run: ScriptedRun, tokens: number): void {
  run.token(tokens);
  run.finish();
}

test('replay: after a crash the stream goes on with the next index, as if nothing had happened', async (t) => {
  const rig = await start('replay');
  t.teardown(rig.close);
  const id = (await rig.submit()).task_id;
  (await rig.runOf(id)).token(3);
  await crash(rig);
  const run = await rig.runOf(id);
  t.is(run.call.resume, undefined);
  t.is(run.call.max_tokens, 8);
  t.is(run.call.seed, rig.record(id).seed);
  run.token(3);
  t.is(textOf(await rig.log(id)), whole(3), 'what readers have is held back');
  finish(run, 2);
  const log = await over(rig, id);
  t.is(textOf(log), whole(5));
  t.deepEqual(indicesOf(log), [0, 1, 2, 3, 4]);
  t.like(log.at(-1), { type: 'end', data: { tokens_out: 5, finish_reason: 'eos' } });
  const types = typesOf(log);
  const resumed = log.flatMap(({ id, data }) => ('resumed' in data ? [id] : []));
  t.is(resumed.length, 1);
  t.deepEqual(
    log.slice(resumed[0]).flatMap((event) => (event.type === 'token' ? [event.data.i] : [])),
    [3, 4],
    'it is told between what was and what is new',
  );
  t.is(types.filter((type) => type === 'started').length, 1);
});

test('resume: the engine is given the text and asked for what is left of max_tokens', async (t) => {
  const rig = await start('resume');
  t.teardown(rig.close);
  const id = (await rig.submit()).task_id;
  (await rig.runOf(id)).token(3);
  await crash(rig);
  const run = await rig.runOf(id);
  t.deepEqual(run.call.resume, { text: whole(3), tokens_out: 3 });
  t.is(run.call.max_tokens, 5);
  run.token(1);
  t.is(textOf(await rig.log(id)), whole(4), 'the first token of it is new already');
  await crash(rig);
  const third = await rig.runOf(id);
  t.deepEqual(third.call.resume, { text: whole(4), tokens_out: 4 });
  finish(third, 2);
  const log = await over(rig, id);
  t.is(textOf(log), whole(6));
  t.deepEqual(indicesOf(log), [0, 1, 2, 3, 4, 5]);
  t.like(log.at(-1), { type: 'end', data: { tokens_out: 6 } });
  t.is(log.filter(({ data }) => 'resumed' in data).length, 2);
});

test('resume: a crash exactly after the last token needs no engine to finish, and counts no token twice', async (t) => {
  const rig = await start('resume', {
    settings: {
      sessions: {
        ttl_ms: 600_000,
        max_turns: null,
        budgets: { tokens: 100, time_ms: null, cost: null },
        cost_per_output_token: 0,
      },
    },
  });
  t.teardown(rig.close);
  const { task_id: id, session_id } = await rig.submit({ max_tokens: 4 });
  (await rig.runOf(id)).token(4);
  await crash(rig);
  const log = await over(rig, id);
  t.is(rig.engine.calls.length, 1);
  t.is(textOf(log), whole(4));
  t.like(log.at(-1), { type: 'end', data: { tokens_out: 4, finish_reason: 'limit' } });
  t.is(rig.record(id).context.usage.tokens_out, 4);
  t.is(rig.pool.rates.tokens_out, undefined, 'nothing was measured');
  t.is(rig.pool.leases, 0);
  t.true((rig.orchestrator.sessions.info(session_id as string).tokens_budget_remaining ?? 0) >= 96);
});

test('replay: a crash exactly after the last token says everything again, and only the end is new', async (t) => {
  const rig = await start('replay');
  t.teardown(rig.close);
  const id = (await rig.submit({ max_tokens: 4 })).task_id;
  (await rig.runOf(id)).token(4);
  await crash(rig);
  finish(await rig.runOf(id), 4);
  const log = await over(rig, id);
  t.is(textOf(log), whole(4));
  t.like(log.at(-1), { type: 'end', data: { tokens_out: 4 } });
});

test('replay: a crash while it still says again what readers have loses nothing, and counts nothing twice', async (t) => {
  const rig = await start('replay');
  t.teardown(rig.close);
  const id = (await rig.submit()).task_id;
  (await rig.runOf(id)).token(5);
  await crash(rig);
  (await rig.runOf(id)).token(2);
  await crash(rig);
  t.is(rig.record(id).context.usage.tokens_out, 5, 'what was written stays counted');
  finish(await rig.runOf(id), 7);
  const log = await over(rig, id);
  t.is(textOf(log), whole(7));
  t.deepEqual(indicesOf(log), [0, 1, 2, 3, 4, 5, 6]);
  t.like(log.at(-1), { type: 'end', data: { tokens_out: 7 } });
});

for (const how of ['cancel', 'deadline', 'watchdog'] as const)
  test(`replay: a ${how} while it still says everything again ends it with what readers have`, async (t) => {
    const rig = await start('replay', { rules: { idle_ms: 5000 } });
    t.teardown(rig.close);
    const id = (await rig.submit({ deadline_ms: 60_000 })).task_id;
    (await rig.runOf(id)).token(5);
    await crash(rig);
    const run = await rig.runOf(id);
    run.token(2);
    if (how === 'cancel') await rig.orchestrator.cancel(id);
    const seconds = how === 'deadline' ? 60 : 0;
    for (let second = 0; second < seconds; second++) {
      rig.clock.advance(1000);
      run.progress();
    }
    if (how === 'watchdog') rig.clock.advance(5000);
    run.token(10);
    const log = await over(rig, id);
    t.is(textOf(log), whole(5));
    t.is(rig.record(id).context.usage.tokens_out, 5);
    if (how === 'cancel') t.like(log.at(-1), { type: 'end', data: { canceled: true, tokens_out: 5 } });
    else t.like(log.at(-1)?.data, { code: how === 'deadline' ? 'DEADLINE_UNMET' : 'DECODE_TIMEOUT' });
    await until(() => rig.pool.leases === 0);
  });

test('replay: a run that says something else ends the task, and nothing of it is written', async (t) => {
  const rig = await start('replay');
  t.teardown(rig.close);
  for (const text of [' s1', ' s0 sx', ' s0 s1 s']) {
    const id = (await rig.submit()).task_id;
    (await rig.runOf(id)).token(3);
    await crash(rig);
    const run = await rig.runOf(id);
    run.say(text);
    run.say(' and more');
    if (text === ' s0 s1 s') run.say('');
    run.finish();
    const log = await over(rig, id);
    t.is(textOf(log), whole(3));
    t.like(log.at(-1), { type: 'error', data: { code: 'WORKER_RESET', retriable: true } });
    t.is(rig.record(id).context.usage.tokens_out, 3);
    await until(() => rig.pool.leases === 0);
  }
});

test('replay: a run that ends before it has said everything again has not finished the task', async (t) => {
  const rig = await start('replay');
  t.teardown(rig.close);
  const id = (await rig.submit()).task_id;
  (await rig.runOf(id)).token(3);
  await crash(rig);
  finish(await rig.runOf(id), 2);
  const log = await over(rig, id);
  t.is(textOf(log), whole(3));
  t.like(log.at(-1), { type: 'error', data: { code: 'WORKER_RESET' } });
});

test('replay: pieces may be cut otherwise than before', async (t) => {
  const rig = await start('replay');
  t.teardown(rig.close);
  const id = (await rig.submit()).task_id;
  (await rig.runOf(id)).token(3);
  await crash(rig);
  const run = await rig.runOf(id);
  run.say(' s0 s', 1);
  run.say('1 s2 s3', 3);
  run.finish();
  const log = await over(rig, id);
  t.is(textOf(log), whole(4));
  t.like(log.at(-1), { type: 'end', data: { tokens_out: 4 } });
});

const LOST: { name: string; can: keyof typeof CAN; fields: object }[] = [
  { name: 'an engine that can neither', can: 'neither', fields: {} },
  { name: 'strict on an engine that is not deterministic', can: 'resume', fields: { determinism: 'strict' } },
  {
    name: 'a grammar on an engine that is not deterministic',
    can: 'resume',
    fields: { sampling: { grammar: 'root ::= "a"' } },
  },
  {
    name: 'a JSON schema on an engine that is not deterministic',
    can: 'resume',
    fields: { sampling: { json_schema: {} }, determinism: 'best_effort' },
  },
];
for (const { name, can, fields } of LOST)
  test(`not gone on with: ${name}`, async (t) => {
    const rig = createRig({
      preload: false,
      engine: (engine) => (engine.features = { ...CAN[can], grammar: true, json_schema: true }),
    });
    t.teardown(rig.close);
    // Accepted while nobody knows yet what the engine can.
    const id = (await rig.submit(fields)).task_id;
    await rig.ready();
    (await rig.runOf(id)).token(3);
    rig.engine.crash();
    const log = await over(rig, id);
    t.deepEqual(typesOf(log), ['started', 'token', 'token', 'token', 'error']);
    t.like(log.at(-1)?.data, { code: 'WORKER_RESET', retriable: true });
    t.is(rig.record(id).context.usage.tokens_out, 3);
  });

test('replay: a strict task is cold, and so can be repeated where only such calls always give the same', async (t) => {
  const rig = createRig({
    engine: (engine) => (engine.features = { resume: true, deterministic_cold: true }),
  });
  t.teardown(rig.close);
  await rig.ready();
  const id = (await rig.submit({ determinism: 'strict' })).task_id;
  const run = await rig.runOf(id);
  t.true(run.call.cold);
  run.token(3);
  await crash(rig);
  const again = await rig.runOf(id);
  t.is(again.call.resume, undefined);
  finish(again, 5);
  t.is(textOf(await over(rig, id)), whole(5));
  for (const [fields, cold] of [
    [{ kv_hint: 'cold' }, true],
    [{ kv_hint: 'reuse' }, undefined],
    [{}, undefined],
  ] as const) {
    const other = (await rig.submit(fields)).task_id;
    const { call } = await rig.runOf(other);
    t.is(call.cold, cold);
    await rig.orchestrator.cancel(other);
  }
});

test('a strict task is refused where the engine is known not to be deterministic, by the name of its field', async (t) => {
  const rig = await start('resume');
  t.teardown(rig.close);
  await t.throwsAsync(rig.submit({ determinism: 'strict' }), { message: /^determinism: .*best_effort/ });
  const { task_id } = await rig.submit({ determinism: 'strict', workload: 'embedding', inputs: ['a'] });
  t.is(rig.record(task_id).request.determinism, 'strict');
});

const CHOICES: { fields: object; can: keyof typeof CAN; resumes: boolean }[] = [
  { fields: {}, can: 'both', resumes: false },
  { fields: { determinism: 'strict' }, can: 'both', resumes: false },
  { fields: { determinism: 'best_effort' }, can: 'both', resumes: true },
  { fields: { determinism: 'best_effort' }, can: 'replay', resumes: false },
  {
    fields: { sampling: { grammar: 'root ::= "a"' }, determinism: 'best_effort' },
    can: 'both',
    resumes: false,
  },
];
for (const { fields, can, resumes } of CHOICES)
  test(`gone on with by ${resumes ? 'resume' : 'replay'}: ${JSON.stringify(fields)} on ${can}`, async (t) => {
    const rig = createRig({ engine: (engine) => (engine.features = { ...CAN[can], grammar: true }) });
    await rig.ready();
    t.teardown(rig.close);
    const id = (await rig.submit(fields)).task_id;
    (await rig.runOf(id)).token(3);
    await crash(rig);
    const run = await rig.runOf(id);
    t.is(run.call.resume !== undefined, resumes);
    finish(run, resumes ? 1 : 4);
    t.is(textOf(await over(rig, id)), whole(4));
  });

test('a task is gone on with as often as the rule says, and then told', async (t) => {
  const rig = await start('resume', { rules: { max_continuations: 1 } });
  t.teardown(rig.close);
  const id = (await rig.submit()).task_id;
  (await rig.runOf(id)).token(2);
  await crash(rig);
  (await rig.runOf(id)).token(2);
  rig.engine.crash();
  const log = await over(rig, id);
  t.is(textOf(log), whole(4));
  t.like(log.at(-1)?.data, { code: 'WORKER_RESET' });
});

test('a failure that would repeat is not gone on with', async (t) => {
  const rig = await start('both');
  t.teardown(rig.close);
  const id = (await rig.submit()).task_id;
  const run = await rig.runOf(id);
  run.token(2);
  run.fail(failure('INVALID_PARAMS', 'too long'));
  t.like((await over(rig, id)).at(-1), { data: { code: 'INVALID_PARAMS' } });
  t.is(rig.engine.calls.length, 1);
});

test('a task that waits for its engine to come back can be canceled, and is first in line', async (t) => {
  const rig = await start('replay');
  t.teardown(rig.close);
  const [first, second] = [(await rig.submit()).task_id, (await rig.submit()).task_id];
  (await rig.runOf(first)).token(3);
  rig.engine.crash();
  await until(() => rig.record(first).context.lease === undefined);
  t.is(rig.pool.queue.positionOf(rig.record(first)), 0);
  t.is(rig.pool.queue.positionOf(rig.record(second)), 1);
  await rig.orchestrator.cancel(first);
  const log = await rig.log(first);
  t.like(log.at(-1), { type: 'end', data: { canceled: true, tokens_out: 3 } });
  t.false(log.some(({ data }) => 'resumed' in data));
});

test('a deadline that passes while the engine comes back ends the task with what readers have', async (t) => {
  const rig = await start('replay');
  t.teardown(rig.close);
  const id = (await rig.submit({ deadline_ms: 500 })).task_id;
  (await rig.runOf(id)).token(3);
  rig.engine.crash();
  await until(() => rig.record(id).context.lease === undefined);
  rig.clock.advance(600);
  t.like((await over(rig, id)).at(-1)?.data, { code: 'DEADLINE_UNMET' });
  t.is(rig.record(id).context.usage.tokens_out, 3);
});

for (const workload of ['embedding', 'rerank'] as const)
  test(`${workload}: a run that was lost in the middle goes on with the next result, and repeats none`, async (t) => {
    const rig = await start('neither');
    t.teardown(rig.close);
    const id = (await rig.submit({ workload, prompt: 'q', inputs: ['a', 'b', 'c', 'd'] })).task_id;
    (await rig.runOf(id)).token(2);
    await crash(rig);
    (await rig.runOf(id)).token(1);
    await crash(rig);
    const run = await rig.runOf(id);
    t.is((run.call as EngineCall & { documents?: string[]; inputs?: string[] }).resume, undefined);
    finish(run, 4);
    const log = await over(rig, id);
    const results = log.filter(({ type }) => type === workload);
    t.deepEqual(
      results.map(({ data }) => (data as { i: number }).i),
      [0, 1, 2, 3],
    );
    t.like(log.at(-1), { type: 'end', data: { tokens_out: 0 } });
    t.is(log.filter(({ data }) => 'resumed' in data).length, 2);
  });
