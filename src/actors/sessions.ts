import type { MetricsEvent, SessionInfo } from '../contract/generated/types.ts';
import { failure, type Failure } from '../errors.ts';
import { createRecordStepper } from '../machines/record-step.ts';
import {
  sessionMachine,
  type SessionContext,
  type SessionEvent,
  type SessionFact,
  type SessionInput,
  type SessionState,
} from '../machines/session.ts';
import {
  budgetFields,
  chargeOf,
  NOTHING_SPENT,
  refusalByBudget,
  remainingOf,
  type Account,
  type Remaining,
} from '../scheduling/budget.ts';
import type { Fact } from '../store/store.ts';
import { IdleList, type Idle } from './idle-list.ts';
import type { SessionsOptions, Warm } from './sessions-options.ts';

/** Prefix of the keys under which sessions are in a store. */
export const SESSION_KEY = 'session/';

type SessionMetrics = Pick<
  MetricsEvent,
  'kv_warmth' | 'tokens_budget_remaining' | 'time_budget_remaining_ms' | 'cost_budget_remaining'
>;

/** What a store keeps of a session: numbers only. Caches are not among them, they die with their engines. */
type SessionData = Pick<SessionContext, 'turns' | 'running' | 'spent'> & {
  /** Epoch milliseconds. */
  last_seen_wall_ms: number;
};

/** `state` and `context` are written by the machine only. */
interface Session extends Idle {
  readonly id: string;
  state: SessionState;
  context: SessionContext;
}

const MAX_SESSIONS = 100_000;

/** Longer waits make a timer of Node fire at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

const NEW_ACCOUNT: Account = { spent: NOTHING_SPENT, reserved_tokens: 0 };

const stepper = createRecordStepper<typeof sessionMachine, SessionFact>(sessionMachine, { at: 0 });

/**
 * Every session as a record under the session machine, with one timer for all. Nothing here is asynchronous:
 * a check and the `accept` that follows it in the same turn of the event loop see the same budgets.
 */
export class Sessions {
  readonly #options: SessionsOptions;
  readonly #sessions = new Map<string, Session>();
  /** Those without unfinished tasks, in the order of their last use. */
  readonly #idle = new IdleList<Session>();
  /** Unfinished tasks; an entry outlives its session, and then counts for nobody. */
  readonly #tasks = new Map<string, { session: Session; reserve: number }>();
  /** Not before this is there a session to expire, in monotonic milliseconds. */
  #due = Infinity;
  #timer: unknown;
  #kvBytes = 0;

  constructor(options: SessionsOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#sessions.size;
  }

  /** Bytes of cache that all warm sessions hold. */
  get kvBytes(): number {
    return this.#kvBytes;
  }

  /** The same by replica. */
  kvBytesByReplica(): Map<string, number> {
    const held = new Map<string, number>();
    for (const { context } of this.#sessions.values()) {
      const { replica_id, kv_bytes } = context.warmth ?? {};
      if (replica_id !== undefined) held.set(replica_id, (held.get(replica_id) ?? 0) + (kv_bytes ?? 0));
    }
    return held;
  }

  /** Whether any budget or a limit of turns is configured. */
  get isLimited(): boolean {
    const { budgets, max_turns } = this.#options;
    return max_turns !== null || budgets.tokens !== null || budgets.time_ms !== null || budgets.cost !== null;
  }

