import type { Clock } from '../clock.ts';
import type { AdmissionResponse, TaskPreview, TaskRequest } from '../contract/generated/types.ts';
import { failure, TaskchartError, type Failure } from '../errors.ts';
import { newId } from '../ids.ts';
import { backoff, predictDuration, retryAfter } from '../scheduling/estimate.ts';
import { isPinned, limitsOf, place, type PlacementDecision } from '../scheduling/placement.ts';
import type { Priority } from '../scheduling/queue.ts';
import type { Store } from '../store/store.ts';
import { Candidate } from './candidate.ts';
import { serves, type ModelGate } from './model-gate.ts';
import type { Observers } from './observation.ts';
import { NotPlaced, refusal } from './refusal.ts';
import { isSameRequest } from './same-request.ts';
import type { Pool } from './pool.ts';
import type { Sessions } from './sessions.ts';
import { admissionFact, laterKey, taskKey, type LaterKeyFact } from './task-facts.ts';
import { mostTokensOut, seedOf, type TaskDraft, type TaskRecord } from './task-record.ts';
import type { TaskRegistry } from './task-registry.ts';
import type { Tasks } from './tasks.ts';
import { checkTokens } from './token-check.ts';
import { Turns } from './turns.ts';

export interface AdmissionOptions {
  clock: Clock;
  store: Store;
  pools: ReadonlyMap<string, Pool>;
  tasks: Tasks;
  registry: TaskRegistry;
  sessions: Sessions;
  observers: Observers;
  /** Which models may be used; all of them without one. */
  catalog: ModelGate | undefined;
  /** Whether callers may pin a task to a pool. */
  allow_pin: boolean;
  /** Why nothing is accepted at all now, if so. */
  refusal: () => Failure | undefined;
}

export interface Caller {
  correlation_id: string;
  /** For the log: `localhost`, or `token:` and its fingerprint; undefined where nobody asked. */
  identity?: string | undefined;
  idempotency_key?: string | undefined;
}

/** Where a task would go, and when. */
interface Seat {
  pool: Pool;
  queue_position: number;
  predicted_start_ms: number;
  decision: PlacementDecision;
  /** Whose place it takes in a full queue. */
  victim: TaskRecord | undefined;
}

