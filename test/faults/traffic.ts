import { setTimeout as sleep } from 'node:timers/promises';
import type {
  AdmissionResponse,
  TaskInfo,
  TaskPage,
  TaskRequest,
  TaskSummary,
} from '../../src/contract/generated/types.ts';
import { uuidOf, type Chance } from './chance.ts';
import type { Daemon } from './daemon.ts';
import { isOver, type Ledger, type Reading, type Wish } from './ledger.ts';
import { follow, type Patience } from './readers.ts';

/** What a pool is asked for. */
export interface Kind {
  engine: TaskRequest['engine'];
  model_ref: string;
  ctx: number;
  prompts: readonly string[];
  max_tokens: readonly [least: number, most: number];
  /** How often it is asked for, relative to the others. */
  weight: number;
}

export interface TrafficOptions {
  daemon: Daemon;
  ledger: Ledger;
  chance: Chance;
  seed: number;
  kinds: readonly Kind[];
  patience: Patience;
}

/** What a client was just told. */
export type Moment = 'accepted' | 'canceled' | 'over';

/** Numbers of sessions that are shared begin here. */
const SHARED = 1_000_000_000;

/** Requests that are refused because of what they are, or where the server is. */
const REFUSALS: ReadonlySet<string> = new Set(['ADMISSION_REJECT', 'POOL_UNREADY']);

/** Clients of a daemon that dies: they post, post again, read, leave, come back and cancel. */
export class Traffic {
  /** Each is that of many tasks; all others have one of their own. */
  readonly shared_sessions = new Set<string>();
  readonly #options: TrafficOptions;
  readonly #readers: Promise<void>[] = [];
  readonly #looks: Promise<void>[] = [];
  readonly #kinds: readonly Kind[];
  readonly #moments = new Map<Moment, PromiseWithResolvers<void>>();
  #number = 0;

  constructor(options: TrafficOptions) {
    this.#options = options;
    this.#kinds = options.kinds.flatMap((kind) => Array.from({ length: kind.weight }, () => kind));
  }

  /** The next time that a client is told this. */
  next(moment: Moment): Promise<void> {
    const next = this.#moments.get(moment) ?? Promise.withResolvers<void>();
    this.#moments.set(moment, next);
    return next.promise;
  }

