import type { TestFn } from 'ava';
import type { Engine } from '../../src/engines/engine.ts';
import { type Subject, conformance, never, promptCall, record, recordingHost } from './conformance.ts';

/** Tests of the suite that hold an engine to its count; each is replaced below by what holds without one. */
const COUNTED = [
  'an input that does not fit is INVALID_PARAMS with both numbers, and nothing is delivered',
  'output that would pass the context ends with limit',
  'count agrees with the tokens a run reports',
];

/** The one suite, for an engine whose `features.tokenizer` is false: it says so, and holds the rest. */
export function conformanceWithoutCount(
  test: TestFn,
  subject: Subject,
  name: string,
  { tells_reason = true }: { /** Whether the engine says how a run ended. */ tells_reason?: boolean } = {},
): void {
  const seen = new Set<string>();
  const serial = (title: string, ...rest: unknown[]) => {
    if (COUNTED.includes(title)) seen.add(title);
    else (test.serial as (...all: unknown[]) => void)(`${name}: ${title}`, ...rest);
  };
  conformance({ serial } as unknown as TestFn, subject);
  if (seen.size !== COUNTED.length) throw new Error('the suite has other tests of the count now');

  async function withEngine(body: (engine: Engine) => Promise<unknown>): Promise<void> {
    const { engine, close } = await subject.start('normal', recordingHost());
    try {
      await engine.load(never);
      await body(engine);
    } finally {
      await engine.unload();
      await close();
    }
  }

  test.serial(`${name}: an input that does not fit is INVALID_PARAMS, and nothing is delivered`, (t) =>
    withEngine(async (engine) => {
      const { ctx_max } = await engine.load(never);
      const run = await record(engine, promptCall('a dog and '.repeat(ctx_max)));
      t.is(run.deltas.length, 0);
      if (run.outcome.kind !== 'failed') return t.fail(run.outcome.kind);
      t.is(run.outcome.failure.code, 'INVALID_PARAMS');
      t.false(run.outcome.failure.retriable);
      t.regex(run.outcome.failure.message, new RegExp(`\\d.*${ctx_max}|${ctx_max}.*\\d`, 'u'));
    }),
  );

  test.serial(`${name}: output that would pass the context ends with limit, or is refused`, (t) =>
    withEngine(async (engine) => {
      const { ctx_max } = await engine.load(never);
      // The fakes count words, and one to begin with.
      const run = await record(engine, promptCall('a '.repeat(ctx_max - 4), { max_tokens: 50 }));
      if (run.outcome.kind === 'failed') return t.is(run.outcome.failure.code, 'INVALID_PARAMS');
      t.like(run.outcome, { kind: 'finished', reason: tells_reason ? 'limit' : 'eos' });
      t.is(run.tokens, 3);
    }),
  );

  test.serial(
    `${name}: an engine that cannot count says so, and runs report their tokens all the same`,
    (t) =>
      withEngine(async (engine) => {
        const { features } = await engine.load(never);
        t.false(features.tokenizer);
        const messages = [{ role: 'user', content: 'Tell me a story.' }];
        for (const input of [
          { kind: 'prompt', text: 'Once upon a time' },
          { kind: 'chat', messages },
        ] as const) {
          t.is(await engine.count(input, never), undefined);
          const { outcome } = await record(engine, { ...promptCall(''), input, max_tokens: 1 });
          if (input.kind === 'chat' && features.chat === 'none')
            t.is(outcome.kind === 'failed' && outcome.failure.code, 'INVALID_PARAMS');
          else t.true(outcome.usage.tokens_in > 0);
        }
      }),
  );
}