  /**
   * Why a task of so many tokens may not come to this session now; without an id, to a new one. Only asks: who refuses
   * a task because of it says so by {@link exhaust}.
   * @returns undefined, INVALID_PARAMS where the turns are used, or ADMISSION_REJECT by a budget
   */
  refusalOf(session_id: string | undefined, max_tokens: number): Failure | undefined {
    const { budgets, max_turns, cost_per_output_token } = this.#options;
    const session = session_id === undefined ? undefined : this.#find(session_id);
    if (session && this.#isExhausted(session))
      return failure(
        'INVALID_PARAMS',
        `session_id: this session has had all its turns, session.max_turns is ${max_turns}; it is ended, and a new task under any session_id begins a new one`,
      );
    const cause = refusalByBudget(
      budgets,
      session?.context ?? NEW_ACCOUNT,
      max_tokens,
      cost_per_output_token,
    );
    // What this session cannot give, the next one under its id may.
    return cause && { retry_after_ms: this.#expiresIn(session), ...cause };
  }

  /** Ends a session that was refused a task because it has had all its turns: its id begins anew. */
  exhaust(session_id: string): void {
    const session = this.#sessions.get(session_id);
    if (session && this.#isExhausted(session)) this.#send(session, { type: 'session.exhaust' });
  }

  /** A task is accepted: counts a turn and reserves its tokens. Safe to repeat; ask {@link refusalOf} first. */
  accept(session_id: string, task_id: string, max_tokens: number): void {
    this.#adopt('session.accept', session_id, task_id, max_tokens);
  }

  /** An unfinished task of before a restart: reserves its tokens, and its turn is counted already. */
  readopt(session_id: string, task_id: string, max_tokens: number): void {
    this.#adopt('session.readopt', session_id, task_id, max_tokens);
  }

  /** A task is over: gives its reservation back and charges what it used. Ignored for what is not known any more. */
  settle(session_id: string, task_id: string, usage: { tokens_out: number; decode_ms: number }): void {
    this.#evictExpired();
    const task = this.#take(session_id, task_id);
    if (!task) return;
    this.#use(task.session, {
      type: 'session.settle',
      at: this.#options.clock.now(),
      reserve: task.reserve,
      spent: chargeOf(usage, task.reserve, this.#options.cost_per_output_token),
    });
  }

  /** An accepted task was not admitted after all: its turn and its reservation are taken back. */
  release(session_id: string, task_id: string): void {
    const task = this.#take(session_id, task_id);
    if (!task) return;
    const at = this.#options.clock.now();
    this.#use(task.session, { type: 'session.release', at, reserve: task.reserve });
  }

  /** A first token: this replica has the session's cache now. */
  warm(session_id: string, pool_id: string, replica_id: string, kv_bytes: number): void {
    const session = this.#sessions.get(session_id);
    if (!session) return;
    // What an engine will not use again, it does not hold for the session either.
    const held = this.#options.reuses?.(pool_id) === false ? 0 : kv_bytes;
    this.#send(session, { type: 'session.warm', pool_id, replica_id, kv_bytes: held });
  }

  /**
   * A replica is gone, and the caches with it.
   * @param cause after a `failover` the budgets of these sessions begin anew, after an orderly `unload` they go on
   * @returns the sessions that became cold
   */
  cool(replica_id: string, cause: 'unload' | 'failover' = 'unload'): string[] {
    const cooled: string[] = [];
    for (const session of this.#sessions.values()) {
      if (session.context.warmth?.replica_id !== replica_id) continue;
      this.#send(session, { type: 'session.cool', failover: cause === 'failover' });
      cooled.push(session.id);
    }
    return cooled;
  }

  /** The session as it is now; it exists after this. While a task is unfinished, its TTL has not begun. */
  info(session_id: string): SessionInfo {
    const { clock } = this.#options;
    let session = this.#find(session_id);
    if (!session) this.#rest((session = this.#create(session_id, { at: clock.now() })));
    const { turns } = session.context;
    const warmth = this.#usable(session.context.warmth);
    return {
      ttl_ms_remaining: this.#expiresIn(session),
      turns,
      kv_bytes: warmth?.kv_bytes ?? 0,
      kv_warmth: warmth !== undefined,
      ...budgetFields(this.#remaining(session.context)),
    };
  }

  /** Begins its TTL anew. @returns false where there is no such session */
  touch(session_id: string): boolean {
    const session = this.#find(session_id);
    if (session) this.#use(session, { type: 'session.touch', at: this.#options.clock.now() });
    return session !== undefined;
  }

  /** Forgets it. Its running tasks go on, and what they use is charged to nobody. */
  delete(session_id: string): void {
    const session = this.#sessions.get(session_id);
    if (session) this.#send(session, { type: 'session.delete' });
  }

  /** The replica that has its cache; undefined where it is cold. */
  affinity(session_id: string): Warm | undefined {
    return this.#find(session_id)?.context.warmth;
  }

  /** Whether a replica has its cache, and uses it. */
  isWarm(session_id: string): boolean {
    return this.#usable(this.#find(session_id)?.context.warmth) !== undefined;
  }

  #usable<W extends Warm>(warmth: W | undefined): W | undefined {
    const { reuses } = this.#options;
    return warmth && reuses?.(warmth.pool_id) === false ? undefined : warmth;
  }

  /** What is left of each configured budget; a session that does not exist has all. */
  remaining(session_id: string): Remaining {
    return this.#remaining(this.#find(session_id)?.context ?? NEW_ACCOUNT);
  }

  /** What its tasks' `metrics` say of it. */
  metricsOf(session_id: string): SessionMetrics {
    const { tokens, time_ms, cost } = this.remaining(session_id);
    return {
      kv_warmth: this.isWarm(session_id),
      ...(tokens === undefined ? {} : { tokens_budget_remaining: tokens }),
      ...(time_ms === undefined ? {} : { time_budget_remaining_ms: time_ms }),
      ...(cost === undefined ? {} : { cost_budget_remaining: cost }),
    };
  }

  /** What a store should keep of it; without data where it is gone, which makes the store forget it. */
  factOf(session_id: string): Fact {
    const { clock } = this.#options;
    const context = this.#sessions.get(session_id)?.context;
    const data: SessionData | undefined = context && {
      turns: context.turns,
      running: context.running,
      spent: context.spent,
      last_seen_wall_ms: Math.round(clock.wall() - (clock.now() - context.last_seen_at)),
    };
    return { key: SESSION_KEY + session_id, data };
  }

  /**
   * Takes a session back from a store. Its unfinished tasks come by {@link readopt}; one that had some was never idle
   * and is kept a TTL from now, whenever it was last seen.
   * @returns the fact by which the store forgets it, where its TTL has passed
   */
  restore({ key, data }: Fact): Fact | undefined {
    const { clock, ttl_ms } = this.#options;
    const id = key.slice(SESSION_KEY.length);
    const { turns, running, spent, last_seen_wall_ms } = data as SessionData;
    const idle_ms = running > 0 ? 0 : Math.max(0, clock.wall() - last_seen_wall_ms);
    if (idle_ms >= ttl_ms) return { key, data: undefined };
    if (this.#sessions.has(id)) return undefined;
    const session = this.#create(id, { at: clock.now() - idle_ms, turns, spent });
    this.#idle.append(session);
    this.#wake(session.context.last_seen_at + ttl_ms);
    return undefined;
  }

  /** Forgets everything and tells nobody. */
  close(): void {
    this.#options.clock.clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#due = Infinity;
    this.#sessions.clear();
    this.#tasks.clear();
    this.#idle.clear();
    this.#kvBytes = 0;
  }

  /** Milliseconds at least; while a task of it is unfinished, its TTL has not begun. */
  #expiresIn(session: Session | undefined): number {
    const { clock, ttl_ms } = this.#options;
    if (!session || session.context.running > 0) return ttl_ms;
    return Math.ceil(session.context.last_seen_at + ttl_ms - clock.now());
  }

  #isExhausted({ context }: Session): boolean {
    const { max_turns } = this.#options;
    return max_turns !== null && context.turns >= max_turns;
  }

  #adopt(type: 'session.accept' | 'session.readopt', id: string, task_id: string, reserve: number): void {
    const at = this.#options.clock.now();
    const known = this.#find(id);
    if (!known) {
      // Most sessions are made for one task: to be made with it saves a step.
      const session = this.#create(id, { at, reserve, turns: type === 'session.accept' ? 1 : 0 });
      this.#tasks.set(task_id, { session, reserve });
      return;
    }
    if (this.#tasks.get(task_id)?.session === known) return;
    this.#tasks.set(task_id, { session: known, reserve });
    this.#use(known, { type, at, reserve });
  }

  #take(session_id: string, task_id: string): { session: Session; reserve: number } | undefined {
    const task = this.#tasks.get(task_id);
    if (task?.session.id !== session_id) return undefined;
    this.#tasks.delete(task_id);
    return this.#sessions.get(session_id) === task.session ? task : undefined;
  }

