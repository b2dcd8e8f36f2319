import type { Observation } from '../../src/actors/observation.ts';
import { Orchestrator } from '../../src/actors/orchestrator.ts';
import type {
  OrchestratorPorts,
  OrchestratorSettings,
  PoolBlueprint,
} from '../../src/actors/orchestrator-options.ts';
import type { PoolSpec } from '../../src/actors/pool-options.ts';
import type { Pool } from '../../src/actors/pool.ts';
import { SUPERVISION } from '../../src/actors/supervision.ts';
import type { TaskRecord } from '../../src/actors/task-record.ts';
import type { AdmissionResponse, TaskRequest } from '../../src/contract/generated/types.ts';
import type { TaskRules } from '../../src/machines/task-protocol.ts';
import type { Engine, EngineHost } from '../../src/engines/engine.ts';
import { remoteModels } from '../../src/models/source.ts';
import { DEFAULT_SWAP_RULES, type SwapRules } from '../../src/scheduling/swap-view.ts';
import type { QueueRules } from '../../src/scheduling/queue.ts';
import { MemoryStore } from '../../src/store/memory-store.ts';
import type { ThreadPool } from '../../src/threads/thread-pool.ts';
import { MemoryTaskLog } from '../../src/streams/memory-log.ts';
import type { LogEvent } from '../../src/streams/task-log.ts';
import { request } from '../helpers/server.ts';
import { SimulatedClock } from '../helpers/simulated-clock.ts';
import { until } from '../helpers/until.ts';
import { ScriptedEngine, type ScriptedRun } from './scripted-engine.ts';

export interface RigOptions {
  /** What all pools may take together. */
  host_bytes?: number;
  devices?: { id: number; bytes: number }[];
  swap?: Partial<SwapRules>;
  slots?: number;
  capacity?: number;
  preload?: boolean;
  retained_tasks?: number;
  pool?: Partial<Pick<PoolBlueprint, 'models'>> & { replica?: Partial<PoolBlueprint['replica']> };
  ports?: Partial<OrchestratorPorts>;
  settings?: Partial<OrchestratorSettings>;
  queue?: Partial<QueueRules>;
  rules?: Partial<TaskRules>;
  spec?: Partial<PoolSpec>;
  /** Pools beside the one called `scripted`, which differ from it in these. */
  others?: (Partial<PoolSpec> & { id: string })[];
  clock?: SimulatedClock;
  /** Prepares an engine before its first load. */
  engine?: (engine: ScriptedEngine, pool_id: string) => void;
  /** Engines of another kind. */
  factory?: (host: EngineHost, spec: PoolSpec, clock: SimulatedClock) => Engine;
}

/** The real orchestrator, pool, replica and log over one scripted engine, on a clock that the test moves. */
export interface Rig {
  orchestrator: Orchestrator;
  clock: SimulatedClock;
  pool: Pool;
  /** The pool's one engine; there is none before the pool was asked for. */
  engine: ScriptedEngine;
  /** The engine of each pool that was asked for. */
  engines: ReadonlyMap<string, ScriptedEngine>;
  observations: Observation[];
  submit(fields?: Partial<TaskRequest>): Promise<AdmissionResponse>;
  record(id: string): TaskRecord;
  /** Waits until a run of the task is under way. */
  runOf(id: string): Promise<ScriptedRun>;
  log(id: string): Promise<readonly LogEvent[]>;
  ready(): Promise<void>;
  close(): Promise<void>;
}

