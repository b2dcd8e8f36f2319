import test from 'ava';
import fc from 'fast-check';
import { Sessions } from '../../src/actors/sessions.ts';
import type { SessionsOptions } from '../../src/actors/sessions-options.ts';
import { SimulatedClock } from '../helpers/simulated-clock.ts';

const NO_BUDGETS = { tokens: null, time_ms: null, cost: null };
const TTL = 600_000;
const USAGE = { tokens_out: 10, decode_ms: 200 };

function create(options: Partial<SessionsOptions> = {}): {
  clock: SimulatedClock;
  sessions: Sessions;
  evicted: unknown[][];
} {
  const clock = new SimulatedClock();
  const evicted: unknown[][] = [];
  const sessions = new Sessions({
    clock,
    ttl_ms: TTL,
    max_turns: null,
    budgets: NO_BUDGETS,
    cost_per_output_token: 0.000002,
    evicted: (...gone) => evicted.push(gone),
    ...options,
  });
  return { clock, sessions, evicted };
}

/** A task from its admission to its end. */
function turn(sessions: Sessions, session_id: string, task_id: string, usage = USAGE): void {
  sessions.accept(session_id, task_id, 64);
  sessions.settle(session_id, task_id, usage);
}

test('a session is created by the first question or the first task, and by nothing else', (t) => {
  const { sessions } = create();
  t.is(sessions.refusalOf('a', 64), undefined);
  t.deepEqual(sessions.remaining('a'), {});
  t.is(sessions.affinity('a'), undefined);
  t.false(sessions.touch('a'));
  t.is(sessions.size, 0);
  t.deepEqual(sessions.info('a'), { ttl_ms_remaining: TTL, turns: 0, kv_bytes: 0, kv_warmth: false });
  sessions.accept('b', 't', 64);
  t.is(sessions.size, 2);
});

test('a turn is counted for each accepted task', (t) => {
  const { sessions } = create();
  turn(sessions, 'a', 't1');
  turn(sessions, 'a', 't2', { tokens_out: 0, decode_ms: 0 });
  t.is(sessions.info('a').turns, 2);
});

test('accepting a task again changes nothing', (t) => {
  const { sessions } = create({ budgets: { ...NO_BUDGETS, tokens: 100 } });
  sessions.accept('a', 't', 64);
  sessions.accept('a', 't', 64);
  t.like(sessions.info('a'), { turns: 1, tokens_budget_remaining: 36 });
  sessions.settle('a', 't', USAGE);
  sessions.settle('a', 't', USAGE);
  t.is(sessions.info('a').tokens_budget_remaining, 90);
});

test('an admission that failed to commit takes its turn and its reservation back', (t) => {
  const { sessions } = create({ budgets: { ...NO_BUDGETS, tokens: 100 } });
  sessions.accept('a', 't', 64);
  sessions.release('a', 't');
  t.like(sessions.info('a'), { turns: 0, tokens_budget_remaining: 100 });
  sessions.settle('a', 't', USAGE);
  t.is(sessions.info('a').tokens_budget_remaining, 100);
});

test('expires a TTL after its last use, by itself', (t) => {
  const { clock, sessions, evicted } = create();
  turn(sessions, 'a', 't');
  clock.advance(TTL - 1);
  t.is(sessions.size, 1);
  clock.advance(1);
  t.is(sessions.size, 0);
  t.deepEqual(evicted, [['a', undefined, 'expired']]);
  t.is(clock.pending, 0);
});

test('a touch begins the TTL anew, and a question does not', (t) => {
  const { clock, sessions } = create();
  turn(sessions, 'a', 't');
  turn(sessions, 'b', 't2');
  clock.advance(TTL - 100);
  t.true(sessions.touch('a'));
  t.is(sessions.info('a').ttl_ms_remaining, TTL);
  t.is(sessions.info('b').ttl_ms_remaining, 100);
  clock.advance(100);
  t.is(sessions.size, 1);
  t.is(sessions.info('a').turns, 1);
  clock.advance(TTL - 100);
  t.is(sessions.size, 0);
  t.false(sessions.touch('a'));
});

