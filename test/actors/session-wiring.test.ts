import test from 'ava';
import { TaskchartError, type Failure } from '../../src/errors.ts';
import { MemoryStore } from '../../src/store/memory-store.ts';
import type { Commit, CommitResult } from '../../src/store/store.ts';
import { until } from '../helpers/until.ts';
import { createRig, settle, type Rig, type RigOptions } from './rig.ts';

const SESSION = '0198c0de-0000-7000-8000-00000000000a';
const OTHER = '0198c0de-0000-7000-8000-00000000000b';

async function start(
  sessions: { max_turns?: number | null; tokens?: number | null; time_ms?: number | null } = {},
  options: RigOptions = {},
): Promise<Rig> {
  const { max_turns = null, tokens = null, time_ms = null } = sessions;
  const rig = createRig({
    ...options,
    settings: {
      sessions: {
        ttl_ms: 600_000,
        max_turns,
        budgets: { tokens, time_ms, cost: null },
        cost_per_output_token: 0,
      },
    },
  });
  await rig.ready();
  return rig;
}

async function refusalOf(answer: Promise<unknown>): Promise<Failure | undefined> {
  return answer.then(
    () => undefined,
    (error: unknown) => {
      if (error instanceof TaskchartError) return error.failure;
      throw error;
    },
  );
}

const info = (rig: Rig, id = SESSION) => rig.orchestrator.sessions.info(id);

async function ended(rig: Rig, id: string): Promise<void> {
  await until(() => ['ended', 'error'].includes(rig.record(id).state));
}

test('a task reserves its tokens with its admission and is charged what it wrote at its end', async (t) => {
  const rig = await start({ tokens: 100 });
  t.teardown(rig.close);
  const { task_id } = await rig.submit({ session_id: SESSION, max_tokens: 60 });
  t.like(info(rig), { turns: 1, tokens_budget_remaining: 40 });
  t.like(await refusalOf(rig.submit({ session_id: SESSION, max_tokens: 41 })), {
    code: 'ADMISSION_REJECT',
    policy_label: 'budget.tokens',
    engine: 'synthetic',
  });
  const run = await rig.runOf(task_id);
  run.token(5);
  run.finish();
  await ended(rig, task_id);
  t.like(info(rig), { turns: 1, tokens_budget_remaining: 95 });
});

test('whatever ends a task gives back what it has not used: cancel, failure, deadline, a place that was lost', async (t) => {
  const rig = await start({ tokens: 1000 }, { capacity: 2, queue: { policy: 'drop-lru' } });
  t.teardown(rig.close);
  const submit = async (deadline_ms = 600_000): Promise<string> =>
    (await rig.submit({ session_id: SESSION, max_tokens: 100, deadline_ms })).task_id;
  const running = await submit();
  (await rig.runOf(running)).token(3);
  await submit();
  await submit(50_000);
  await submit();
  t.is(info(rig).tokens_budget_remaining, 700, 'the one that was dropped has given back');
  rig.clock.advance(25_000);
  (await rig.runOf(running)).token(1);
  rig.clock.advance(25_000);
  t.is(info(rig).tokens_budget_remaining, 800, 'the one whose deadline passed, too');
  await rig.orchestrator.cancel(running);
  t.is(info(rig).tokens_budget_remaining, 896);
  await until(() => rig.engine.runs.length === 2);
  const second = rig.engine.live.at(-1);
  second?.token(7);
  second?.fail({ code: 'INTERNAL', message: 'broken', retriable: false });
  await until(() => rig.pool.leases === 0);
  t.is(info(rig).tokens_budget_remaining, 989, '4 and 7 tokens were written');
});

test('decoding time is charged from the first token on', async (t) => {
  const rig = await start({ time_ms: 1000 });
  t.teardown(rig.close);
  const { task_id } = await rig.submit({ session_id: SESSION });
  const run = await rig.runOf(task_id);
  rig.clock.advance(5000);
  run.token();
  rig.clock.advance(400);
  run.token();
  run.finish();
  await ended(rig, task_id);
  t.is(info(rig).time_budget_remaining_ms, 600);
  t.like((await rig.log(task_id)).at(-1), { data: { decode_ms: 400, decode_time_ms: 400 } });
});

