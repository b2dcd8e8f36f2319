import type { ExecutionContext, TestFn } from 'ava';
import type {
  Delta,
  Engine,
  EngineCall,
  EngineHost,
  EngineInput,
  EngineLoss,
  EngineOutcome,
} from '../../src/engines/engine.ts';
import { TaskchartError } from '../../src/errors.ts';

/** An engine with two slots, what lies beneath it, and a way to take that away. */
export interface Fixture {
  engine: Engine;
  /** Makes the engine go away under its adapter. */
  crash(): void | Promise<void>;
  /** Frees what lies beneath; the engine was unloaded before. */
  close(): void | Promise<void>;
}

/** `normal` works; `crashing` is asked to crash in the middle of a run; `unloadable` cannot load. */
export type FixtureKind = 'normal' | 'crashing' | 'unloadable';

export interface Subject {
  start(kind: FixtureKind, host: EngineHost): Promise<Fixture>;
  /** Whether the engine can be loaded again after a crash. */
  reloads: boolean;
}

export const never = new AbortController().signal;

export function promptCall(text: string, extra: Partial<EngineCall> = {}): EngineCall {
  return { task_id: 'task', lease: 1, input: { kind: 'prompt', text }, max_tokens: 12, seed: 7, ...extra };
}

export interface Recorded {
  outcome: EngineOutcome;
  deltas: Delta[];
  /** Tokens of the input as they were told while it ran; undefined where they were not. */
  prefilled: number | undefined;
  text: string;
  tokens: number;
}

/** Runs a call and records it; shouts when something comes after the outcome. */
export async function record(
  engine: Engine,
  call: EngineCall,
  { signal = never, onDelta }: { signal?: AbortSignal; onDelta?: (count: number) => void } = {},
): Promise<Recorded> {
  const deltas: Delta[] = [];
  const ended: { outcome?: EngineOutcome } = {};
  let prefilled: number | undefined;
  const outcome = await engine.run(
    call,
    {
      prefilled(tokens_in) {
        prefilled = tokens_in;
      },
      delta(delta) {
        if (ended.outcome !== undefined) throw new Error('a delta came after the outcome');
        if (signal.aborted) throw new Error('a delta came after the abort');
        deltas.push(delta);
        onDelta?.(deltas.length);
      },
    },
    signal,
  );
  ended.outcome = outcome;
  return {
    outcome,
    deltas,
    prefilled,
    text: deltas.map((delta) => delta.text).join(''),
    tokens: deltas.reduce((sum, delta) => sum + delta.tokens, 0),
  };
}

export function errorOf(t: ExecutionContext, thrown: unknown): TaskchartError {
  if (thrown instanceof TaskchartError) return thrown;
  t.log(thrown);
  throw new Error('expected a TaskchartError');
}

/** A host that keeps what it was told. */
export function recordingHost(): EngineHost & { losses: EngineLoss[]; firstLoss: Promise<EngineLoss> } {
  const losses: EngineLoss[] = [];
  const { promise, resolve } = Promise.withResolvers<EngineLoss>();
  const lost = (loss: EngineLoss) => {
    losses.push(loss);
    resolve(loss);
  };
  return { losses, firstLoss: promise, lost };
}

