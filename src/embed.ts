import { Catalog } from './actors/catalog.ts';
import { serves } from './actors/model-gate.ts';
import type { TaskFilter } from './actors/task-registry.ts';
import { capabilities, poolHealth, taskInfo, taskSummary } from './actors/views.ts';
import { Orchestrator } from './actors/orchestrator.ts';
import { Purge } from './actors/purge.ts';
import type { ArtifactStore } from './artifacts/artifact-store.ts';
import { MemoryArtifacts } from './artifacts/memory-artifacts.ts';
import { withTranscripts } from './artifacts/with-transcripts.ts';
import type { Observer } from './actors/observation.ts';
import { blueprintOf, memoryOf, modelsOf } from './blueprint.ts';
import type { CatalogStore } from './catalog/catalog-store.ts';
import { createFileHasher } from './catalog/file-hasher.ts';
import { MemoryCatalog } from './catalog/memory-catalog.ts';
import { systemClock, type Clock } from './clock.ts';
import type { HubSettings } from './config/hub.ts';
import { ConfigError, loadConfig, type Config, type ConfigInput } from './config.ts';
import type {
  AdmissionResponse,
  Capabilities,
  PoolHealth,
  SessionInfo,
  TaskInfo,
  TaskPreview,
  TaskRequest,
  TaskSummary,
} from './contract/generated/types.ts';
import { DEFAULT_DEADLINE_MS, DEFAULT_MAX_TOKENS } from './contract/defaults.ts';
import { parseTaskRequest } from './contract/validate.ts';
import { failure, TaskchartError } from './errors.ts';
import { canonicalId, newCorrelationId } from './ids.ts';
import { engineRequestOf } from './engine-settings.ts';
import { Engines } from './provisioning/engines.ts';
import { MemoryStore } from './store/memory-store.ts';
import type { Store } from './store/store.ts';
import { MemoryTaskLog } from './streams/memory-log.ts';
import type { LogEvent, TaskLog } from './streams/task-log.ts';
import { createThreadPool } from './threads/thread-pool.ts';

/** How the world enters; see `openStorage` for the first four, which belong together. */
export interface OrchestratorPortOptions {
  /** Where accepted tasks and sessions are kept; closed with the orchestrator. @default in memory, gone with the process */
  store?: Store;
  /** Where streams are kept; closed with the orchestrator. @default in memory, gone with the process */
  task_log?: TaskLog;
  /** Where artifacts are kept; closed with the orchestrator. @default in memory, gone with the process */
  artifact_store?: ArtifactStore;
  /** Where the catalog of models is kept; closed with the orchestrator. @default in memory, gone with the process */
  catalog_store?: CatalogStore;
  /** @default the system's clock */
  clock?: Clock;
  /** 0 to 1; the jitter of backoffs. @default Math.random */
  random?: () => number;
  /** Where `hf:` models come from, and the token for it. @default the public hub, without a token */
  hub?: HubSettings;
  /**
   * Environment of the programs that are started: engines, and what builds them. A pool adds to it by
   * `provisioning.env`. @default PATH alone, with the folders of the system
   */
  program_env?: Readonly<Record<string, string>>;
}

/**
 * The configuration of the daemon, as an object, and ports. Nothing is read from files or from the environment, and
 * what only concerns a daemon (`server.bind_addr`, `auth`, `handoff`, `log`) has no effect.
 */
export type OrchestratorOptions = Omit<ConfigInput, 'store'> & OrchestratorPortOptions;

/**
 * A task as the library takes it. What is left out: the first pool that serves `model_ref` and `engine`, its whole
 * context, `completion`, `interactive`, at most 256 tokens, a deadline of ten minutes. Under an id or a key that is
 * known already, it is what it was the first time.
 */
export type SubmitRequest = Partial<TaskRequest>;

export interface SubmitOptions {
  /**
   * Tasks that come with the same key are one task for `admission.idempotency_ttl_ms`: 1 to 128 characters.
   * @default none
   */
  idempotency_key?: string;
  /** Name of this call in logs and on calls to engines. @default a fresh UUID */
  correlation_id?: string;
}

