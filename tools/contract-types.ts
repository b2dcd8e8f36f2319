import { compile, type JSONSchema } from 'json-schema-to-typescript';
import { isObject, type Json, type JsonObject } from './contract-spec.ts';

type Defs = Record<string, JsonObject>;

/**
 * TypeScript for every schema. The configuration gives two families: `ConfigInput` is what may be written, with
 * whatever has a default left out, `Config` what the program works with.
 */
export async function generateTypes(contract: Defs, config: JsonObject): Promise<string> {
  const { $defs, $schema: _dialect, title: _title, ...root } = config;
  const configDefs: Defs = { ...($defs as Defs), Config: root };
  const defs = { ...contract, ...mapDefs(configDefs, requireDefaulted), ...inputFamily(configDefs) };
  const schema = { title: 'Root', type: 'object', properties: {}, $defs: mapDefs(defs, typeShape) };
  const source = await compile(schema as JSONSchema, 'Root', {
    additionalProperties: false,
    bannerComment: '',
    ignoreMinAndMaxItems: true,
    style: { singleQuote: true, printWidth: 110 },
    unreachableDefinitions: true,
  });
  return source
    .replace(
      /\n \*\n \* This interface was referenced by `Root`'s JSON-Schema\n \* via the `definition` "\w+"\./g,
      '',
    )
    .replace(
      /\/\*\*\n \* This interface was referenced by `Root`'s JSON-Schema\n \* via the `definition` "\w+"\.\n \*\/\n/g,
      '',
    )
    .replace(/export interface Root \{\}\n+/, '');
}

/** Rules that TypeScript cannot say, and what stands beside a reference, would only give copies of types. */
function typeShape(schema: JsonObject): JsonObject {
  return mapSchema(schema, (node) => {
    if (typeof node.$ref === 'string') return { $ref: node.$ref };
    const { not: _not, default: _default, discriminator: _discriminator, ...rest } = node;
    if (isObject(rest.properties) && rest.anyOf !== undefined) delete rest.anyOf;
    if (rest.const !== undefined) delete rest.type;
    if (rest.oneOf !== undefined) delete rest.type;
    return rest;
  });
}

function requireDefaulted(schema: JsonObject): JsonObject {
  return mapSchema(schema, (node) => {
    if (!isObject(node.properties)) return node;
    const defaulted = Object.entries(node.properties)
      .filter(([, property]) => isObject(property) && ('default' in property || 'x-default-from' in property))
      .map(([key]) => key);
    const required = [...new Set([...((node.required ?? []) as string[]), ...defaulted])];
    return required.length > 0 ? { ...node, required } : node;
  });
}

/** Copies of the object schemas under names that end in `Input`; single values need no second type. */
function inputFamily(defs: Defs): Defs {
  const names = new Set(Object.keys(defs).filter((name) => defs[name]?.type === 'object'));
  const rename = (node: JsonObject): JsonObject => {
    const name = typeof node.$ref === 'string' ? node.$ref.replace('#/$defs/', '') : '';
    return names.has(name) ? { ...node, $ref: `#/$defs/${name}Input` } : node;
  };
  return Object.fromEntries([...names].map((name) => [`${name}Input`, mapSchema(defs[name] ?? {}, rename)]));
}

function mapDefs(defs: Defs, change: (schema: JsonObject) => JsonObject): Defs {
  return Object.fromEntries(Object.entries(defs).map(([name, schema]) => [name, change(schema)]));
}

/** Applies `change` to a schema and everything inside it, inside first. */
export function mapSchema(schema: JsonObject, change: (node: JsonObject) => JsonObject): JsonObject {
  const inner = Object.entries(schema).map(([key, value]): [string, Json] => {
    if (Array.isArray(value))
      return [key, value.map((item) => (isObject(item) ? mapSchema(item, change) : item))];
    return [key, isObject(value) ? mapSchema(value, change) : value];
  });
  return change(Object.fromEntries(inner));
}