test('a session lives as long as a task of it does, and its TTL begins with the end of the last', (t) => {
  const { clock, sessions } = create();
  sessions.accept('a', 't1', 64);
  sessions.accept('a', 't2', 64);
  clock.advance(3 * TTL);
  sessions.settle('a', 't1', USAGE);
  clock.advance(3 * TTL);
  t.is(sessions.info('a').ttl_ms_remaining, TTL);
  t.is(sessions.info('a').turns, 2);
  sessions.settle('a', 't2', USAGE);
  clock.advance(TTL - 1);
  t.is(sessions.size, 1);
  clock.advance(1);
  t.is(sessions.size, 0);
});

test('one timer serves all sessions, and none is left when it is closed', (t) => {
  const { clock, sessions } = create();
  for (let i = 0; i < 50; i++) {
    turn(sessions, `s${i}`, `t${i}`);
    clock.advance(10);
  }
  t.is(clock.pending, 1);
  sessions.close();
  t.is(clock.pending, 0);
  t.is(sessions.size, 0);
});

test('sessions expire in the order of their last use, each in time', (t) => {
  const { clock, sessions, evicted } = create({ ttl_ms: 1000 });
  for (const id of ['a', 'b', 'c']) {
    turn(sessions, id, `t-${id}`);
    clock.advance(10);
  }
  sessions.touch('a');
  clock.advance(979);
  t.deepEqual(evicted, []);
  clock.advance(1);
  t.deepEqual(evicted.map(String), ['b,,expired']);
  clock.advance(10);
  t.deepEqual(evicted.map(String), ['b,,expired', 'c,,expired']);
  clock.advance(10);
  t.is(sessions.size, 0);
});

test('an expired session is evicted before new work is admitted, even if the timer is late', (t) => {
  class LateClock extends SimulatedClock {
    override setTimeout(): number {
      return 0;
    }
  }
  const clock = new LateClock();
  const budgets = { ...NO_BUDGETS, tokens: 100 };
  const { sessions, evicted } = create({ clock, max_turns: 1, budgets });
  turn(sessions, 'a', 't1', { tokens_out: 64, decode_ms: 1 });
  turn(sessions, 'b', 't2');
  turn(sessions, 'c', 't3');
  clock.advance(TTL);
  t.is(sessions.refusalOf('a', 100), undefined, 'its turns and its budget begin anew');
  t.is(evicted.length, 3);
  turn(sessions, 'd', 't4');
  clock.advance(TTL);
  t.is(sessions.info('d').turns, 0, 'on reads');
  sessions.accept('e', 't5', 10);
  clock.advance(TTL);
  sessions.settle('e', 't5', USAGE);
  t.is(sessions.size, 1, 'at the end of a task');
});

test('a session that has had all its turns is refused, ended by that refusal, and its id begins anew', (t) => {
  const { sessions, evicted } = create({ max_turns: 2 });
  turn(sessions, 'a', 't1');
  sessions.exhaust('a');
  sessions.accept('a', 't2', 64);
  const refusal = sessions.refusalOf('a', 64);
  t.like(refusal, { code: 'INVALID_PARAMS', retriable: false });
  t.regex(refusal?.message ?? '', /^session_id: .* session\.max_turns is 2/);
  t.deepEqual(evicted, [], 'who only asks ends nothing');
  sessions.exhaust('a');
  t.deepEqual(evicted, [['a', undefined, 'turns']]);
  t.is(sessions.refusalOf('a', 64), undefined);
  sessions.accept('a', 't3', 64);
  sessions.settle('a', 't2', USAGE);
  t.is(sessions.info('a').turns, 1);
});

test('turns have no limit unless there is one', (t) => {
  const { sessions } = create();
  for (let i = 0; i < 100; i++) {
    t.is(sessions.refusalOf('a', 64), undefined);
    turn(sessions, 'a', `t${i}`);
  }
  t.is(sessions.info('a').turns, 100);
});

test('says whether anything is limited', (t) => {
  t.false(create().sessions.isLimited);
  t.true(create({ max_turns: 8 }).sessions.isLimited);
  for (const budget of ['tokens', 'time_ms', 'cost'])
    t.true(create({ budgets: { ...NO_BUDGETS, [budget]: 1 } }).sessions.isLimited);
});