  /** One life of the daemon: posts `count` tasks within so many milliseconds, all else with them. */
  async round(count: number, within_ms: number): Promise<void> {
    const { chance, ledger } = this.#options;
    const work: Promise<void>[] = [];
    // What had no answer is asked for again.
    for (const wish of ledger.wishes) {
      const isOpen = wish.unanswered > 0 && !wish.admission && !wish.refused;
      if (isOpen && wish.insists) work.push(this.#post(wish));
    }
    for (let n = 0; n < count; n++) {
      // In bursts, so that some are written to disk together.
      const at_ms = Math.floor(chance.next() * 8) * (within_ms / 8) + chance.between(0, 10);
      work.push(this.#want(this.#plan(), at_ms));
    }
    await Promise.all(work);
  }

  /** What a client that was told 204 may rely on: asked right after a start. */
  async lookAtCanceled(): Promise<void> {
    const { ledger, daemon } = this.#options;
    const canceled = ledger.wishes.filter(({ is_canceled, over }) => is_canceled && !over);
    await Promise.all(
      canceled.map(async (wish) => {
        const info = await getTask(daemon.url, wish.admission?.task_id ?? '').catch(() => undefined);
        if (info && !isOver(info))
          ledger.mishaps.push(`${wish.name} was canceled with 204 and is ${info.state} after a restart`);
        else if (info) wish.over = info;
      }),
    );
  }

  /** Resolves when every reader has seen the end of its task. */
  async readersDone(): Promise<void> {
    await Promise.all(this.#readers);
    await Promise.all(this.#looks);
  }

  #plan(): Wish {
    const { chance, ledger, seed } = this.#options;
    const number = ++this.#number;
    const kind = chance.one(this.#kinds);
    const name = `task ${number} of ${kind.model_ref}`;
    const naming = chance.next();
    const isShared = chance.happens(0.2);
    const session_id = uuidOf(seed, isShared ? SHARED + this.#shared() : 2 * number + 1);
    if (isShared) this.shared_sessions.add(session_id);
    const request: TaskRequest = {
      ...(naming < 0.5 ? { task_id: uuidOf(seed, 2 * number) } : {}),
      session_id,
      workload: 'completion',
      engine: kind.engine,
      model_ref: kind.model_ref,
      ctx: kind.ctx,
      priority: chance.happens(0.5) ? 'interactive' : 'batch',
      max_tokens: chance.between(...kind.max_tokens),
      deadline_ms: 3_600_000,
      prompt: chance.one(kind.prompts),
    };
    const key = naming > 0.4 && naming < 0.75 ? `key-${seed}-${number}` : undefined;
    return ledger.wish(name, request, key, naming < 0.75 && chance.happens(0.7));
  }

  /** A few at a time, and others later: a session that has spent its budget takes nothing more. */
  #shared(): number {
    return this.#options.chance.between(0, 3) + 4 * Math.floor(this.#number / 200);
  }

  async #want(wish: Wish, at_ms: number): Promise<void> {
    const { chance } = this.#options;
    const isTwice = isRepeatable(wish) && chance.happens(0.1);
    const isAgain = isRepeatable(wish) && chance.happens(0.2);
    const isAnother = isRepeatable(wish) && chance.happens(0.1);
    const cancel_after_ms = chance.happens(0.25) ? chance.between(0, 200) : undefined;
    const readers = chance.one([0, 1, 1, 2, 3]);
    const habits = Array.from({ length: readers }, () => ({
      starts_after_ms: chance.one([0, 0, 0, chance.between(0, 500)]),
      via: chance.one(['wire', 'wire', 'client'] as const),
      ...(chance.happens(0.3) ? { leaves_after: chance.between(1, 12) } : {}),
      ...(chance.happens(0.1) ? { after: 0 } : {}),
    }));
    await sleep(at_ms);
    await Promise.all(isTwice ? [this.#post(wish), this.#post(wish)] : [this.#post(wish)]);
    if (!wish.admission) return;
    const { task_id } = wish.admission;
    for (const { starts_after_ms, ...habit } of habits) this.#read(wish, task_id, habit, starts_after_ms);
    if (isAgain) await this.#post(wish);
    if (isAnother) await this.#postAnother(wish);
    if (cancel_after_ms !== undefined) {
      await sleep(cancel_after_ms);
      await this.#cancel(wish, task_id);
    }
  }

  #tell(moment: Moment): void {
    this.#moments.get(moment)?.resolve();
    this.#moments.delete(moment);
  }

  async #post(wish: Wish): Promise<void> {
    const { ledger } = this.#options;
    const wasAccepted = wish.admission !== undefined;
    const answer = await this.#send(wish, wish.request);
    if (answer === undefined) {
      wish.unanswered++;
      return;
    }
    const { status, body } = answer;
    if (status === 202) {
      this.#tell('accepted');
      const admission = body as unknown as AdmissionResponse;
      const expected = wish.admission?.task_id ?? wish.request.task_id ?? admission.task_id;
      if (admission.task_id !== expected)
        ledger.mishaps.push(`${wish.name} is ${expected}, posted again it became ${admission.task_id}`);
      wish.admission ??= admission;
      return;
    }
    const code = String(body['code']);
    // A server that stops says nothing of what it knows already.
    if (status === 503 && (wasAccepted || wish.unanswered > 0)) return;
    if (wasAccepted || !REFUSALS.has(code))
      ledger.mishaps.push(
        `${wish.name} was ${wasAccepted ? 'accepted and then ' : ''}refused: ${JSON.stringify(body)}`,
      );
    wish.refused = { status, code };
  }

  /** The same id or key with another body. */
  async #postAnother(wish: Wish): Promise<void> {
    const answer = await this.#send(wish, { ...wish.request, max_tokens: wish.request.max_tokens + 1 });
    if (answer && answer.status !== 409 && answer.status !== 503)
      this.#options.ledger.mishaps.push(`${wish.name} with another body was answered ${answer.status}`);
  }

  /** @returns undefined where nobody answered */
  async #send(
    { idempotency_key }: Wish,
    request: TaskRequest,
  ): Promise<{ status: number; body: Record<string, unknown> } | undefined> {
    try {
      const response = await fetch(`${this.#options.daemon.url}/v1/tasks`, {
        method: 'POST',
        headers: idempotency_key === undefined ? {} : { 'Idempotency-Key': idempotency_key },
        body: JSON.stringify(request),
      });
      return { status: response.status, body: (await response.json()) as Record<string, unknown> };
    } catch {
      return undefined;
    }
  }

  async #cancel(wish: Wish, task_id: string): Promise<void> {
    const { daemon, ledger } = this.#options;
    wish.is_cancel_sent = true;
    const response = await fetch(`${daemon.url}/v1/tasks/${task_id}/cancel`, { method: 'POST' }).catch(
      () => undefined,
    );
    // While it stops, it cannot be told any more.
    if (response === undefined || response.status === 503) return;
    if (response.status === 204) {
      this.#tell('canceled');
      wish.is_canceled = true;
    } else ledger.mishaps.push(`a cancel of ${wish.name} was answered ${response.status}`);
  }

  #read(
    wish: Wish,
    task_id: string,
    { via, ...habit }: { via: Reading['via']; leaves_after?: number; after?: number },
    starts_after_ms: number,
  ): void {
    const { daemon, patience } = this.#options;
    const first = habit.after === undefined ? 0 : habit.after + 1;
    const reading: Reading = { via, first, seen: [], connections: 0, mishaps: [] };
    wish.readings.push(reading);
    this.#readers.push(
      sleep(starts_after_ms)
        .then(() => follow(daemon, task_id, { via, ...habit }, reading, patience))
        .then(() => {
          this.#tell('over');
          this.#looks.push(this.#look(wish, task_id));
        }),
    );
  }

  /** Keeps what is told of a task that is over, to compare with what is told later. */
  async #look(wish: Wish, task_id: string): Promise<void> {
    const info = await getTask(this.#options.daemon.url, task_id).catch(() => undefined);
    if (info && isOver(info)) wish.over ??= info;
  }
}

/** @throws Error where nobody answers, or it is not there */
export async function getTask(url: string, task_id: string): Promise<TaskInfo> {
  const response = await fetch(`${url}/v1/tasks/${task_id}`);
  if (response.status !== 200) throw new Error(`${task_id}: ${response.status} ${await response.text()}`);
  return (await response.json()) as TaskInfo;
}

/** Newest first. */
export async function listTasks(url: string): Promise<TaskSummary[]> {
  const tasks: TaskSummary[] = [];
  for (let cursor = ''; ;) {
    const response = await fetch(`${url}/v1/tasks?limit=1000${cursor}`);
    const page = (await response.json()) as TaskPage;
    tasks.push(...page.tasks);
    if (page.next_cursor === undefined) return tasks;
    cursor = `&cursor=${page.next_cursor}`;
  }
}

/** Whether posting it once more is the same task. */
export function isRepeatable({ request, idempotency_key }: Wish): boolean {
  return request.task_id !== undefined || idempotency_key !== undefined;
}