  #find(session_id: string): Session | undefined {
    this.#evictExpired();
    return this.#sessions.get(session_id);
  }

  #create(id: string, input: SessionInput): Session {
    const { state, context } = stepper.begin(input);
    const session: Session = { id, state, context, previous: undefined, next: undefined };
    this.#sessions.set(id, session);
    return session;
  }

  /** An event that counts as a use. */
  #use(session: Session, event: SessionEvent): void {
    this.#send(session, event);
    this.#idle.remove(session);
    if (session.context.running === 0) this.#rest(session);
  }

  #send(session: Session, event: SessionEvent): void {
    const before = session.context.warmth;
    const { state, context, facts } = stepper.step(session, event);
    session.state = state;
    session.context = context;
    if (context.warmth !== before) this.#kvBytes += (context.warmth?.kv_bytes ?? 0) - (before?.kv_bytes ?? 0);
    for (const { reason, warmth } of facts) {
      this.#sessions.delete(session.id);
      this.#idle.remove(session);
      this.#options.evicted?.(session.id, warmth, reason);
    }
  }

  #rest(session: Session): void {
    const { ttl_ms, max_sessions = MAX_SESSIONS } = this.#options;
    this.#idle.append(session);
    this.#wake(session.context.last_seen_at + ttl_ms);
    while (this.#idle.length > max_sessions && this.#idle.oldest)
      this.#send(this.#idle.oldest, { type: 'session.expire' });
  }

  #evictExpired(): void {
    // With nobody idle there is nothing to look at the clock for.
    if (this.#due === Infinity) return;
    const { clock, ttl_ms } = this.#options;
    const now = clock.now();
    if (now < this.#due) return;
    this.#due = Infinity;
    for (let oldest = this.#idle.oldest; oldest; oldest = this.#idle.oldest) {
      const due = oldest.context.last_seen_at + ttl_ms;
      if (due > now) return this.#wake(due);
      this.#send(oldest, { type: 'session.expire' });
    }
  }

  /** The timer is not moved when its session is used again: it fires, finds nothing and is set anew. */
  #wake(due: number): void {
    if (due >= this.#due) return;
    const { clock } = this.#options;
    this.#due = due;
    clock.clearTimeout(this.#timer);
    this.#timer = clock.setTimeout(
      () => {
        this.#evictExpired();
        // It may have come too early: by Node's rounding, or because nothing can wait for longer.
        const next = this.#due;
        this.#due = Infinity;
        this.#wake(next);
      },
      Math.min(LONGEST_TIMER_MS, Math.max(1, due - clock.now())),
    );
  }

  #remaining(account: Account): Remaining {
    return remainingOf(this.#options.budgets, account, this.#options.cost_per_output_token);
  }
}
