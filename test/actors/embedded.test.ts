import { fileURLToPath } from 'node:url';
import test from 'ava';
import { Orchestrator } from '../../src/actors/orchestrator.ts';
import { SUPERVISION } from '../../src/actors/supervision.ts';
import { systemClock } from '../../src/clock.ts';
import { createEmbeddedLlamaEngine } from '../../src/engines/llamacpp/embedded.ts';
import { fileModels } from '../../src/models/source.ts';
import { DEFAULT_SWAP_RULES } from '../../src/scheduling/swap-view.ts';
import { MemoryStore } from '../../src/store/memory-store.ts';
import { MemoryTaskLog } from '../../src/streams/memory-log.ts';
import { request } from '../helpers/server.ts';
import { until } from '../helpers/until.ts';
import { threadsOf, typesOf } from './rig.ts';

const MODEL = fileURLToPath(new URL('../../models/storyteller/storyteller.gguf', import.meta.url));

/** The real engine in its real child, which the test can stop and kill; restarted without a wait. */
function startStoryteller() {
  let engine: ReturnType<typeof createEmbeddedLlamaEngine> | undefined;
  const orchestrator = new Orchestrator(
    {
      retained_tasks: 100,
      retained_ms: 0,
      idempotency_ttl_ms: 600_000,
      sessions: {
        ttl_ms: 600_000,
        max_turns: null,
        budgets: { tokens: null, time_ms: null, cost: null },
        cost_per_output_token: 0,
      },
      disconnect_grace_ms: 10_000,
      allow_pin: true,
      shutdown_ms: 0,
      memory: { budget: { host_bytes: undefined, devices: [] }, rules: DEFAULT_SWAP_RULES },
    },
    {
      clock: systemClock,
      random: () => 0.5,
      log: new MemoryTaskLog(),
      store: new MemoryStore(),
      threads: threadsOf(async () => undefined),
    },
    [
      {
        spec: {
          id: 'stories',
          engine: 'llamacpp',
          model: 'storyteller',
          model_ref: undefined,
          replicas: 1,
          devices: [],
          shares: [1],
          kv_scale: 1,
          memory_bytes: undefined,
          pinned: false,
          idle_ttl_ms: undefined,
          slots: 1,
          ctx: 256,
          max_tokens_out: undefined,
          queue: { capacity: 100, policy: 'reject' },
          rate_limit_rps: {},
          rules: {
            max_attempts: 3,
            max_continuations: 2,
            metrics_period_ms: 1000,
            first_token_ms: 120_000,
            idle_ms: 30_000,
            wall_ms: undefined,
          },
          sampler_profile_version: 'v1',
          preload: true,
          reloadable: true,
        },
        models: fileModels,
        engine: () => async (host) =>
          (engine = createEmbeddedLlamaEngine({
            model_path: MODEL,
            model_id: 'storyteller',
            slots: 1,
            ctx: 256,
            host,
          })),
        announced: () => async () => Promise.reject(new Error('nobody announces an engine here')),
        replica: {
          restart: {
            ...SUPERVISION.replica.budget,
            initial_ms: 0,
            min_ms: 0,
            breaker_threshold: 50,
            max_restarts: 50,
          },
          load_timeout_ms: 60_000,
          probe_interval_ms: 60_000,
          probe_fail: 3,
        },
      },
    ],
  );
  const submit = async (max_tokens: number): Promise<string> => {
    const { task_id } = await orchestrator.submit(
      { ...request, engine: 'llamacpp', model_ref: 'storyteller', ctx: 256, max_tokens },
      { correlation_id: 'a-test' },
    );
    return task_id;
  };
  return {
    orchestrator,
    submit,
    isOver: (id: string) => ['ended', 'error'].includes(orchestrator.record(id)?.state ?? ''),
    signal(name: NodeJS.Signals): void {
      if (engine?.pid === undefined) throw new Error('there is no child');
      process.kill(engine.pid, name);
    },
    isReady: () => orchestrator.pools.get('stories')?.snapshot.hasTag('ready') === true,
  };
}

test.serial('a child that is killed before the first token costs the task nothing but time', async (t) => {
  const { orchestrator, submit, isOver, isReady, signal } = startStoryteller();
  t.teardown(() => orchestrator.close(0));
  await until(isReady);
  signal('SIGSTOP');
  const id = await submit(5);
  t.is(orchestrator.record(id)?.state, 'placed');
  signal('SIGKILL');
  await until(() => isOver(id));
  t.like(orchestrator.record(id), { state: 'ended', context: { attempts: 2 } });
  const types = typesOf(await orchestrator.eventsSoFar(id));
  t.is(types.filter((type) => type === 'started').length, 1);
  t.is(types.filter((type) => type === 'token').length, 5);
  t.is(types.at(-1), 'end');
});

test.serial(
  'a child that is killed in the middle ends its stream with an error, and the next task runs',
  async (t) => {
    const { orchestrator, submit, isOver, isReady, signal } = startStoryteller();
    t.teardown(() => orchestrator.close(0));
    await until(isReady);
    let victim = '';
    orchestrator.observers.add((told) => {
      if (told.type === 'task.moved' && told.to === 'streaming' && told.record.id === victim)
        signal('SIGKILL');
    });
    // On a busy machine the child may have told everything before it is killed.
    for (let attempt = 0; attempt < 20 && orchestrator.record(victim)?.state !== 'error'; attempt++) {
      await until(isReady);
      const task = submit(240);
      // The id is there before the first token is: tokens come with later turns of the event loop.
      victim = await task;
      await until(() => isOver(victim));
    }
    const events = await orchestrator.eventsSoFar(victim);
    t.like(events.at(-1), {
      type: 'error',
      data: { code: 'WORKER_RESET', retriable: true, pool_id: 'stories' },
    });
    const next = await submit(5);
    await until(() => isOver(next));
    t.is(orchestrator.record(next)?.state, 'ended');
  },
);

test.serial(
  'a child that is killed while it loads is started again, and the waiting task runs',
  async (t) => {
    const { orchestrator, submit, isOver, signal } = startStoryteller();
    t.teardown(() => orchestrator.close(0));
    const id = await submit(5);
    await until(() => orchestrator.pools.get('stories')?.replicas[0]?.snapshot.value === 'loading');
    await until(() => {
      try {
        signal('SIGKILL');
        return true;
      } catch {
        return false;
      }
    });
    await until(() => isOver(id));
    t.is(orchestrator.record(id)?.state, 'ended');
    t.is(orchestrator.pools.get('stories')?.replicas[0]?.snapshot.context.history.restarts_at.length, 1);
  },
);