/** The way of a valid request into a queue: each check in the contract's order, then the store, then the queue. */
export class Admission {
  readonly #options: AdmissionOptions;
  readonly #turns = new Turns();
  readonly #candidates: Partial<Record<Priority, readonly Candidate[]>> = {};
  /** Callers' ids whose commit was not answered: they may be on disk already, and are written over when posted again. */
  readonly #uncertain = new Set<string>();
  /** Admissions that wait for the store, and who waits for the last of them. */
  #commits = 0;
  #committed: (() => void) | undefined;

  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  /**
   * Accepts a task, or answers with its current place where its id or its key is known already.
   * @throws TaskchartError with the code of the first check that refuses
   */
  async submit(request: TaskRequest, caller: Caller): Promise<AdmissionResponse> {
    const { task_id } = request;
    const { idempotency_key } = caller;
    try {
      if (task_id === undefined && idempotency_key === undefined) return await this.#admit(request, caller);
      const names = [
        ...(task_id === undefined ? [] : [`task ${task_id}`]),
        ...(idempotency_key === undefined ? [] : [`key ${idempotency_key}`]),
      ];
      return await this.#turns.take(names, async () => {
        const known = this.#knownAs(request, idempotency_key);
        return known ? this.#readmit(known, caller) : this.#admit(request, caller);
      });
    } catch (error) {
      if (error instanceof TaskchartError)
        this.#options.observers.tell({
          type: 'task.refused',
          failure: error.failure,
          engine: request.engine,
          correlation_id: caller.correlation_id,
          identity: caller.identity,
          placement: error instanceof NotPlaced ? error.placement : undefined,
        });
      throw error;
    }
  }

  /** Runs every check of an admission, and leaves no trace; one that is accepted already is told its place. */
  async preview(request: TaskRequest): Promise<TaskPreview> {
    try {
      const known = this.#knownAs(request);
      if (known) return { feasible: true, ...this.place(known) };
      await this.#checkRequest(request);
      const { queue_position, predicted_start_ms } = this.#findSeat(request, 'preview');
      return { feasible: true, queue_position, predicted_start_ms };
    } catch (error) {
      if (!(error instanceof TaskchartError)) throw error;
      const { code, message, retriable } = error.failure;
      return { feasible: false, code, reason: message, retriable };
    }
  }

  /** Resolves once every admission that waits for the store has had its answer and is in its queue. */
  async settled(): Promise<void> {
    if (this.#commits > 0) await new Promise<void>((resolve) => (this.#committed = resolve));
  }

  /** Current place of a task that waits, and what was told at admission of one that does not. */
  place(record: TaskRecord): { queue_position: number; predicted_start_ms: number } {
    const pool = this.#options.pools.get(record.pool_id);
    return (
      pool?.forecast.of(record) ?? {
        queue_position: 0,
        predicted_start_ms: record.context.predicted_start_ms,
      }
    );
  }

  async #admit(request: TaskRequest, caller: Caller): Promise<AdmissionResponse> {
    const { clock, sessions, tasks, registry, observers } = this.#options;
    const tokens_in = await this.#checkRequest(request);
    const { pool, queue_position, predicted_start_ms, decision, victim } = this.#findSeat(request, 'admit');
    const id = request.task_id ?? newId();
    const session_id = request.session_id ?? newId();
    const draft: TaskDraft = {
      id,
      sequence: registry.nextSequence(),
      session_id,
      request,
      priority: request.priority,
      pool_id: pool.spec.id,
      correlation_id: caller.correlation_id,
      identity: caller.identity,
      idempotency_key: caller.idempotency_key,
      seed: request.seed ?? seedOf(id),
      admitted_wall_ms: clock.wall(),
      tokens_in,
      expected_tokens: pool.forecast.tokensOf(request),
      is_restored: false,
      due_at: clock.now() + request.deadline_ms,
      digest: undefined,
      queue_links: undefined,
      state: undefined,
      context: undefined,
    };
    const estimate = { queue_position, predicted_start_ms };
    pool.rateLimits[request.priority]?.take(clock.now());
    // Nobody else may take the victim's place meanwhile, and it is lost only to a task that is really there.
    if (victim) pool.setAside(victim);
    pool.queue.reserve(request.priority, draft.expected_tokens);
    sessions.accept(session_id, id, mostTokensOut(request));
    this.#commits++;
    try {
      await this.#commit(draft, estimate);
    } catch (error) {
      sessions.release(session_id, id);
      if (victim) pool.takeBack(victim);
      throw error;
    } finally {
      pool.queue.release(request.priority, draft.expected_tokens);
      // Whoever waits has a turn of its own, after what follows here.
      if (--this.#commits === 0) this.#committed?.();
    }
    if (victim) pool.drop(victim);
    const record = tasks.admit(draft, estimate);
    registry.add(record);
    observers.tell({ type: 'task.admitted', record, decision });
    pool.enqueue(record);
    return this.#answer(record, estimate);
  }

  /** The contract's steps 3 to 5: what does not depend on how busy this server is. */
  async #checkRequest(request: TaskRequest): Promise<number | undefined> {
    const { engine, deadline_ms } = request;
    const ofServer = this.#options.refusal();
    if (ofServer) throw refusal({ engine, ...ofServer });
    if (deadline_ms <= 0)
      throw refusal(
        failure(
          'DEADLINE_UNMET',
          `deadline_ms: must be above 0 (milliseconds from admission), got ${deadline_ms}`,
          { engine },
        ),
      );
    this.#checkModel(request);
    const candidates = this.#candidatesFor(request);
    const limits = limitsOf(candidates, request);
    if (limits.failure && limits.reason)
      throw new NotPlaced(
        { engine, ...limits.failure },
        { reason: limits.reason, considered: candidates.length, feasible: 0, pinned: isPinned(request) },
      );
    const counter = limits.pool_id === undefined ? undefined : this.#options.pools.get(limits.pool_id);
    return counter && checkTokens(request, counter, this.#options.clock);
  }

  /** Step 4. Asked again in the turn in which a place is given: a model may be retired while tokens are counted. */
  #checkModel({ engine, model_ref }: TaskRequest): void {
    const ofModel = this.#options.catalog?.refusalOf(model_ref);
    if (ofModel) throw refusal({ engine, ...ofModel });
  }

  /** Steps 6 to 10, in one turn: nothing can change between them. */
  #findSeat(request: TaskRequest, purpose: 'admit' | 'preview'): Seat {
    const { sessions, clock, pools, observers, allow_pin } = this.#options;
    const { engine, priority, session_id } = request;
    this.#checkModel(request);
    const ofSession = sessions.refusalOf(session_id, mostTokensOut(request));
    if (ofSession) {
      if (purpose === 'admit' && session_id !== undefined) sessions.exhaust(session_id);
      throw refusal({ engine, ...ofSession });
    }

    const affinity = session_id === undefined ? undefined : sessions.affinity(session_id);
    const decision: PlacementDecision = place(
      this.#candidatesFor(request),
      { ...request, affinity_pool_id: affinity?.pool_id },
      { allow_pin },
    );
    if (purpose === 'admit') observers.tell({ type: 'placement.decided', decision });
    const pool = decision.kind === 'assigned' ? pools.get(decision.pool_id) : undefined;
    const wait_ms = pool?.rateLimits[priority]?.waitFor(clock.now()) ?? 0;
    if (pool && wait_ms > 0)
      throw refusal(
        failure(
          'ADMISSION_REJECT',
          `priority: too many ${priority} tasks per second for pool ${pool.spec.id}`,
          {
            engine,
            pool_id: pool.spec.id,
            policy_label: 'rate-limit',
            retry_after_ms: Math.ceil(wait_ms),
          },
        ),
      );
    if (decision.kind === 'refused') throw new NotPlaced(decision.failure, decision);
    return { ...this.#seatIn(pool as Pool, request), decision };
  }

  /** Steps 9 and 10. */
  #seatIn(pool: Pool, request: TaskRequest): Omit<Seat, 'decision'> {
    const { priority, deadline_ms } = request;
    const context = { engine: pool.spec.engine, pool_id: pool.spec.id };
    const { queue_position, predicted_start_ms } = pool.forecast.newcomer(priority);
    if (predicted_start_ms > deadline_ms)
      throw refusal(
        failure(
          'DEADLINE_UNMET',
          `deadline_ms: the task would start in ${predicted_start_ms} ms, after its deadline of ${deadline_ms} ms`,
          context,
        ),
      );
    const predicted_end_ms = predicted_start_ms + predictDuration(pool.rates, request);
    // What nobody is in the way of is tried: how fast a pool is now shows only where it runs something.
    if (predicted_end_ms > deadline_ms && !pool.isIdle)
      throw refusal(
        failure(
          'DEADLINE_UNMET',
          `deadline_ms: the task would end in ${Math.round(predicted_end_ms)} ms at the earliest, after its deadline of ${deadline_ms} ms`,
          context,
        ),
      );
    const answer = pool.queue.admit(priority);
    if (answer.kind === 'refuse')
      throw refusal(
        failure(answer.code, `the queue of pool ${pool.spec.id} is full (${answer.capacity} tasks)`, {
          ...context,
          policy_label: answer.policy,
          retry_after_ms: retryAfter(pool.forecast.load()),
        }),
      );
    return {
      pool,
      queue_position,
      predicted_start_ms,
      victim: answer.kind === 'evict' ? answer.victim : undefined,
    };
  }

  /** All pools; they are those of the configuration, and there before the first task. */
  #candidatesFor({ priority, model_ref }: TaskRequest): readonly Candidate[] {
    const { pools, catalog } = this.#options;
    const all = (this.#candidates[priority] ??= Array.from(
      pools.values(),
      (pool) => new Candidate(pool, priority),
    ));
    // A task may name the model otherwise than the pool does.
    const isOther = ({ model }: Candidate): boolean =>
      model !== model_ref && serves(catalog, model, model_ref);
    return all.some(isOther)
      ? all.map((candidate) => (isOther(candidate) ? candidate.calling(model_ref) : candidate))
      : all;
  }

  async #commit(
    draft: TaskDraft,
    estimate: { queue_position: number; predicted_start_ms: number },
  ): Promise<void> {
    const { store, sessions } = this.#options;
    const { id, session_id } = draft;
    const facts = [admissionFact(draft, estimate)];
    if (sessions.isLimited) facts.push(sessions.factOf(session_id));
    const checks = this.#uncertain.has(id) ? [] : [{ key: taskKey(id), version: 0 }];
    const result = store.commit({ checks, facts });
    const answer = result instanceof Promise ? await result : result;
    if (answer === 'ok') return void this.#uncertain.delete(id);
    if (answer === 'conflict')
      throw refusal(
        failure('INVALID_PARAMS', `task_id: ${id} is in use`, { engine: draft.request.engine }),
        409,
      );
    // Only whoever chose the id can post it again.
    const isRepeatable = draft.request.task_id !== undefined;
    if (isRepeatable) this.#uncertain.add(id);
    throw refusal(
      failure(
        'INTERNAL',
        isRepeatable
          ? 'the store did not answer; post the same task_id again'
          : 'the store did not answer; post the task again',
        { retriable: true, engine: draft.request.engine },
      ),
    );
  }

  /** The task that the request was accepted as before. @throws TaskchartError INVALID_PARAMS (409) where it is another */
  #knownAs(request: TaskRequest, idempotency_key?: string): TaskRecord | undefined {
    const { registry } = this.#options;
    const byId = request.task_id === undefined ? undefined : registry.get(request.task_id);
    const byKey = idempotency_key === undefined ? undefined : registry.byKey(idempotency_key);
    const other = (what: string): TaskchartError =>
      refusal(failure('INVALID_PARAMS', what, { engine: request.engine }), 409);
    if (byId && !isSameRequest(byId, request))
      throw other(`task_id: ${byId.id} was accepted with another body; use a new id`);
    if (byKey && (byId ? byId !== byKey : !isSameRequest(byKey, request)))
      throw other('Idempotency-Key: this key was accepted with another body; use a new key');
    return byId ?? byKey;
  }

  async #readmit(record: TaskRecord, { idempotency_key }: Caller): Promise<AdmissionResponse> {
    const { registry, store, clock } = this.#options;
    if (idempotency_key !== undefined && registry.byKey(idempotency_key) !== record) {
      const fact: LaterKeyFact = {
        key: laterKey(idempotency_key),
        data: { task_id: record.id, used_wall_ms: clock.wall() },
      };
      const answer = await store.commit({ facts: [fact] });
      if (answer !== 'ok')
        throw refusal(
          failure('INTERNAL', 'the store did not answer; post the same again', {
            retriable: true,
            engine: record.request.engine,
          }),
        );
      registry.addKey(idempotency_key, record.id, clock.now());
    }
    return this.#answer(record, this.place(record));
  }

  #answer(
    record: TaskRecord,
    estimate: { queue_position: number; predicted_start_ms: number },
  ): AdmissionResponse {
    const pool = this.#options.pools.get(record.pool_id);
    return {
      task_id: record.id,
      session_id: record.session_id,
      ...estimate,
      backoff_ms: pool ? backoff(pool.forecast.load()) : 0,
    };
  }
}
