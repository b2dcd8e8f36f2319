import { digestIn, digestOfLong, refOf } from '../artifacts/artifact.ts';
import type { ArtifactQuery } from '../artifacts/artifact-store.ts';
import type { Artifact, ArtifactPage, ArtifactRef } from '../contract/generated/types.ts';
import { failure, TaskchartError } from '../errors.ts';
import { isOver } from '../machines/task.ts';
import type { Fact, Store } from '../store/store.ts';
import { eventsSoFar, outputOf, type TaskOutput } from '../streams/read-log.ts';
import type { LogEvent, LogTime, TaskLog } from '../streams/task-log.ts';
import type { Pool } from './pool.ts';
import { isTaskFact } from './task-facts.ts';
import type { TaskRecord } from './task-record.ts';
import type { TaskRegistry } from './task-registry.ts';

export interface TranscriptsOptions {
  log: TaskLog;
  registry: TaskRegistry;
  pools: ReadonlyMap<string, Pool>;
  /** False: there are none. */
  isEnabled: boolean;
  /** Resolves when the ends of tasks so far are stored for good, and with them what transcripts say. */
  kept: () => Promise<unknown>;
}

/** What a task was run with: of its pool, so it has to be noted while that is what it is. */
interface RunWith {
  engine_version?: string;
  sampler_profile_version?: string;
}

interface Made {
  digest: string;
  created_ms: number;
}

/** Ids of transcripts that are known at a time; a transcript whose id is forgotten has to be listed again. */
const MOST_KNOWN = 10_000;

/**
 * The streams of finished tasks as artifacts of the kind `trace`. None is stored: each is made of its log and its
 * record when it is asked for. So nothing that one says may change after its task's end, nor over a restart: its id is
 * the digest of what it says.
 */
export class Transcripts {
  readonly #options: TranscriptsOptions;
  readonly #runs = new Map<string, RunWith>();
  /** What each pool was last, for tasks that outlive its engine; also one object for many tasks. */
  readonly #pools = new Map<string, RunWith>();
  readonly #made = new Map<string, Made>();
  readonly #tasks = new Map<string, string>();

  constructor(options: TranscriptsOptions) {
    this.#options = options;
  }

  /** A task is over: notes what it was run with. */
  note({ id, pool_id, context }: TaskRecord): void {
    const pool = this.#options.pools.get(pool_id);
    if (!pool || context.replica_id === undefined) return;
    const sampler_profile_version = pool.spec.sampler_profile_version;
    let run = this.#pools.get(pool_id);
    const engine_version = pool.properties?.engine_version ?? run?.engine_version;
    if (!run || run.engine_version !== engine_version) {
      run = { sampler_profile_version, ...(engine_version === undefined ? {} : { engine_version }) };
      this.#pools.set(pool_id, run);
    }
    this.#runs.set(id, run);
  }

  /** A task is not known any more. */
  forget(task_id: string): void {
    this.#runs.delete(task_id);
    const made = this.#made.get(task_id);
    this.#made.delete(task_id);
    if (made) this.#tasks.delete(made.digest);
  }

  /** The fact of a task's end, with what was noted. */
  noted(fact: Fact): Fact {
    const data = fact.data as { id: string };
    const run_with = this.#runs.get(data.id);
    return run_with ? { key: fact.key, data: { ...data, run_with } } : fact;
  }

  /** The same store; what its facts say of finished tasks is noted while they are read. */
  noting(store: Store): Store {
    const runs = this.#runs;
    return {
      isDurable: store.isDurable,
      commit: (commit) => store.commit(commit),
      async *fold() {
        for await (const facts of store.fold()) {
          for (const fact of facts) {
            if (!isTaskFact(fact)) continue;
            const { id, run_with } = fact.data as typeof fact.data & { run_with?: RunWith };
            if (run_with) runs.set(id, run_with);
          }
          yield facts;
        }
      },
      close: () => store.close(),
    };
  }