/** A submitted task. */
export interface Task {
  readonly id: string;
  /** What was told when it was accepted; of a task that is taken up again, its place now. */
  readonly admission: AdmissionResponse;
  /**
   * The task's events in order, from the first or after the one with this id, until its `end` or `error`. Any number
   * of readers, also after the end; leaving the loop does not cancel the task. It ends without a last event where the
   * signal aborted, the task is forgotten, or a durable orchestrator was closed before the task was over.
   */
  events(options?: { after?: number; signal?: AbortSignal }): AsyncIterable<LogEvent>;
  /**
   * State, timings, usage and the text so far.
   * @throws TaskchartError NOT_FOUND once its retention has ended
   */
  info(): Promise<TaskInfo>;
  /** Resolves when no token can follow any more, and a durable store knows it. Safe to repeat. */
  cancel(): Promise<void>;
}

/**
 * An orchestrator inside this process: what the daemon does, without HTTP. What answers without a promise knows tasks
 * and sessions of an earlier process only after `recovered`.
 */
export interface EmbeddedOrchestrator {
  /**
   * Accepts a task; with a durable store it is on disk when this resolves. It does not wait for a model or a slot.
   * @throws TaskchartError the code and the message of the HTTP face: INVALID_PARAMS, DEADLINE_UNMET,
   * ADMISSION_REJECT, QUEUE_FULL_DROP_LRU, POOL_UNREADY (also while it closes), POOL_UNAVAILABLE; `failure` has the
   * details, such as `retriable` and `retry_after_ms`
   */
  submit(request: SubmitRequest, options?: SubmitOptions): Promise<Task>;
  /**
   * What `submit` would say now; nothing is queued, and a refusal is an answer.
   * @throws TaskchartError INVALID_PARAMS for a malformed request
   */
  preview(request: SubmitRequest): Promise<TaskPreview>;
  /** A task that was submitted earlier. @throws TaskchartError NOT_FOUND */
  task(task_id: string): Task;
  /** Resolves when no token can follow any more, and a durable store knows it. Tasks that are over or not known are left as they are. */
  cancel(task_id: string): Promise<void>;
  /**
   * Forgets a finished task before its retention ends; one that is not known is left alone.
   * @throws TaskchartError INVALID_PARAMS where it is not finished
   */
  remove(task_id: string): Promise<void>;
  /** All that are known, or those that fit, newest first. */
  tasks(filter?: TaskFilter): TaskSummary[];
  /** A session comes into being on first use, this one included. */
  session(session_id: string): SessionInfo;
  /** Begins a session's time to live anew. @returns false for one that is not known */
  touchSession(session_id: string): boolean;
  /** Ends a session; its tasks go on. Safe to repeat. */
  removeSession(session_id: string): Promise<void>;
  /** The engines, and what they can do now: an engine that is not up yet says less. */
  capabilities(): Capabilities;
  /** Each pool's state, queue, slots and last error. */
  pools(): PoolHealth[];
  /**
   * Tells what happens: tasks, placements, pools, replicas. In the same turn, so an observer should be quick; one that
   * throws disturbs nobody.
   * @returns how to stop observing
   */
  observe(observer: Observer): () => void;
  /**
   * Takes nothing more, lets running tasks finish, stops every engine and closes the store; nothing is left open. What
   * waits or is not finished in time goes on in the next process where the store and the log are durable; otherwise it
   * ends: what waits with POOL_UNREADY, what runs canceled. Safe to repeat; a shorter time than before holds.
   * @param shutdown_ms how long running tasks may take, in milliseconds; `server.shutdown_ms` (10000) by default
   */
  close(shutdown_ms?: number): Promise<void>;
  /**
   * Resolves once what a store has kept is known again; `submit`, `preview` and `cancel` wait for it by themselves.
   * Rejects with a StoreError where the store cannot be read.
   */
  readonly recovered: Promise<void>;
  /** What clients have stored, and the transcripts of finished tasks. */
  readonly artifacts: Pick<ArtifactStore, 'put' | 'get' | 'list'>;
  /** Models that are known here: what they are, whether they are trusted, and whether new work may use them. */
  readonly catalog: Pick<Catalog, 'add' | 'get' | 'list' | 'remove' | 'verify' | 'setState'>;
  /** Deletes what was stored for pools. */
  readonly purge: Pick<Purge, 'begin'>;
  /** What the HTTP face is built on; its shape is not promised. */
  readonly core: Orchestrator;
  /** With every default filled in; frozen. */
  readonly config: Config;
}