/** What every adapter has to do. */
export function conformance(test: TestFn, subject: Subject): void {
  async function withEngine(
    kind: FixtureKind,
    body: (engine: Engine, fixture: Fixture, host: ReturnType<typeof recordingHost>) => Promise<void>,
  ): Promise<void> {
    const host = recordingHost();
    const fixture = await subject.start(kind, host);
    try {
      await body(fixture.engine, fixture, host);
    } finally {
      await fixture.engine.unload();
      await fixture.close();
    }
  }

  test.serial('a run delivers its deltas in order, counted, and respects max_tokens exactly', (t) =>
    withEngine('normal', async (engine) => {
      const properties = await engine.load(never);
      t.is(properties.slots_total, 2);
      t.deepEqual(await engine.health(never), { live: true, ready: true });
      for (const max_tokens of [1, 2, 9]) {
        const run = await record(engine, promptCall('Once upon a time', { max_tokens }));
        t.is(run.outcome.kind, 'finished');
        t.is(run.tokens, run.outcome.usage.tokens_out);
        t.true(run.tokens <= max_tokens);
        if (run.outcome.kind === 'finished' && run.outcome.reason === 'limit') t.is(run.tokens, max_tokens);
        t.false(run.text.includes('\uFFFD'));
        t.true(run.deltas.every((delta) => delta.channel === 'text' && delta.tokens >= 0));
      }
    }),
  );

  test.serial('the same call gives the same text, alone or beside another, and runs do not mix', (t) =>
    withEngine('normal', async (engine) => {
      await engine.load(never);
      const one = promptCall('Once upon a time there was a little dog', { max_tokens: 24 });
      const two = promptCall('The moon', { max_tokens: 24 });
      const [firstAlone, secondAlone] = [await record(engine, one), await record(engine, two)];
      t.is((await record(engine, one)).text, firstAlone.text);
      const [first, second] = await Promise.all([record(engine, one), record(engine, two)]);
      t.is(first.text, firstAlone.text);
      t.is(second.text, secondAlone.text);
    }),
  );

  test.serial('an abort settles once, is the last word, and frees the slot', (t) =>
    withEngine('normal', async (engine) => {
      const { slots_total } = await engine.load(never);
      const abort = new AbortController();
      const run = await record(engine, promptCall('Once upon a time', { max_tokens: 200 }), {
        signal: abort.signal,
        onDelta: (count) => count === 2 && abort.abort(),
      });
      t.is(run.outcome.kind, 'aborted');
      if (run.prefilled !== undefined) t.is(run.outcome.usage.tokens_in, run.prefilled);
      t.is(run.deltas.length, 2);
      const all = Array.from({ length: slots_total }, () =>
        record(engine, promptCall('Once', { max_tokens: 3 })),
      );
      for (const after of await Promise.all(all)) t.is(after.outcome.kind, 'finished');
    }),
  );

  test.serial('an abort before the start delivers nothing, and one after the end changes nothing', (t) =>
    withEngine('normal', async (engine) => {
      await engine.load(never);
      const early = await record(engine, promptCall('Once'), { signal: AbortSignal.abort() });
      t.is(early.outcome.kind, 'aborted');
      t.is(early.deltas.length, 0);
      const late = new AbortController();
      const run = await record(engine, promptCall('Once', { max_tokens: 3 }), { signal: late.signal });
      late.abort();
      t.is(run.outcome.kind, 'finished');
      t.is((await record(engine, promptCall('Once', { max_tokens: 3 }))).outcome.kind, 'finished');
    }),
  );

  test.serial(
    'an input that does not fit is INVALID_PARAMS with both numbers, and nothing is delivered',
    (t) =>
      withEngine('normal', async (engine) => {
        const { ctx_max } = await engine.load(never);
        const text = 'a dog and '.repeat(ctx_max);
        const tokens = await engine.count({ kind: 'prompt', text }, never);
        const run = await record(engine, promptCall(text));
        t.is(run.deltas.length, 0);
        if (run.outcome.kind !== 'failed') return t.fail(run.outcome.kind);
        t.is(run.outcome.failure.code, 'INVALID_PARAMS');
        t.false(run.outcome.failure.retriable);
        t.regex(run.outcome.failure.message, new RegExp(`${tokens}.*${ctx_max}`, 'u'));
      }),
  );

  test.serial('output that would pass the context ends with limit', (t) =>
    withEngine('normal', async (engine) => {
      const { ctx_max } = await engine.load(never);
      let text = '';
      const fits = async (longer: string) =>
        ((await engine.count({ kind: 'prompt', text: longer }, never)) ?? ctx_max) <= ctx_max - 2;
      for (let step = ctx_max; step >= 1; step = Math.floor(step / 2)) {
        while (await fits(text + ' a'.repeat(step))) text += ' a'.repeat(step);
      }
      const run = await record(engine, promptCall(text, { max_tokens: 50 }));
      if (run.outcome.kind !== 'finished') return t.fail(JSON.stringify(run.outcome));
      t.true(run.outcome.usage.tokens_in + run.tokens <= ctx_max);
      if (run.outcome.reason === 'limit') t.is(run.outcome.usage.tokens_in + run.tokens, ctx_max);
    }),
  );

  test.serial('a resumed run goes on where the text ended', (t) =>
    withEngine('normal', async (engine) => {
      await engine.load(never);
      const whole = await record(engine, promptCall('Once upon a time', { max_tokens: 12 }));
      const head = await record(engine, promptCall('Once upon a time', { max_tokens: 5 }));
      const resume = { text: head.text, tokens_out: head.tokens };
      const tail = await record(engine, promptCall('Once upon a time', { max_tokens: 7, resume }));
      t.is(head.text + tail.text, whole.text);
      t.true(tail.tokens <= 7);
    }),
  );

  test.serial('count agrees with the tokens a run reports', (t) =>
    withEngine('normal', async (engine) => {
      const { features } = await engine.load(never);
      const inputs: EngineInput[] = [{ kind: 'prompt', text: 'Once upon a time, ein Bär 🐻' }];
      const messages = [{ role: 'user', content: 'Tell me a story.' }];
      if (features.chat !== 'none') inputs.push({ kind: 'chat', messages });
      for (const input of inputs) {
        const run = await record(engine, { ...promptCall(''), input, max_tokens: 1 });
        t.is(await engine.count(input, never), run.outcome.usage.tokens_in);
        t.true(run.outcome.usage.tokens_in > 0);
        if (run.prefilled !== undefined) t.is(run.prefilled, run.outcome.usage.tokens_in);
      }
      if (features.chat === 'none') {
        const run = await record(engine, { ...promptCall(''), input: { kind: 'chat', messages } });
        t.is(run.outcome.kind === 'failed' && run.outcome.failure.code, 'INVALID_PARAMS');
      }
    }),
  );

  test.serial('an engine that is not loaded says so', (t) =>
    withEngine('normal', async (engine) => {
      const run = await record(engine, promptCall('Once'));
      t.is(run.outcome.kind === 'failed' && run.outcome.failure.code, 'POOL_UNAVAILABLE');
      t.false((await engine.health(never)).live);
      const thrown = await t.throwsAsync(engine.load(AbortSignal.abort()));
      t.is(errorOf(t, thrown).code, 'POOL_UNAVAILABLE');
    }),
  );

  test.serial(
    'one token is decoded by whoever probes, and none once it is unloaded or the probe is given up',
    (t) =>
      withEngine('normal', async (engine) => {
        if (engine.probe === undefined) return void t.pass('this engine has no probe');
        t.false(await engine.probe(never));
        await engine.load(never);
        t.true(await engine.probe(never));
        t.false(await engine.probe(AbortSignal.abort()));
        t.is((await record(engine, promptCall('Once', { max_tokens: 3 }))).outcome.kind, 'finished');
        await engine.unload();
        t.false(await engine.probe(never));
      }),
  );

  test.serial('load and unload may be repeated, and leave nothing open', async (t) => {
    // What earlier tests closed is gone a few turns later.
    await turns(20);
    const before = openHandles();
    await withEngine('normal', async (engine, _fixture, host) => {
      const [first, second] = await Promise.all([engine.load(never), engine.load(never)]);
      t.deepEqual(first, second);
      t.deepEqual(await engine.load(never), first);
      await Promise.all([engine.unload(), engine.unload()]);
      await engine.unload();
      await engine.load(never);
      t.is((await record(engine, promptCall('Once', { max_tokens: 3 }))).outcome.kind, 'finished');
      await engine.unload();
      t.deepEqual(host.losses, []);
    });
    for (let turn = 0; turn < 100 && openHandles() !== before; turn++) await turns(1);
    t.is(openHandles(), before);
  });

  test.serial('a load that cannot be rejects with one line', (t) =>
    withEngine('unloadable', async (engine, _fixture, host) => {
      const error = errorOf(t, await t.throwsAsync(engine.load(never)));
      t.is(error.code, 'POOL_UNAVAILABLE');
      t.false(error.message.includes('\n'));
      t.false((await engine.health(never)).live);
      t.deepEqual(host.losses, []);
    }),
  );

  test.serial('unload settles what runs as aborted and is no loss', (t) =>
    withEngine('normal', async (engine, _fixture, host) => {
      await engine.load(never);
      const unloading: Promise<void>[] = [];
      const run = await record(engine, promptCall('Once upon a time', { max_tokens: 200 }), {
        onDelta: (count) => count === 1 && unloading.push(engine.unload()),
      });
      t.is(run.outcome.kind, 'aborted');
      await Promise.all(unloading);
      t.deepEqual(host.losses, []);
    }),
  );

  test.serial('a crash fails every run as WORKER_RESET and is told once', (t) =>
    withEngine('crashing', async (engine, fixture, host) => {
      await engine.load(never);
      let crashing: void | Promise<void> = undefined;
      const onDelta = (count: number) => {
        if (count === 2) crashing ??= fixture.crash();
      };
      const call = promptCall('Once upon a time', { max_tokens: 200 });
      const runs = await Promise.all([record(engine, call, { onDelta }), record(engine, call)]);
      for (const run of runs) {
        if (run.outcome.kind !== 'failed') return t.fail(JSON.stringify(run.outcome));
        t.true(run.outcome.failure.retriable);
        if (run.tokens > 0) t.is(run.outcome.failure.code, 'WORKER_RESET');
        t.is(run.outcome.usage.tokens_out, run.tokens);
      }
      await crashing;
      t.true(['crash', 'oom', 'unreachable'].includes((await host.firstLoss).cause));
      t.false((await engine.health(never)).live);
      if (subject.reloads) t.is((await engine.load(never)).slots_total, 2);
      await engine.unload();
      t.is(host.losses.length, 1);
    }),
  );
}

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise(setImmediate);
}

function openHandles(): string {
  const kinds = ['ProcessWrap', 'PipeWrap', 'TCPSocketWrap', 'TCPServerWrap', 'Timeout'];
  return process
    .getActiveResourcesInfo()
    .filter((kind) => kinds.includes(kind))
    .sort()
    .join(' ');
}
