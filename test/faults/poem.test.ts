import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import type { Capabilities, TaskInfo } from '../../src/contract/generated/types.ts';
import { startDaemon } from '../helpers/cli.ts';
import { parseSse, request } from '../helpers/server.ts';

/** Path or reference of an instruct model: `TASKCHART_POEM_MODEL=/path/model.gguf npx ava test/faults/poem.test.ts`. */
const MODEL = process.env['TASKCHART_POEM_MODEL'];
/** Where the evidence of a run goes. @default a folder that is deleted */
const EVIDENCE = process.env['TASKCHART_POEM_EVIDENCE'];
/** Decides whether missing words fail the test: a small model may well miss them, and then the log says so. */
const IS_STRICT = process.env['TASKCHART_POEM_STRICT'] === 'true';

const WORDS =
  'zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen'.split(
    ' ',
  );
const TENS = ['', '', 'twenty', 'thirty', 'forty', 'fifty'];

/** A minute in English: `forty-two`. */
export function minuteInWords(minute: number): string {
  if (minute < 20) return WORDS[minute] as string;
  const rest = minute % 10;
  return `${TENS[Math.floor(minute / 10)] ?? ''}${rest === 0 ? '' : `-${WORDS[rest] ?? ''}`}`;
}

interface Verification {
  lines: number;
  /** How often the minute is in the poem. */
  minute: number;
  has_nonce: boolean;
  /** What the model missed, in words. */
  missed: string[];
}

function verify(poem: string, minute: string, nonce: string): Verification {
  const lines = poem.split('\n').filter((line) => line.trim() !== '').length;
  const times = poem.toLowerCase().split(minute).length - 1;
  const has_nonce = poem.includes(nonce);
  const missed = [
    ...(lines < 3 ? [`only ${lines} lines`] : []),
    ...(times === 1 ? [] : [`"${minute}" ${times} times instead of once`]),
    ...(has_nonce ? [] : [`no ${nonce}`]),
  ];
  return { lines, minute: times, has_nonce, missed };
}

test('minutes have their English words', (t) => {
  t.deepEqual([0, 7, 13, 20, 42, 59].map(minuteInWords), [
    'zero',
    'seven',
    'thirteen',
    'twenty',
    'forty-two',
    'fifty-nine',
  ]);
});

test('a real model writes a poem about the minute it is asked in', async (t) => {
  if (MODEL === undefined) {
    t.log('no model was given: TASKCHART_POEM_MODEL names one');
    return t.pass();
  }
  t.timeout(600_000);
  const folder = mkdtempSync(join(tmpdir(), 'taskchart-poem-'));
  const evidence = EVIDENCE ?? join(folder, 'evidence');
  mkdirSync(evidence, { recursive: true });
  const { daemon, url } = await startDaemon(t, folder, {
    pools: [
      {
        id: 'poet',
        engine: 'llamacpp',
        model: 'poet',
        ctx: 1024,
        threads: 2,
        provisioning: { mode: 'embedded', model: { ref: MODEL } },
      },
    ],
  });
  const counter = async (): Promise<number> =>
    Number(/^tokens_out_total\{[^}]*\} (\d+)/m.exec(await (await fetch(`${url}/metrics`)).text())?.[1] ?? 0);
  const save = (name: string, what: unknown): void =>
    writeFileSync(join(evidence, name), typeof what === 'string' ? what : JSON.stringify(what, undefined, 2));

  const before = await counter();
  let verification: Verification | undefined;
  // The minute may change while the model writes.
  for (let tries = 0; tries < 2 && (verification === undefined || verification.missed.length > 0); tries++) {
    const minute = minuteInWords(new Date().getMinutes());
    const nonce = Math.random().toString(36).slice(2, 10).padEnd(8, 'x').toUpperCase();
    const asked = {
      ...request,
      engine: 'llamacpp',
      model_ref: 'poet',
      ctx: 1024,
      max_tokens: 160,
      prompt: undefined,
      messages: [
        {
          role: 'user',
          content: `Write a poem of four short lines. Use the word "${minute}" exactly once, and write the code ${nonce} as the last line.`,
        },
      ],
    };
    save('request.json', asked);
    const admission = (await (
      await fetch(`${url}/v1/tasks`, { method: 'POST', body: JSON.stringify(asked) })
    ).json()) as { task_id: string };
    save('admission.json', admission);
    const said = await (await fetch(`${url}/v1/tasks/${admission.task_id}/stream`)).text();
    save(
      'transcript.ndjson',
      parseSse(said)
        .map((event) => JSON.stringify(event))
        .join('\n'),
    );
    const { text, state } = (await (await fetch(`${url}/v1/tasks/${admission.task_id}`)).json()) as TaskInfo;
    t.is(state, 'ended');
    verification = verify(text, minute, nonce);
    save('verification.json', { ...verification, poem: text });
    t.log(text);
  }
  save('daemon.log', daemon.stdout());
  const { engines } = (await (await fetch(`${url}/v1/capabilities`)).json()) as Capabilities;
  t.regex(engines[0]?.engine_version ?? '', /\S/, 'the engine says which one it is');
  t.not(engines[0]?.features?.synthetic, true, 'a synthetic engine writes no poem');
  t.true((await counter()) > before, 'tokens_out_total has grown');
  const { missed } = verification as Verification;
  if (missed.length > 0) t.log(`the model missed: ${missed.join(', ')}`);
  if (IS_STRICT) t.deepEqual(missed, []);
});