/** Where the programs of a system are. */
const SYSTEM_ENV = { PATH: '/usr/local/bin:/usr/bin:/bin' };

/**
 * Starts an orchestrator in this process. Pools that preload begin at once; tasks may be submitted meanwhile. Without
 * options it is one pool with the bundled model, in memory.
 * @throws ConfigError naming the key
 */
export function createOrchestrator(options: OrchestratorOptions = {}): EmbeddedOrchestrator {
  const { store, clock: _clock, random: _random, hub: _hub, program_env: _env, ...more } = options;
  const { task_log: _log, artifact_store: _artifacts, catalog_store: _catalog, ...settings } = more;
  const config = loadConfig({ overrides: settings });
  if (store !== undefined && typeof store.commit !== 'function')
    throw new ConfigError(
      'store: must be a store, such as the one in what openStorage(folder) gives; store.kind is a setting of the daemon',
    );
  return orchestrate(config, options);
}

/** The same from a configuration that was loaded already. */
export function orchestrate(config: Config, ports: OrchestratorPortOptions = {}): EmbeddedOrchestrator {
  const { store, task_log, clock = systemClock, random = Math.random, hub } = ports;
  const { program_env: env = SYSTEM_ENV } = ports;
  const wall = (): number => clock.wall();
  const { artifact_store = new MemoryArtifacts({ wall }) } = ports;
  const { max_bytes, retention_days, transcripts } = config.artifacts;
  artifact_store.limit({ max_bytes, retention_ms: retention_days * 24 * 3_600_000 });
  const models = modelsOf(config, { clock, random, hub });
  const engines = new Engines({ policy: config.policy, env, clock });
  const catalog = new Catalog({
    store: ports.catalog_store ?? new MemoryCatalog(),
    trust: config.catalog.trust_policy,
    files: { locate: (model_ref) => models.source().locate(model_ref), remove: (ref) => models.remove(ref) },
    hasher: createFileHasher(),
    wall,
    drain_ms: config.server.shutdown_ms,
    tell: (observation) => core.observers.tell(observation),
    retired: (_model, deadline_ms) => core.retirement.retire(deadline_ms),
    activated: () => core.retirement.activate(),
  });
  const core: Orchestrator = new Orchestrator(
    {
      retained_tasks: config.retention.max_tasks,
      retained_ms: config.retention.max_age_s * 1000,
      idempotency_ttl_ms: config.admission.idempotency_ttl_ms,
      sessions: {
        ttl_ms: config.session.ttl_ms,
        max_turns: config.session.max_turns ?? null,
        budgets: { tokens: null, time_ms: null, cost: null, ...config.session.budgets },
        cost_per_output_token: config.budget.cost_per_output_token,
      },
      disconnect_grace_ms: config.sse.cancel_on_disconnect ? config.sse.disconnect_grace_ms : undefined,
      allow_pin: config.placement.allow_pin,
      shutdown_ms: config.server.shutdown_ms,
      memory: memoryOf(config),
      transcripts,
    },
    {
      clock,
      random,
      log: task_log ?? new MemoryTaskLog({ wall }),
      store: store ?? new MemoryStore(),
      threads: createThreadPool(),
      catalog,
    },
    config.pools.map((pool) => blueprintOf(pool, config, { clock, models, catalog, engines, env })),
  );
  const requests = new Map(config.pools.map((pool) => [pool.id, engineRequestOf(pool)]));
  return {
    core,
    config,
    recovered: core.recovered,
    purge: new Purge({
      pools: core.pools,
      observers: core.observers,
      drain_ms: config.server.shutdown_ms,
      removeModel: (model_ref) => models.remove(model_ref, true),
      buildOf: (pool_id) => requests.get(pool_id),
      removeBuild: async (pool_id) => {
        const request = requests.get(pool_id);
        return request && engines.removeBuild(request);
      },
    }),
    artifacts: withTranscripts(artifact_store, core.transcripts),
    catalog,
    async submit(request, { idempotency_key, correlation_id = newCorrelationId() } = {}) {
      if (idempotency_key !== undefined && !(idempotency_key.length >= 1 && idempotency_key.length <= 128))
        throw new TaskchartError(
          failure(
            'INVALID_PARAMS',
            `idempotency_key: must have 1 to 128 characters, got ${idempotency_key.length}`,
          ),
        );
      if (core.isRecovering) await core.recovered;
      const known =
        (request.task_id === undefined ? undefined : core.record(String(request.task_id))) ??
        (idempotency_key === undefined ? undefined : core.registry.byKey(idempotency_key));
      const parsed = parseTaskRequest(completeRequest(core, request, known?.request));
      const admission = await core.submit(parsed, { correlation_id, idempotency_key });
      return taskOf(core, admission.task_id, admission);
    },
    task(task_id) {
      const record = core.record(task_id);
      if (!record) throw new TaskchartError(failure('NOT_FOUND', `there is no task "${task_id}"`));
      return taskOf(core, record.id, {
        task_id: record.id,
        session_id: record.session_id,
        backoff_ms: 0,
        ...core.place(record),
      });
    },
    preview: async (request) => core.preview(parseTaskRequest(completeRequest(core, request))),
    cancel: (task_id) => core.cancel(task_id),
    remove: (task_id) => core.remove(task_id),
    tasks: ({ session_id, ...filter } = {}) =>
      core.registry
        .page({ ...filter, session_id: session_id && canonicalId(session_id) }, Infinity)
        .tasks.map((record) => taskSummary(core, record)),
    session: (session_id) => core.sessions.info(canonicalId(session_id)),
    touchSession: (session_id) => core.touchSession(canonicalId(session_id)),
    removeSession: (session_id) => core.deleteSession(canonicalId(session_id)),
    capabilities: () => capabilities(core),
    pools: () => Array.from(core.pools.values(), (pool) => poolHealth(pool, clock)),
    observe: (observer) => core.observers.add(observer),
    async close(shutdown_ms) {
      await core.close(shutdown_ms);
      await Promise.all([models.close(), artifact_store.close(), catalog.close()]);
    },
  };
}

