import { TaskchartError, failure } from '../../errors.ts';

type Schema = Record<string, unknown>;

/** What would bind the output and cannot be turned into a grammar here. */
const REFUSED = (
  'allOf not if then else dependentRequired dependentSchemas patternProperties propertyNames unevaluatedProperties ' +
  'pattern minimum maximum exclusiveMinimum exclusiveMaximum multipleOf ' +
  'contains uniqueItems additionalItems unevaluatedItems'
).split(' ');

/** Formats with a grammar of their own; by the standard any other is a remark that binds nothing. */
const FORMATS = ['date-time', 'date', 'time'];

/** Together every JSON there is. */
const ANY = ['object', 'array', 'string', 'number', 'boolean', 'null'];

const TYPES = ['string', 'number', 'integer', 'boolean', 'null', 'object', 'array'];

/**
 * A schema in the dialect that node-llama-cpp turns into a grammar. It reads what it does not know as "null", so
 * whatever binds the output and has no counterpart is refused here.
 * @throws TaskchartError INVALID_PARAMS that names the place in the schema.
 */
export function grammarSchema(schema: object): object {
  const root = schema as Schema;
  const definitions = { ...objectAt(root, 'definitions'), ...objectAt(root, '$defs') };
  const names = new Set(Object.keys(definitions));
  const $defs = mapped(definitions, (each, name) => convert(each, `$defs.${name}`, names));
  return { ...convert(root, '', names), ...(names.size > 0 ? { $defs } : {}) };
}

function convert(value: unknown, at: string, names: ReadonlySet<string>): Schema {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw refused(at, 'is not a schema object');
  const schema = value as Schema;
  for (const keyword of REFUSED) {
    if (schema[keyword] !== undefined && schema[keyword] !== false)
      throw refused(join(at, keyword), 'is not supported by this engine');
  }
  const forms = ['$ref', 'oneOf', 'anyOf', 'const', 'enum'].filter((form) => schema[form] !== undefined);
  if (forms.length > 1) throw refused(at, `has both ${forms.join(' and ')}`);
  switch (forms[0]) {
    case '$ref':
      return { $ref: reference(schema['$ref'], at, names) };
    case 'oneOf':
    case 'anyOf':
      return { oneOf: alternatives(schema, forms[0], at, names) };
    case 'const':
      return { const: literal(schema['const'], join(at, 'const')) };
    case 'enum':
      return { enum: list(schema, 'enum', at).map((each) => literal(each, join(at, 'enum'))) };
    default:
      return typed(schema, at, names);
  }
}

function typed(schema: Schema, at: string, names: ReadonlySet<string>): Schema {
  const type = schema['type'] ?? impliedType(schema) ?? ANY;
  if (Array.isArray(type)) {
    const oneOf = list({ type }, 'type', at).map((each) => typed({ ...schema, type: each }, at, names));
    return { oneOf };
  }
  if (typeof type !== 'string' || !TYPES.includes(type))
    throw refused(join(at, 'type'), `must be one of ${TYPES.join(', ')}, or a list of them`);
  const within = (key: string) => convert(schema[key], join(at, key), names);
  switch (type) {
    case 'object':
      return objectSchema(schema, at, names);
    case 'array':
      return {
        type,
        ...pick(schema, ['minItems', 'maxItems']),
        ...(isOpen(schema['items']) ? {} : { items: within('items') }),
        ...(schema['prefixItems'] === undefined
          ? {}
          : {
              prefixItems: list(schema, 'prefixItems', at).map((each, i) =>
                convert(each, join(at, `prefixItems[${i}]`), names),
              ),
            }),
      };
    case 'string':
      if (FORMATS.includes(String(schema['format']))) return { type, format: schema['format'] };
      return { type, ...pick(schema, ['minLength', 'maxLength']) };
    default:
      return { type };
  }
}

function objectSchema(schema: Schema, at: string, names: ReadonlySet<string>): Schema {
  const properties = objectAt(schema, 'properties');
  // Who names no property asks for any object; who names some, for those.
  const more = schema['additionalProperties'] ?? schema['properties'] === undefined;
  for (const name of (schema['required'] ?? []) as string[]) {
    if (!Object.hasOwn(properties, name))
      throw refused(join(at, 'required'), `names ${name}, which is not in properties`);
  }
  return {
    type: 'object',
    ...pick(schema, ['minProperties', 'maxProperties']),
    properties: mapped(properties, (each, name) => convert(each, join(at, `properties.${name}`), names)),
    ...(typeof more === 'boolean'
      ? { additionalProperties: more }
      : { additionalProperties: convert(more, join(at, 'additionalProperties'), names) }),
  };
}

function impliedType(schema: Schema): string | undefined {
  if (schema['properties'] !== undefined || schema['additionalProperties'] !== undefined) return 'object';
  return schema['items'] !== undefined || schema['prefixItems'] !== undefined ? 'array' : undefined;
}

function alternatives(schema: Schema, form: string, at: string, names: ReadonlySet<string>): Schema[] {
  for (const beside of ['type', 'properties', 'items', 'required'])
    if (schema[beside] !== undefined) throw refused(join(at, beside), `cannot be combined with ${form}`);
  return list(schema, form, at).map((each, i) => convert(each, join(at, `${form}[${i}]`), names));
}

function reference(ref: unknown, at: string, names: ReadonlySet<string>): string {
  const name = /^#\/(?:\$defs|definitions)\/(?<name>[^/]+)$/u.exec(String(ref))?.groups?.['name'];
  if (name === undefined || !names.has(name))
    throw refused(join(at, '$ref'), 'must name an entry of the $defs at the top, as in #/$defs/name');
  return `#/$defs/${name}`;
}

function literal(value: unknown, at: string): unknown {
  if (typeof value === 'object' && value !== null)
    throw refused(at, 'must hold strings, numbers, booleans or null');
  return value;
}

function list(schema: Schema, key: string, at: string): unknown[] {
  const value = schema[key];
  if (!Array.isArray(value) || value.length === 0)
    throw refused(join(at, key), 'must be a list with entries');
  return value;
}

function objectAt(schema: Schema, key: string): Schema {
  const value = schema[key] ?? {};
  return typeof value === 'object' && !Array.isArray(value) ? (value as Schema) : {};
}

function isOpen(items: unknown): boolean {
  return items === undefined || items === true;
}

function pick(schema: Schema, keys: readonly string[]): Schema {
  return Object.fromEntries(keys.filter((key) => schema[key] !== undefined).map((key) => [key, schema[key]]));
}

function mapped(schema: Schema, change: (value: unknown, key: string) => Schema): Schema {
  return Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, change(value, key)]));
}

function join(at: string, key: string): string {
  return at === '' ? key : `${at}.${key}`;
}

function refused(at: string, why: string): TaskchartError {
  const place = at === '' ? 'json_schema' : `json_schema.${at}`;
  return new TaskchartError(failure('INVALID_PARAMS', `\`${place}\` ${why}.`));
}
