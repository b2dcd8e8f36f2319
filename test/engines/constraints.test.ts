import test from 'ava';
import fc from 'fast-check';
import { grammarSchema } from '../../src/engines/llamacpp/json-schema.ts';
import { constraintRefusal } from '../../src/engines/output-constraint.ts';

function grammar(gbnf: string) {
  return constraintRefusal({ kind: 'grammar', gbnf })?.message;
}

function nested(levels: number): object {
  let schema: object = { type: 'boolean' };
  for (let level = 1; level < levels; level++) schema = { items: schema };
  return schema;
}

test('a grammar may nest and be long within reason', (t) => {
  const parens = (depth: number) => `root ::= ${'('.repeat(depth)}"a"${')'.repeat(depth)}`;
  t.is(grammar(parens(256)), undefined);
  t.is(grammar(parens(257)), '`grammar` nests parentheses more than 256 levels deep.');
  t.regex(
    grammar(`root ::= "${'a'.repeat(200_000)}"`) ?? '',
    /`grammar` is 200\d+ characters and may have 131072/u,
  );
});

test('parentheses in literals, classes and comments open nothing', (t) => {
  const pieces = ['"(((("', '"\\"((("', '[((((]', '[^\\](((]', '# ((((\n', '( "a" )', ' ', '| "b"'];
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...pieces), { maxLength: 300 }), (parts) => {
      t.is(grammar(`root ::= ${parts.join(' ')}`), undefined);
    }),
  );
  t.regex(grammar(`root ::= "(" ${'( [)] '.repeat(300)}`) ?? '', /levels deep/u);
});

test('a schema is measured without going down into it', (t) => {
  const refused = (schema: object) => constraintRefusal({ kind: 'json_schema', schema })?.message;
  t.is(refused(nested(256)), undefined);
  t.is(refused(nested(258)), '`json_schema` is nested more than 256 levels deep.');
  t.regex(refused(nested(200_000)) ?? '', /levels deep/u);
  const circle: { items?: object } = {};
  circle.items = circle;
  t.regex(refused(circle) ?? '', /levels deep/u);
});

test('a schema is put in the words the engine knows', (t) => {
  t.deepEqual(grammarSchema({ type: ['string', 'null'], maxLength: 5, title: 'a name' }), {
    oneOf: [{ type: 'string', maxLength: 5 }, { type: 'null' }],
  });
  t.deepEqual(grammarSchema({ properties: { a: { anyOf: [{ type: 'integer' }, { type: 'null' }] } } }), {
    type: 'object',
    additionalProperties: false,
    properties: { a: { oneOf: [{ type: 'integer' }, { type: 'null' }] } },
  });
  t.deepEqual(
    grammarSchema({ $ref: '#/definitions/node', definitions: { node: { items: {}, type: 'null' } } }),
    {
      $ref: '#/$defs/node',
      $defs: { node: { type: 'null' } },
    },
  );
  t.deepEqual(grammarSchema({ type: 'string', format: 'email' }), { type: 'string' });
  t.deepEqual(grammarSchema({ type: 'string', format: 'date' }), { type: 'string', format: 'date' });
  t.deepEqual(grammarSchema({ type: 'array', items: true, uniqueItems: false }), { type: 'array' });
});

test('a schema that says nothing is any JSON, and one that names no property any object', (t) => {
  const any = { type: 'object', properties: {}, additionalProperties: true };
  t.deepEqual(grammarSchema({}), {
    oneOf: [
      any,
      { type: 'array' },
      { type: 'string' },
      { type: 'number' },
      { type: 'boolean' },
      { type: 'null' },
    ],
  });
  t.deepEqual(grammarSchema({ type: 'object' }), any);
  t.deepEqual(grammarSchema({ type: 'object', properties: {} }), { ...any, additionalProperties: false });
});

for (const [schema, message] of [
  [{ type: 'text' }, /`json_schema\.type` must be one of/u],
  [{ type: [] }, /`json_schema\.type` must be a list with entries/u],
  [[], /`json_schema` is not a schema object/u],
  [
    { properties: { a: { type: 'number', minimum: 1 } } },
    /`json_schema\.properties\.a\.minimum` is not supported/u,
  ],
  [{ allOf: [{ type: 'null' }] }, /`json_schema\.allOf` is not supported/u],
  [{ type: 'array', items: { type: 'string', pattern: 'a' } }, /`json_schema\.items\.pattern`/u],
  [{ anyOf: [{ type: 'null' }, { $ref: '#/$defs/a' }] }, /`json_schema\.anyOf\[1\]\.\$ref` must name/u],
  [{ $defs: { a: { not: {} } }, $ref: '#/$defs/a' }, /`json_schema\.\$defs\.a\.not`/u],
  [{ enum: [] }, /`json_schema\.enum` must be a list with entries/u],
  [{ const: { a: 1 } }, /`json_schema\.const` must hold strings/u],
  [{ type: 'object', required: ['a'] }, /`json_schema\.required` names a/u],
  [{ oneOf: [{ type: 'null' }], type: 'object' }, /`json_schema\.type` cannot be combined with oneOf/u],
  [{ oneOf: [{ type: 'null' }], enum: [1] }, /has both oneOf and enum/u],
  [{ properties: { a: true } }, /`json_schema\.properties\.a` is not a schema object/u],
] as const) {
  test(`a schema that would not bind is refused: ${JSON.stringify(schema)}`, (t) => {
    const error = t.throws(() => grammarSchema(schema));
    t.regex(error?.message ?? '', message);
    t.like(error, { code: 'INVALID_PARAMS' });
  });
}