test('budgets are reserved with the task and charged with its end, for each session by itself', (t) => {
  const { sessions } = create({ budgets: { tokens: 20_000, time_ms: 600_000, cost: 1 } });
  sessions.accept('a', 't', 64);
  t.deepEqual(sessions.remaining('a'), { tokens: 19_936, time_ms: 600_000, cost: 0.999872 });
  sessions.settle('a', 't', { tokens_out: 10, decode_ms: 200.25 });
  t.deepEqual(sessions.remaining('a'), { tokens: 19_990, time_ms: 599_799, cost: 0.99998 });
  t.deepEqual(sessions.remaining('b'), { tokens: 20_000, time_ms: 600_000, cost: 1 });
  t.like(sessions.info('a'), {
    tokens_budget_remaining: 19_990,
    time_budget_remaining_ms: 599_799,
    cost_budget_remaining: 0.99998,
  });
});

test('what is exhausted is refused for good, what others hold is worth another try', (t) => {
  const { sessions } = create({ budgets: { ...NO_BUDGETS, tokens: 100 } });
  sessions.accept('a', 't', 80);
  t.like(sessions.refusalOf('a', 64), {
    code: 'ADMISSION_REJECT',
    policy_label: 'budget.tokens',
    retriable: true,
    retry_after_ms: 1000,
  });
  sessions.settle('a', 't', { tokens_out: 80, decode_ms: 1 });
  const exhausted = sessions.refusalOf('a', 64);
  t.like(exhausted, { policy_label: 'budget.tokens', retriable: false });
  t.regex(exhausted?.message ?? '', /20 of 100 tokens are left/);
  t.is(sessions.refusalOf('a', 20), undefined);
});

test('a new session is refused what its budget never has', (t) => {
  const { sessions } = create({ budgets: { ...NO_BUDGETS, tokens: 100 } });
  t.like(sessions.refusalOf('a', 101), { policy_label: 'budget.tokens', retriable: false });
  t.like(sessions.refusalOf(undefined, 101), { policy_label: 'budget.tokens', retriable: false });
  t.is(sessions.size, 0);
});

test('tasks that run at once never overdraw a token or cost budget together', (t) => {
  const step = fc.record({
    session: fc.constantFrom('a', 'b'),
    max_tokens: fc.integer({ min: 1, max: 60 }),
    used: fc.nat(70),
    what: fc.constantFrom('ask', 'ask', 'end', 'fail', 'cool', 'wait'),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const { clock, sessions } = create({ budgets: { tokens: 100, time_ms: null, cost: 0.00018 } });
      const ledger = new Map([
        ['a', 0],
        ['b', 0],
      ]);
      const running: { id: string; session: string; max_tokens: number }[] = [];
      let next = 0;
      for (const { session, max_tokens, used, what } of steps) {
        if (what === 'ask' && !sessions.refusalOf(session, max_tokens)) {
          const id = `t${next++}`;
          sessions.accept(session, id, max_tokens);
          running.push({ id, session, max_tokens });
        }
        const task = what === 'end' || what === 'fail' ? running.shift() : undefined;
        if (task && what === 'fail') sessions.release(task.session, task.id);
        if (task && what === 'end') {
          sessions.settle(task.session, task.id, { tokens_out: used, decode_ms: 1 });
          ledger.set(task.session, (ledger.get(task.session) ?? 0) + Math.min(used, task.max_tokens));
        }
        if (what === 'cool') sessions.cool('p/r0');
        if (what === 'wait') clock.advance(1000);
        for (const [id, settled] of ledger) {
          const reserved = running
            .filter((other) => other.session === id)
            .reduce((sum, other) => sum + other.max_tokens, 0);
          t.true(settled + reserved <= 90, 'the narrower of the two budgets holds');
          const left = { tokens: 100 - settled - reserved, cost: (90 - settled - reserved) * 2 };
          t.is(sessions.remaining(id).tokens, left.tokens);
          t.is(Math.round((sessions.remaining(id).cost ?? 0) * 1e6), left.cost);
        }
      }
      sessions.close();
    }),
  );
});