test('an admission that the store did not take leaves neither turn nor reservation', async (t) => {
  class FullStore extends MemoryStore {
    isFull = false;
    override commit(commit: Commit): CommitResult {
      return this.isFull ? 'unknown' : super.commit(commit);
    }
  }
  const store = new FullStore();
  const rig = await start({ tokens: 100 }, { ports: { store } });
  t.teardown(rig.close);
  store.isFull = true;
  const task_id = '0198c0de-0000-7000-8000-000000000001';
  t.like(await refusalOf(rig.submit({ task_id, session_id: SESSION, max_tokens: 60 })), {
    code: 'INTERNAL',
    retriable: true,
    message: 'the store did not answer; post the same task_id again',
  });
  t.like(info(rig), { turns: 0, tokens_budget_remaining: 100 });
  t.is(rig.pool.queue_depth, 0);
  t.regex((await refusalOf(rig.submit()))?.message ?? '', /post the task again/);
  store.isFull = false;
  await t.notThrowsAsync(rig.submit({ task_id, session_id: SESSION, max_tokens: 60 }));
  t.like(info(rig), { turns: 1, tokens_budget_remaining: 40 });
});

test('a task without a session_id has a session of its own, and no more than a session may have', async (t) => {
  const rig = await start({ tokens: 100 });
  t.teardown(rig.close);
  const { session_id } = await rig.submit({ max_tokens: 60 });
  t.is(info(rig, session_id).tokens_budget_remaining, 40);
  t.like(await refusalOf(rig.submit({ max_tokens: 101 })), { policy_label: 'budget.tokens' });
});

test('turns are counted, and the one too many ends the session', async (t) => {
  const rig = await start({ max_turns: 2 });
  t.teardown(rig.close);
  await rig.submit({ session_id: SESSION });
  await rig.submit({ session_id: SESSION });
  t.like(await refusalOf(rig.submit({ session_id: SESSION })), {
    code: 'INVALID_PARAMS',
    engine: 'synthetic',
  });
  await t.notThrowsAsync(rig.submit({ session_id: SESSION }));
  t.is(info(rig).turns, 1);
});

test('metrics of a stream carry the session as it is then: its warmth and what is left', async (t) => {
  const rig = await start({ tokens: 100 }, { engine: (engine) => (engine.features = { kv_reuse: true }) });
  t.teardown(rig.close);
  const { task_id } = await rig.submit({ session_id: SESSION, max_tokens: 60 });
  const run = await rig.runOf(task_id);
  run.token();
  rig.clock.advance(1000);
  run.finish();
  await ended(rig, task_id);
  const metrics = (await rig.log(task_id)).filter(({ type }) => type === 'metrics');
  for (const { data } of metrics) t.like(data, { kv_warmth: true, tokens_budget_remaining: 40 });
  t.is(metrics.length, 2);
});

test('a session is never called warm where the engine does not use what it has cached', async (t) => {
  const rig = await start({ tokens: 100 }, { engine: (engine) => (engine.kv_bytes_per_token = 1000) });
  t.teardown(rig.close);
  const { task_id } = await rig.submit({ session_id: SESSION, max_tokens: 8 });
  const run = await rig.runOf(task_id);
  run.token(2);
  t.like(info(rig), { kv_warmth: false, kv_bytes: 0 });
  run.finish();
  await ended(rig, task_id);
  const metrics = (await rig.log(task_id)).filter(({ type }) => type === 'metrics');
  for (const { data } of metrics) t.like(data, { kv_warmth: false });
});

