import type { TaskFilter } from './actors/task-registry.ts';
import { capabilities, poolHealth, taskInfo, taskSummary } from './actors/views.ts';
import { Orchestrator } from './actors/orchestrator.ts';
import type { Observer } from './actors/observation.ts';
import { blueprintOf } from './blueprint.ts';
import { systemClock, type Clock } from './clock.ts';
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
import { newCorrelationId } from './ids.ts';
import { MemoryStore } from './store/memory-store.ts';
import type { Store } from './store/store.ts';
import { MemoryTaskLog } from './streams/memory-log.ts';
import type { LogEvent, TaskLog } from './streams/task-log.ts';
import { createThreadPool } from './threads/thread-pool.ts';

/** What tests and other hosts replace. */
export interface OrchestratorPortOptions {
  /** @default a store in memory, gone with the process */
  store?: Store;
  /** @default a log in memory */
  task_log?: TaskLog;
  /** @default the system's clock */
  clock?: Clock;
  /** 0 to 1; the jitter of backoffs. @default Math.random */
  random?: () => number;
}

/** The configuration of the daemon, and ports. */
export type OrchestratorOptions = ConfigInput & OrchestratorPortOptions;

/** A task as the library takes it: what is left out comes from the pool that serves it. */
export type SubmitRequest = Partial<TaskRequest>;

export interface SubmitOptions {
  /** Retries that carry the same key are one task. At most 128 characters. */
  idempotency_key?: string;
  /** Name of this call in logs and on calls to engines. @default a fresh UUID */
  correlation_id?: string;
}

/** A submitted task. */
export interface Task {
  readonly id: string;
  readonly admission: AdmissionResponse;
  /**
   * The task's events in order, from the first or after the one with this id, until it is over. May be called
   * any number of times, also after the end; leaving the loop early does not cancel the task.
   */
  events(options?: { after?: number; signal?: AbortSignal }): AsyncIterable<LogEvent>;
  info(): Promise<TaskInfo>;
  /** Resolves when no token can follow any more. Safe to repeat. */
  cancel(): Promise<void>;
}

/** An orchestrator inside this process: everything the daemon does, without HTTP. */
export interface EmbeddedOrchestrator {
  /** @throws TaskchartError the code and the message of the HTTP face */
  submit(request: SubmitRequest, options?: SubmitOptions): Promise<Task>;
  /** What `submit` would say now; nothing is queued. @throws TaskchartError INVALID_PARAMS for a malformed request */
  preview(request: SubmitRequest): Promise<TaskPreview>;
  /** A task that was submitted earlier. @throws TaskchartError NOT_FOUND */
  task(task_id: string): Task;
  cancel(task_id: string): Promise<void>;
  /** Forgets a finished task before its retention ends. @throws TaskchartError INVALID_PARAMS where it is not finished */
  remove(task_id: string): void;
  /** Newest first; all that are known, or those that fit. */
  tasks(filter?: TaskFilter): TaskSummary[];
  /** A session comes into being on first use, this one included. */
  session(session_id: string): SessionInfo;
  capabilities(): Capabilities;
  pools(): PoolHealth[];
  /** @returns how to stop observing */
  observe(observer: Observer): () => void;
  /**
   * Lets running tasks finish, then stops every engine; nothing is left open. Safe to repeat.
   * @param shutdown_ms how long running tasks may take; `server.shutdown_ms` where it is not given
   */
  close(shutdown_ms?: number): Promise<void>;
  /** Resolves once what a store has kept is known again; `submit` waits for it by itself. */
  readonly recovered: Promise<void>;
  /** What the HTTP face is built on. */
  readonly core: Orchestrator;
  readonly config: Config;
}

/**
 * Starts an orchestrator in this process. Pools that preload begin at once; tasks may be submitted meanwhile.
 * @throws ConfigError naming the key
 */
export function createOrchestrator(options: OrchestratorOptions = {}): EmbeddedOrchestrator {
  const { store, task_log: _log, clock: _clock, random: _random, ...settings } = options;
  const config = loadConfig({ overrides: settings });
  if (config.store.kind === 'sqlite' && !store)
    throw new ConfigError('store.kind: sqlite has to be opened first; pass what openStorage(folder) gives');
  return orchestrate(config, options);
}

/** The same from a configuration that was loaded already. */
export function orchestrate(config: Config, ports: OrchestratorPortOptions = {}): EmbeddedOrchestrator {
  const { store, task_log, clock = systemClock, random = Math.random } = ports;
  const core = new Orchestrator(
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
    },
    {
      clock,
      random,
      log: task_log ?? new MemoryTaskLog(),
      store: store ?? new MemoryStore(),
      threads: createThreadPool(),
    },
    config.pools.map((pool) => blueprintOf(pool, config, clock)),
  );
  return {
    core,
    config,
    recovered: core.recovered,
    async submit(request, { idempotency_key, correlation_id = newCorrelationId() } = {}) {
      const parsed = parseTaskRequest(completeRequest(core, request));
      const admission = await core.submit(parsed, { correlation_id, idempotency_key });
      return taskOf(core, admission.task_id, admission);
    },
    task(task_id) {
      const record = core.record(task_id);
      if (!record) throw new TaskchartError(failure('NOT_FOUND', `there is no task "${task_id}"`));
      return taskOf(core, task_id, {
        task_id,
        session_id: record.session_id,
        backoff_ms: 0,
        ...core.place(record),
      });
    },
    preview: async (request) => core.preview(parseTaskRequest(completeRequest(core, request))),
    cancel: (task_id) => core.cancel(task_id),
    remove: (task_id) => core.remove(task_id),
    tasks: (filter = {}) =>
      core.registry.page(filter, Infinity).tasks.map((record) => taskSummary(core, record)),
    session: (session_id) => core.sessions.info(session_id),
    capabilities: () => capabilities(core),
    pools: () => Array.from(core.pools.values(), poolHealth),
    observe: (observer) => core.observers.add(observer),
    close: (shutdown_ms) => core.close(shutdown_ms),
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

/** The wire asks for every field; a program that embeds may leave to its pools what they decide anyway. */
function completeRequest(core: Orchestrator, request: SubmitRequest): SubmitRequest {
  const pools = [...core.pools.values()];
  const pool =
    pools.find(
      ({ spec }) =>
        (request.model_ref === undefined || spec.model === request.model_ref) &&
        (request.engine === undefined || spec.engine === request.engine),
    ) ?? pools[0];
  const max_tokens =
    request.max_tokens ?? Math.min(DEFAULT_MAX_TOKENS, pool?.spec.max_tokens_out ?? Infinity);
  const text = request.prompt ?? request.inputs?.join('') ?? JSON.stringify(request.messages ?? []);
  return {
    workload: 'completion',
    engine: pool?.spec.engine,
    model_ref: pool?.spec.model,
    // Until an engine has told its context, enough for the longest count this text can have.
    ctx: pool?.ctxMax ?? Buffer.byteLength(text) + 64 + max_tokens,
    priority: 'interactive',
    max_tokens,
    deadline_ms: DEFAULT_DEADLINE_MS,
    ...request,
  } as SubmitRequest;
}