test('a deleted session is gone at once, its running tasks are charged to nobody', (t) => {
  const { sessions, evicted } = create({ budgets: { ...NO_BUDGETS, tokens: 100 } });
  sessions.accept('a', 't1', 64);
  sessions.warm('a', 'p', 'p/r0', 4096);
  sessions.delete('a');
  sessions.delete('a');
  sessions.delete('never seen');
  t.is(sessions.size, 0);
  t.is(evicted.length, 1);
  t.like(evicted[0]?.[1], { pool_id: 'p', replica_id: 'p/r0' });
  sessions.settle('a', 't1', USAGE);
  t.is(sessions.size, 0);
  sessions.accept('a', 't2', 64);
  sessions.settle('a', 't1', USAGE);
  t.like(sessions.info('a'), { turns: 1, tokens_budget_remaining: 36 });
});

test('an end is ignored where session or task are not known', (t) => {
  const { sessions } = create({ budgets: { ...NO_BUDGETS, tokens: 100 } });
  sessions.settle('a', 't', USAGE);
  sessions.release('a', 't');
  sessions.accept('a', 't', 64);
  sessions.settle('b', 't', USAGE);
  sessions.settle('a', 'other', USAGE);
  t.is(sessions.size, 1);
  t.is(sessions.remaining('a').tokens, 36);
});

test('is warm from the first token on, where the token came from', (t) => {
  const { sessions } = create();
  sessions.warm('nobody', 'p', 'p/r0', 1);
  sessions.accept('a', 't', 64);
  t.is(sessions.affinity('a'), undefined);
  sessions.warm('a', 'p', 'p/r0', 4096);
  t.like(sessions.affinity('a'), { pool_id: 'p', replica_id: 'p/r0' });
  t.like(sessions.info('a'), { kv_warmth: true, kv_bytes: 4096 });
  sessions.warm('a', 'p', 'p/r1', 5000);
  t.is(sessions.affinity('a')?.replica_id, 'p/r1');
  t.is(sessions.size, 1);
});

test('all sessions of a lost replica are cold, and only those', (t) => {
  const { sessions, evicted } = create();
  for (const [id, replica] of [
    ['a', 'p/r0'],
    ['b', 'p/r1'],
    ['c', 'p/r0'],
  ] as const) {
    turn(sessions, id, `t-${id}`);
    sessions.warm(id, 'p', replica, 100);
  }
  t.is(sessions.kvBytes, 300);
  t.deepEqual(sessions.cool('p/r0'), ['a', 'c']);
  t.deepEqual(sessions.cool('p/r0'), []);
  t.deepEqual(
    ['a', 'b', 'c'].map((id) => sessions.info(id).kv_warmth),
    [false, true, false],
  );
  t.is(sessions.affinity('a'), undefined);
  t.is(sessions.kvBytes, 100);
  t.deepEqual(evicted, []);
});

test('a failover begins the budgets of its sessions anew, an unload does not', (t) => {
  const { sessions } = create({ budgets: { ...NO_BUDGETS, tokens: 100 } });
  turn(sessions, 'a', 't');
  sessions.warm('a', 'p', 'p/r0', 100);
  sessions.cool('p/r0');
  t.is(sessions.remaining('a').tokens, 90);
  sessions.warm('a', 'p', 'p/r0', 100);
  sessions.cool('p/r0', 'failover');
  t.is(sessions.remaining('a').tokens, 100);
  t.is(sessions.info('a').turns, 1);
});

test('idle sessions are bounded: the least recently used leaves first, and never one with a task', (t) => {
  const { clock, sessions, evicted } = create({ max_sessions: 2 });
  sessions.accept('busy', 't', 64);
  for (const id of ['a', 'b']) {
    sessions.info(id);
    sessions.warm(id, 'p', 'p/r0', 100);
    clock.advance(1);
  }
  sessions.touch('a');
  turn(sessions, 'c', 't2');
  t.deepEqual(
    evicted.map(([id]) => id),
    ['b'],
  );
  t.is(sessions.size, 3);
  t.is(sessions.kvBytes, 100);
  sessions.settle('busy', 't', USAGE);
  t.deepEqual(
    evicted.map(([id]) => id),
    ['b', 'a'],
  );
  t.is(sessions.kvBytes, 0);
});