test('a session is warm from its first token on, and cold again when its replica is lost', async (t) => {
  const rig = await start(
    { tokens: 100 },
    {
      engine(engine) {
        engine.kv_bytes_per_token = 1000;
        engine.features = { kv_reuse: true };
      },
    },
  );
  t.teardown(rig.close);
  const { task_id } = await rig.submit({ session_id: SESSION, max_tokens: 8 });
  await rig.submit({ session_id: OTHER, max_tokens: 8 });
  t.false(info(rig).kv_warmth);
  const run = await rig.runOf(task_id);
  t.false(info(rig).kv_warmth);
  run.token(2);
  t.like(info(rig), { kv_warmth: true, kv_bytes: 8000 });
  run.finish();
  await ended(rig, task_id);
  t.is(info(rig).tokens_budget_remaining, 98);
  rig.engine.crash();
  await until(() => rig.pool.snapshot.value === 'starting');
  t.like(
    info(rig),
    { kv_warmth: false, kv_bytes: 0, tokens_budget_remaining: 100 },
    'a failover begins anew',
  );
  t.false(info(rig, OTHER).kv_warmth);
});

test('between pools that would do the same, a session goes where its cache is', async (t) => {
  const rig = await start({}, { slots: 4, others: [{ id: 'a-pool' }, { id: 'z-pool' }] });
  t.teardown(rig.close);
  const { task_id } = await rig.submit({
    session_id: SESSION,
    placement: { mode: 'pin', pin_pool_id: 'z-pool' },
  });
  const run = await rig.runOf(task_id);
  run.token();
  run.finish();
  await ended(rig, task_id);
  // One run has measured z-pool; equals are equals only where nothing was measured differently.
  for (const pool of rig.orchestrator.pools.values())
    Object.assign(pool.rates, rig.orchestrator.pools.get('z-pool')?.rates);
  t.is(rig.record((await rig.submit({ session_id: SESSION })).task_id).pool_id, 'z-pool');
  t.is(rig.record((await rig.submit({ session_id: OTHER })).task_id).pool_id, 'a-pool');
  rig.engines.get('z-pool')?.crash();
  await until(() => !rig.orchestrator.pools.get('z-pool')?.isReady);
  t.not(rig.record((await rig.submit({ session_id: SESSION })).task_id).pool_id, 'z-pool');
});

test('a session that was deleted is charged nothing, and its tasks go on', async (t) => {
  const rig = await start({ tokens: 100 });
  t.teardown(rig.close);
  const { task_id } = await rig.submit({ session_id: SESSION, max_tokens: 60 });
  rig.orchestrator.deleteSession(SESSION);
  const run = await rig.runOf(task_id);
  run.token(5);
  run.finish();
  await ended(rig, task_id);
  t.is(rig.record(task_id).state, 'ended');
  t.like(info(rig), { turns: 0, tokens_budget_remaining: 100 });
});

test('a finished task keeps no text in memory, and still tells the same from another', async (t) => {
  const rig = await start();
  t.teardown(rig.close);
  const task_id = '0198c0de-0000-7000-8000-000000000001';
  const posted = {
    task_id,
    prompt: 'a secret prompt',
    sampling: { stop: ['a secret stop'], temperature: 0 },
  };
  await rig.submit(posted);
  const run = await rig.runOf(task_id);
  run.token(2);
  t.is(rig.record(task_id).request.prompt, 'a secret prompt');
  t.is(rig.record(task_id).digest, undefined);
  run.finish();
  await ended(rig, task_id);
  await settle();
  const record = rig.record(task_id);
  t.false(JSON.stringify(record.request).includes('secret'));
  t.regex(record.digest ?? '', /^[\w-]{43}$/);
  t.like(record.request, { model_ref: 'synthetic', priority: 'interactive', sampling: { temperature: 0 } });
  t.like(await rig.submit(posted), { task_id, queue_position: 0 });
  for (const other of [
    { ...posted, prompt: 'another prompt' },
    { ...posted, sampling: { ...posted.sampling, stop: [] } },
    { ...posted, max_tokens: 7 },
  ]) {
    const error = await t.throwsAsync(rig.submit(other), { instanceOf: TaskchartError });
    t.is(error?.status, 409);
  }
  t.is(rig.engine.runs.length, 1);
});