  /** The id of a finished task's transcript; undefined where there is none. */
  async idOf(record: TaskRecord): Promise<string | undefined> {
    return (await this.#refOf(record))?.id;
  }

  /** By an id that was told before. */
  async get(id: string): Promise<Artifact | undefined> {
    const digest = digestIn(id) ?? '';
    const record = this.#options.registry.get(this.#tasks.get(digest) ?? '');
    const artifact = record && (await this.#make(record));
    return artifact && (await digestOfLong(artifact, 'events')) === digest ? artifact : undefined;
  }

  /** Those of the tasks that were accepted last come first. */
  async list({ kind, tag, limit, cursor }: ArtifactQuery): Promise<ArtifactPage> {
    const before = cursor === undefined ? Infinity : sequenceIn(cursor);
    const artifacts: ArtifactRef[] = [];
    if (!this.#options.isEnabled || (kind !== undefined && kind !== 'trace')) return { artifacts };
    let last: number | undefined;
    for (const record of this.#withTag(tag)) {
      if (record.sequence >= before || !isOver(record.state)) continue;
      if (artifacts.length === limit) return { artifacts, next_cursor: String(last ?? record.sequence + 1) };
      const ref = await this.#refOf(record);
      if (!ref) continue;
      artifacts.push(ref);
      last = record.sequence;
    }
    return { artifacts };
  }

  #withTag(tag: string | undefined): TaskRecord[] {
    const { registry } = this.#options;
    const all = (): TaskRecord[] => [...registry.values()].toReversed();
    if (tag === undefined || tag === 'sse' || tag === 'stream') return all();
    const [, kind, id = ''] = /^(task|session):(.+)$/.exec(tag) ?? [];
    if (kind === 'session') return all().filter(({ session_id }) => session_id === id);
    const record = kind === 'task' ? registry.get(id) : undefined;
    return record ? [record] : [];
  }

  async #refOf(record: TaskRecord): Promise<ArtifactRef | undefined> {
    let made = this.#made.get(record.id);
    if (!made) {
      const artifact = await this.#make(record);
      if (!artifact) return undefined;
      made = { digest: await digestOfLong(artifact, 'events'), created_ms: endOf(artifact, record) };
      // It may have been forgotten meanwhile.
      if (this.#options.registry.get(record.id) !== record) return undefined;
      this.#remember(record.id, made);
    }
    return refOf({ kind: 'trace', content: {}, tags: tagsOf(record) }, made.digest, made.created_ms);
  }

  #remember(task_id: string, made: Made): void {
    this.#made.set(task_id, made);
    this.#tasks.set(made.digest, task_id);
    for (const oldest of this.#made.keys()) {
      if (this.#made.size <= MOST_KNOWN) return;
      const { digest } = this.#made.get(oldest) as Made;
      this.#made.delete(oldest);
      this.#tasks.delete(digest);
    }
  }

  async #make(record: TaskRecord): Promise<Artifact | undefined> {
    const { log, registry, isEnabled, kept } = this.#options;
    if (!isEnabled || !isOver(record.state)) return undefined;
    const events = await eventsSoFar(log, record.id);
    const times = (await log.times?.(record.id)) ?? [];
    await kept();
    const output = outputOf(events);
    // It may have been forgotten meanwhile.
    if (!output.terminal || registry.get(record.id) !== record) return undefined;
    const dated = dateEvents(events, times, Math.floor(record.admitted_wall_ms));
    return {
      kind: 'trace',
      tags: tagsOf(record),
      content: { events: dated },
      metadata: this.#metadataOf(record, output, dated),
    };
  }

  #metadataOf(
    record: TaskRecord,
    { tokens, terminal }: TaskOutput,
    dated: readonly DatedEvent[],
  ): Record<string, unknown> {
    const { request, context } = record;
    const isDone = terminal?.type === 'end';
    return {
      job_id: record.id,
      session_id: record.session_id,
      model_ref: request.model_ref,
      ctx: request.ctx,
      max_tokens: request.max_tokens,
      seed: record.seed,
      engine: request.engine,
      ...this.#runs.get(record.id),
      pool_id: record.pool_id,
      ...(context.replica_id === undefined ? {} : { replica_id: context.replica_id }),
      tokens_out: isDone ? terminal.data.tokens_out : tokens,
      decode_time_ms: isDone ? terminal.data.decode_time_ms : decodeTimeOf(dated),
      ...(terminal?.type === 'error' ? { error: terminal.data } : {}),
    };
  }
}

type DatedEvent = Pick<LogEvent, 'type' | 'data'> & { ts_ms?: number };

/** The first event has the time of the admission; those whose time nobody knows have none. */
function dateEvents(
  events: readonly LogEvent[],
  times: readonly LogTime[],
  admitted_ms: number,
): DatedEvent[] {
  let next = 0;
  let at_ms: number | undefined;
  return events.map(({ id, type, data }) => {
    for (; next < times.length && (times[next] as LogTime).from <= id; next++) at_ms = times[next]?.at_ms;
    const ts_ms = id === 0 ? admitted_ms : at_ms;
    // The clock of the log may have been set back since.
    return { type, data, ...(ts_ms === undefined ? {} : { ts_ms: Math.max(admitted_ms, ts_ms) }) };
  });
}

/** From the first output to the end, as far as that is known. */
function decodeTimeOf(events: readonly DatedEvent[]): number {
  const first = events.find(({ type }) => type === 'token' || type === 'embedding' || type === 'rerank');
  return first?.ts_ms === undefined ? 0 : (events.at(-1)?.ts_ms ?? first.ts_ms) - first.ts_ms;
}

function endOf({ content }: Artifact, { admitted_wall_ms }: TaskRecord): number {
  return (content as { events: DatedEvent[] }).events.at(-1)?.ts_ms ?? Math.floor(admitted_wall_ms);
}

function tagsOf({ id, session_id }: TaskRecord): string[] {
  return ['sse', 'stream', `task:${id}`, `session:${session_id}`];
}

function sequenceIn(cursor: string): number {
  if (/^\d{1,15}$/.test(cursor)) return Number(cursor);
  throw new TaskchartError(failure('INVALID_PARAMS', 'cursor: must be the next_cursor of an earlier page'));
}