test('a restart keeps turns, spending and the time that is left, but no cache', (t) => {
  const options = { budgets: { tokens: 100, time_ms: 1000, cost: 1 } };
  const before = create(options);
  turn(before.sessions, 'a', 't');
  before.sessions.warm('a', 'p', 'p/r0', 100);
  before.clock.advance(1000);
  const fact = before.sessions.factOf('a');
  t.is(fact.key, 'session/a');
  t.deepEqual(JSON.parse(JSON.stringify(fact)), fact);

  const clock = new SimulatedClock(before.clock.wall() + 5000);
  const after = create({ ...options, clock });
  t.is(after.sessions.restore(fact), undefined);
  t.deepEqual(after.sessions.info('a'), {
    ttl_ms_remaining: TTL - 6000,
    turns: 1,
    kv_bytes: 0,
    kv_warmth: false,
    tokens_budget_remaining: 90,
    time_budget_remaining_ms: 800,
    cost_budget_remaining: 0.99998,
  });
  clock.advance(TTL - 6000);
  t.is(after.sessions.size, 0);
});

test('a session whose TTL passed while nobody ran leaves the store', (t) => {
  const before = create();
  turn(before.sessions, 'a', 't');
  const fact = before.sessions.factOf('a');
  const after = create({ clock: new SimulatedClock(before.clock.wall() + TTL) });
  t.deepEqual(after.sessions.restore(fact), { key: 'session/a', data: undefined });
  t.is(after.sessions.size, 0);
  t.deepEqual(after.sessions.factOf('a'), { key: 'session/a', data: undefined });
});

test('a wall clock that went back does not make a session live longer', (t) => {
  const before = create();
  turn(before.sessions, 'a', 't');
  const clock = new SimulatedClock(before.clock.wall() - 5000);
  const after = create({ clock });
  after.sessions.restore(before.sessions.factOf('a'));
  t.is(after.sessions.info('a').ttl_ms_remaining, TTL);
});

test('an unfinished task is taken back without a turn, and its session was never idle', (t) => {
  const budgets = { ...NO_BUDGETS, tokens: 100 };
  const before = create({ budgets });
  turn(before.sessions, 'a', 't1');
  before.sessions.accept('a', 't2', 64);
  const fact = before.sessions.factOf('a');
  const clock = new SimulatedClock(before.clock.wall() + 2 * TTL);
  const after = create({ budgets, clock });
  t.is(after.sessions.restore(fact), undefined);
  after.sessions.readopt('a', 't2', 64);
  after.sessions.readopt('a', 't2', 64);
  t.like(after.sessions.info('a'), { turns: 2, tokens_budget_remaining: 26 });
  clock.advance(2 * TTL);
  after.sessions.settle('a', 't2', USAGE);
  t.like(after.sessions.info('a'), { turns: 2, tokens_budget_remaining: 80, ttl_ms_remaining: TTL });
});

test('restored sessions expire in the order of their last use, whatever order the store has', (t) => {
  const before = create({ ttl_ms: 1000 });
  for (const id of ['a', 'b', 'c']) {
    turn(before.sessions, id, `t-${id}`);
    before.clock.advance(10);
  }
  const clock = new SimulatedClock(before.clock.wall());
  const after = create({ ttl_ms: 1000, clock, max_sessions: 2 });
  for (const id of ['c', 'a', 'b']) after.sessions.restore(before.sessions.factOf(id));
  t.is(after.sessions.size, 3);
  clock.advance(970);
  t.deepEqual(
    after.evicted.map(([id]) => id),
    ['a'],
  );
  turn(after.sessions, 'd', 't-d');
  t.deepEqual(
    after.evicted.map(([id]) => id),
    ['a', 'b'],
  );
  clock.advance(20);
  t.deepEqual(
    after.evicted.map(([id]) => id),
    ['a', 'b', 'c'],
  );
  t.is(clock.pending, 1);
});

test('the store is told of a session that is gone', (t) => {
  const facts: unknown[] = [];
  const { sessions } = create({ evicted: (id) => facts.push(sessions.factOf(id)) });
  turn(sessions, 'a', 't');
  sessions.delete('a');
  t.deepEqual(facts, [{ key: 'session/a', data: undefined }]);
});
