import { isObject, type JsonObject } from './contract-spec.ts';

/** What an explanation needs to know about one field; see `Field` in the generated file. */
export interface FieldInfo {
  type: string;
  about: string;
  expects: string;
  private?: true;
  rules?: Record<string, string>;
}

const PLAIN: Record<string, string> = {
  string: 'a string',
  boolean: 'true or false',
  array: 'a list',
  object: 'an object',
};

/** Bounds that only keep numbers inside 32 or 53 bits; nobody has to read them. */
const TECHNICAL_BOUND = 2 ** 31 - 1;

/** Lists every field of a schema by its path, `pools[].queue.capacity`; the root is the empty path. */
export function collectFields(root: JsonObject, defs: Record<string, JsonObject>): Record<string, FieldInfo> {
  const fields: Record<string, FieldInfo> = {};
  const visit = (written: JsonObject, path: string, hidden: boolean): void => {
    const { $ref, ...beside } = written;
    const referred = typeof $ref === 'string' ? defs[$ref.replace('#/$defs/', '')] : undefined;
    const schema = { ...referred, ...beside };
    const isPrivate = hidden || schema['x-private'] === true;
    fields[path] ??= {
      type: typeof schema.type === 'string' ? schema.type : 'any',
      about: firstSentence(String(schema.description)),
      expects: expectation(schema),
      ...(isPrivate ? { private: true } : {}),
      ...(isObject(schema['x-rules']) ? { rules: schema['x-rules'] as Record<string, string> } : {}),
    };
    for (const branch of (schema.oneOf ?? []) as JsonObject[]) visit(branch, path, isPrivate);
    for (const [key, property] of Object.entries((schema.properties ?? {}) as JsonObject)) {
      visit(property as JsonObject, path === '' ? key : `${path}.${key}`, isPrivate);
    }
    if (isObject(schema.items)) visit(schema.items, `${path}[]`, isPrivate);
  };
  visit(root, '', false);
  return fields;
}

/** The right value in words, to go after "must be". */
function expectation(schema: JsonObject): string {
  if (typeof schema['x-expects'] === 'string') return schema['x-expects'];
  if (Array.isArray(schema.enum)) {
    return schema.enum.length === 1 ? String(schema.enum[0]) : `one of ${schema.enum.join(', ')}`;
  }
  if (schema.format === 'uuid') return 'a UUID';
  if (schema.type !== 'integer' && schema.type !== 'number') return PLAIN[String(schema.type)] ?? 'a value';
  const noun = schema.type === 'integer' ? 'an integer' : 'a number';
  const { minimum, exclusiveMinimum, maximum } = schema;
  const upper = typeof maximum === 'number' && maximum < TECHNICAL_BOUND ? maximum : undefined;
  if (minimum !== undefined && upper !== undefined) return `${noun} from ${String(minimum)} to ${upper}`;
  const bounds = [
    ...(minimum !== undefined ? [`≥ ${String(minimum)}`] : []),
    ...(exclusiveMinimum !== undefined ? [`> ${String(exclusiveMinimum)}`] : []),
    ...(upper !== undefined ? [`≤ ${upper}`] : []),
  ];
  return [noun, bounds.join(' and ')].join(' ').trim();
}

function firstSentence(text: string): string {
  const sentence = text.split(/\.(?:\s|$)/)[0] ?? text;
  return /^[A-Z][a-z ]/.test(sentence) ? sentence.charAt(0).toLowerCase() + sentence.slice(1) : sentence;
}