function taskOf(core: Orchestrator, id: string, admission: AdmissionResponse): Task {
  return {
    id,
    admission,
    async *events({ after, signal } = {}) {
      const never = new AbortController().signal;
      for await (const batch of core.read(id, after, signal ?? never)) yield* batch.events;
    },
    async info() {
      const record = core.record(id);
      if (!record) throw new TaskchartError(failure('NOT_FOUND', `task ${id} is not kept any more`));
      return taskInfo(core, record);
    },
    cancel: () => core.cancel(id),
  };
}

/**
 * The wire asks for every field; a program that embeds may leave to its pools what they decide anyway.
 * @param before the request of the same task when it was accepted: a pool may say something else by now
 */
function completeRequest(
  core: Orchestrator,
  request: SubmitRequest,
  before?: Readonly<TaskRequest>,
): SubmitRequest {
  if (before) {
    const { workload, engine, model_ref, ctx, priority, max_tokens, deadline_ms } = before;
    return { workload, engine, model_ref, ctx, priority, max_tokens, deadline_ms, ...request };
  }
  const pools = [...core.pools.values()];
  const pool =
    pools.find(
      ({ spec, model }) =>
        (request.model_ref === undefined || serves(core.catalog, model, request.model_ref)) &&
        (request.engine === undefined || spec.engine === request.engine),
    ) ?? pools[0];
  const max_tokens =
    request.max_tokens ?? Math.min(DEFAULT_MAX_TOKENS, pool?.spec.max_tokens_out ?? Infinity);
  const text = request.prompt ?? request.inputs?.join('') ?? JSON.stringify(request.messages ?? []);
  return {
    workload: 'completion',
    engine: pool?.spec.engine,
    model_ref: pool?.model,
    // Until an engine has told its context, enough for the longest count this text can have.
    ctx: pool?.ctxMax ?? Buffer.byteLength(text) + 64 + max_tokens,
    priority: 'interactive',
    max_tokens,
    deadline_ms: DEFAULT_DEADLINE_MS,
    ...request,
  } as SubmitRequest;
}