export function createRig(options: RigOptions = {}): Rig {
  const { slots = 1, capacity = 1000, preload = true, retained_tasks = 1000 } = options;
  const clock = options.clock ?? new SimulatedClock();
  const observations: Observation[] = [];
  const engines = new Map<string, ScriptedEngine>();
  const { budget } = SUPERVISION.replica;
  const spec: PoolSpec = {
    id: 'scripted',
    engine: 'synthetic',
    model: 'synthetic',
    slots,
    ctx: 8192,
    max_tokens_out: undefined,
    queue: { capacity, policy: 'reject', ...options.queue },
    rate_limit_rps: {},
    rules: {
      max_attempts: 3,
      max_continuations: 2,
      metrics_period_ms: 1000,
      first_token_ms: 120_000,
      idle_ms: 30_000,
      wall_ms: undefined,
      ...options.rules,
    },
    sampler_profile_version: 'v1',
    model_ref: undefined,
    replicas: 1,
    devices: [],
    shares: [1],
    kv_scale: 1,
    memory_bytes: undefined,
    pinned: false,
    idle_ttl_ms: undefined,
    preload,
    reloadable: true,
    ...options.spec,
  };
  const blueprint = (spec: PoolSpec): PoolBlueprint => ({
    spec,
    models: options.pool?.models ?? remoteModels,
    engine: () => async (host) => {
      if (options.factory) return options.factory(host, spec, clock);
      const engine = new ScriptedEngine(host, spec.slots);
      engines.set(spec.id, engine);
      options.engine?.(engine, spec.id);
      return engine;
    },
    announced: () => async () => Promise.reject(new Error('nobody announces an engine here')),
    replica: {
      restart: { ...budget },
      load_timeout_ms: 60_000,
      probe_interval_ms: 10_000,
      probe_fail: 3,
      ...options.pool?.replica,
    },
  });
  const orchestrator = new Orchestrator(
    {
      memory: {
        budget: { host_bytes: options.host_bytes, devices: options.devices ?? [] },
        rules: { ...DEFAULT_SWAP_RULES, ...options.swap },
      },
      retained_tasks,
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
      shutdown_ms: 10_000,
      ...options.settings,
    },
    {
      clock,
      random: () => 0.5,
      log: new MemoryTaskLog(),
      store: new MemoryStore(),
      threads: threadsOf(async () => undefined),
      ...options.ports,
    },
    [spec, ...(options.others ?? []).map((other) => ({ ...spec, ...other }))].map(blueprint),
  );
  orchestrator.observers.add((observation) => observations.push(observation));
  const pool = orchestrator.pools.get('scripted') as Pool;
  return {
    orchestrator,
    clock,
    pool,
    observations,
    engines,
    get engine() {
      const engine = engines.get('scripted');
      if (!engine) throw new Error('no engine was asked for yet');
      return engine;
    },
    submit: (fields) => orchestrator.submit({ ...request, ...fields }, { correlation_id: 'a-test' }),
    record(id) {
      const record = orchestrator.record(id);
      if (!record) throw new Error(`there is no task ${id}`);
      return record;
    },
    async runOf(id) {
      const find = (): ScriptedRun | undefined =>
        [...engines.values()].flatMap(({ live }) => live).find((run) => run.call.task_id === id);
      await until(find, `a run of ${id}`);
      return find() as ScriptedRun;
    },
    log: (id) => orchestrator.eventsSoFar(id),
    ready: () => until(() => [...orchestrator.pools.values()].every(({ isReady }) => isReady)),
    async close() {
      let isClosed = false;
      const closing = orchestrator.close(0).finally(() => (isClosed = true));
      await until(() => {
        if (!isClosed) clock.advance(1);
        return isClosed;
      }, 'the orchestrator to close');
      await closing;
    },
  };
}

/** Lets everything that waits for nothing but its turn happen. */
export async function settle(turns = 20): Promise<void> {
  for (let turn = 0; turn < turns; turn++) await Promise.resolve();
}

export function typesOf(events: readonly LogEvent[]): string[] {
  return events.map(({ type }) => type);
}

/** Machines arm their timers on it: a way to make one throw in the middle of a step. */
export class FragileClock extends SimulatedClock {
  /** Timers of this length cannot be set. */
  breaks: number | undefined;

  override setTimeout(fn: () => void, ms: number): number {
    if (ms === this.breaks) throw new Error('the clock is broken');
    return super.setTimeout(fn, ms);
  }
}

/** Tokenizer threads that count what the test says. */
export function threadsOf(countTokens: ThreadPool['countTokens']): ThreadPool {
  return {
    countTokens,
    tokenize: async () => ({ count: undefined, tokenizer_name: undefined }),
    close: async () => undefined,
  } as unknown as ThreadPool;
}
