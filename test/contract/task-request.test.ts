import test from 'ava';
import * as fc from 'fast-check';
import { parseTaskRequest } from '../../src/contract/validate.ts';
import { TaskchartError } from '../../src/errors.ts';
import { spec } from '../helpers/contract.ts';

const good = {
  workload: 'completion',
  model_ref: 'storyteller',
  engine: 'llamacpp',
  ctx: 512,
  priority: 'interactive',
  max_tokens: 16,
  deadline_ms: 60_000,
  prompt: 'Once upon a time',
};

const { prompt: _prompt, ...withoutInput } = good;

function refusal(body: unknown): string {
  try {
    parseTaskRequest(body);
  } catch (thrown) {
    if (thrown instanceof TaskchartError && thrown.code === 'INVALID_PARAMS') return thrown.message;
    throw thrown;
  }
  return 'accepted';
}

test('a task is accepted as it is, also with a deadline in the past; what nobody knows is not kept', (t) => {
  const body = { ...good, deadline_ms: -1, output_mode: 'poem' };
  t.deepEqual(parseTaskRequest({ ...body, from_the_future: { a: 1 } }), body as unknown);
});

test('what nobody knows is not kept at any depth; a schema is kept as it is', (t) => {
  const known = {
    ...good,
    prompt: undefined,
    messages: [{ role: 'user', content: 'hello' }],
    sampling: { stop: ['.'], json_schema: { type: 'object', unknown: [{ a: 1 }] } },
    placement: { mode: 'prefer', prefer_pools: ['a'] },
  };
  const { prompt: _, ...body } = known;
  const told = structuredClone(body) as unknown as Record<string, unknown>;
  const parts = [told, told['sampling'], told['placement'], (told['messages'] as unknown[])[0]];
  for (const part of parts) (part as Record<string, unknown>)['from_the_future'] = { a: [1] };
  t.deepEqual(parseTaskRequest(told), body as unknown);
});

test('a schema may be nested 64 levels deep, and not one more', (t) => {
  const nested = (levels: number): object => (levels === 0 ? {} : { a: nested(levels - 1) });
  const withSchema = (levels: number): unknown => ({ ...good, sampling: { json_schema: nested(levels) } });
  t.is(refusal(withSchema(64)), 'accepted');
  t.is(refusal(withSchema(65)), 'sampling.json_schema: must not be nested deeper than 64 levels');
});

test('the examples of the contract are accepted', (t) => {
  for (const example of (spec.bundle.$defs.TaskRequest?.examples ?? []) as object[]) {
    t.notThrows(() => parseTaskRequest(structuredClone(example)));
  }
});

const mistakes: [title: string, body: unknown, message: string][] = [
  ['a list', [], 'the body must be a JSON object, got an empty list'],
  ['nothing', undefined, 'the body must be a JSON object, got nothing'],
  ['text', 'prompt: hello', 'the body must be a JSON object, got a string'],
  ['no input', withoutInput, 'prompt, inputs or messages: one of them is required'],
  [
    'two kinds of input',
    { ...good, messages: [{ role: 'user', content: 'x' }] },
    'messages: cannot be combined with prompt or inputs',
  ],
  ['a word for a number', { ...good, max_tokens: 'ten' }, 'max_tokens: must be an integer ≥ 1, got "ten"'],
  ['zero tokens', { ...good, max_tokens: 0 }, 'max_tokens: must be an integer ≥ 1, got 0'],
  ['a fraction of a token', { ...good, ctx: 1.5 }, 'ctx: must be an integer ≥ 1, got 1.5'],
  ['more than 32 bits', { ...good, ctx: 2 ** 31 }, 'ctx: must be ≤ 2147483647, got 2147483648'],
  [
    'an unknown priority',
    { ...good, priority: 'urgent' },
    'priority: must be one of interactive, batch, got "urgent"',
  ],
  [
    'an unknown engine',
    { ...good, engine: 'gpt' },
    'engine: must be one of llamacpp, vllm, tgi, triton, openai, synthetic, got "gpt"',
  ],
  ['an id that is none', { ...good, task_id: 'abc' }, 'task_id: must be a UUID, got "abc"'],
  ['an id that is a number', { ...good, session_id: 7 }, 'session_id: must be a UUID, got 7'],
  [
    'no deadline',
    { ...good, deadline_ms: undefined },
    'deadline_ms: is required (milliseconds from admission until the answer is no longer useful)',
  ],
  ['no model', { ...good, model_ref: ' ' }, 'model_ref: must be the name of a model, got " "'],
  ['a prompt that is none', { ...good, prompt: 5 }, 'prompt: must be a string, got a number'],
  ['an empty list of inputs', { ...withoutInput, inputs: [] }, 'inputs: must not be empty'],
  [
    'an input that is none',
    { ...withoutInput, inputs: ['a', null] },
    'inputs[1]: must be a string, got null',
  ],
  [
    'a message without a role',
    { ...withoutInput, messages: [{ content: 'x' }] },
    'messages[0].role: is required (who speaks: system, user, assistant, or what the template knows)',
  ],
  [
    'a temperature below zero',
    { ...good, sampling: { temperature: -1 } },
    'sampling.temperature: must be a number from 0 to 100, got -1',
  ],
  [
    'a top_p of zero',
    { ...good, sampling: { top_p: 0 } },
    'sampling.top_p: must be a number > 0 and ≤ 1, got 0',
  ],
  ['sampling that is a list', { ...good, sampling: [] }, 'sampling: must be an object, got an empty list'],
  ['stop as a text', { ...good, sampling: { stop: 'END' } }, 'sampling.stop: must be a list, got a string'],
  [
    'an empty stop text',
    { ...good, sampling: { stop: [''] } },
    'sampling.stop[0]: must be a text that is not empty, got an empty string',
  ],
  [
    'too many stop texts',
    { ...good, sampling: { stop: Array.from({ length: 17 }, String) } },
    'sampling.stop: must have at most 16 entries',
  ],
  [
    'a grammar and a schema',
    { ...good, sampling: { grammar: 'root ::= "a"', json_schema: {} } },
    'sampling: grammar and json_schema cannot be combined',
  ],
  [
    'an unknown placement',
    { ...good, placement: { mode: 'pinned' } },
    'placement.mode: must be one of pin, prefer, auto, got "pinned"',
  ],
  [
    'a seed beyond what JSON carries',
    { ...good, seed: 2 ** 53 },
    'seed: must be ≤ 9007199254740991, got 9007199254740992',
  ],
  [
    'a long value',
    { ...good, priority: 'x'.repeat(100) },
    `priority: must be one of interactive, batch, got "${'x'.repeat(39)}…"`,
  ],
  ['a line break', { ...good, priority: 'a\nb' }, 'priority: must be one of interactive, batch, got "a\\nb"'],
];

for (const [title, body, message] of mistakes) {
  test(`a body is refused and the mistake named: ${title}`, (t) => {
    t.is(refusal(JSON.stringify(body) === undefined ? body : JSON.parse(JSON.stringify(body))), message);
  });
}

const secret = 'SECRET';

test('a refusal never shows a prompt, whatever is wrong with it', (t) => {
  const bodies = [
    { prompt: [secret] },
    { prompt: { text: secret } },
    { inputs: secret },
    { inputs: [[secret]] },
    { messages: secret },
    { messages: [secret] },
    { messages: [{ role: 'user', content: [secret] }] },
    { messages: [{ role: [secret], content: secret }] },
    { prompt: secret, messages: [{ role: 'user', content: secret }] },
    { prompt: secret, sampling: { grammar: [secret] } },
    { prompt: secret, sampling: { json_schema: secret } },
    { prompt: secret, sampling: { stop: secret } },
    { prompt: secret, sampling: { stop: [[secret]] } },
    { prompt: secret, ctx: 0 },
  ];
  for (const body of bodies) {
    const message = refusal({ ...withoutInput, ...body });
    t.not(message, 'accepted');
    t.false(message.includes(secret), message);
  }
});

test('any body is either accepted or refused with one line', (t) => {
  const value = fc.oneof(fc.jsonValue(), fc.string(), fc.integer());
  const body = fc.record(
    {
      ...Object.fromEntries(Object.keys(good).map((key) => [key, value])),
      sampling: value,
      placement: value,
      messages: value,
    },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(fc.oneof(body, fc.jsonValue()), fc.boolean(), (random, mixed) => {
      const message = refusal(mixed ? { ...good, ...(random as object) } : random);
      return !/[\n\r]/.test(message) && message.length < 300;
    }),
  );
  t.pass();
});

for (const [schema, mistake] of [
  [{ type: 'nonsense' }, 'type: must be one of string'],
  [{ type: [] }, 'type: must be one of string'],
  [{ type: ['string', 7] }, 'type: must be one of string'],
  [{ properties: { a: { type: 'text' } } }, 'properties.a.type: must be one of string'],
  [{ properties: ['a'] }, 'properties: must be an object of schemas'],
  [{ items: { anyOf: [{}, 1] } }, 'items.anyOf[1]: must be a schema'],
  [{ oneOf: [] }, 'oneOf: must be a list of schemas'],
  [{ enum: [] }, 'enum: must be a list with entries'],
  [{ required: 'a' }, 'required: must be a list of names'],
  [{ additionalProperties: 'no' }, 'additionalProperties: must be a schema'],
  [{ $defs: { a: null } }, '$defs.a: must be a schema'],
] as const)
  test(`what is no JSON Schema is refused by its place: ${JSON.stringify(schema)}`, (t) => {
    const message = refusal({ ...good, sampling: { json_schema: schema } });
    t.true(message.startsWith(`sampling.json_schema.${mistake}`), message);
  });

test('a schema may say nothing, say it of everything, and hold words that nobody knows', (t) => {
  for (const json_schema of [
    {},
    { items: true, additionalProperties: false, not: {} },
    { type: ['string', 'null'], format: 'poem', 'x-mood': 7, default: { type: 'nonsense' } },
    { properties: { type: { const: 1 }, enum: {} }, required: [] },
    { items: [{ type: 'null' }], $ref: '#' },
  ])
    t.is(refusal({ ...good, sampling: { json_schema } }), 'accepted');
});
