import type { Fields } from './generated/fields.js';
import type { SchemaError } from './generated/validators.js';
import { nearest } from './nearest.ts';

/** Where a mistake is and what would be right. */
export interface Explanation {
  /** Keys and list places that lead to the value. */
  keys: readonly (string | number)[];
  /** The same as text, `pools[0].engine`; empty for the whole. */
  path: string;
  /** What would be right, without the path. */
  message: string;
  /** Path and message in one sentence. */
  text: string;
}

const SHOWN_CHARACTERS = 40;

/**
 * Says in one line what is wrong with a value that a generated validator refused.
 * Values of private fields (prompts, messages, grammars) and a whole that is no object are never shown, others are
 * shortened.
 */
export function explain(
  errors: readonly SchemaError[] | null | undefined,
  value: unknown,
  fields: Fields,
): Explanation {
  // Where branches were tried, their own errors come first and the one that counts comes last.
  const error = errors?.at(-1);
  if (error === undefined) return explanation([], 'is not valid');
  const keys = keysOf(error.instancePath, value);
  const extra = error.params.missingProperty ?? error.params.additionalProperty ?? error.params.tag;
  const at = typeof extra === 'string' ? [...keys, extra] : keys;
  const field = fields[fieldPath(at)];
  switch (error.keyword) {
    case 'required':
      return explanation(at, `is required (${field?.about ?? 'it has no default'})`);
    case 'additionalProperties':
      return explanation(at, unknownKey(at, fields));
    case 'minItems':
      return explanation(at, 'must not be empty');
    case 'maxItems':
      return explanation(at, `must have at most ${String(error.params.limit)} entries`);
    case 'maximum':
      return explanation(at, `must be ≤ ${String(error.params.limit)}, got ${show(at, value, fields)}`);
    default: {
      const rule = field?.rules?.[error.keyword];
      if (rule !== undefined) return explanation(at, rule);
      return explanation(at, `must be ${field?.expects ?? 'different'}, got ${show(at, value, fields)}`);
    }
  }
}

/** Keys and list places as people write them: `pools[0].engine`. */
export function pathText(keys: readonly (string | number)[]): string {
  return keys.reduce<string>((path, key) => {
    if (typeof key === 'number') return `${path}[${key}]`;
    const name = /^[\w-]+$/.test(key) ? key : shorten(key);
    return path === '' ? name : `${path}.${name}`;
  }, '');
}

/** A value in at most one short line; of objects and lists only what they are. */
export function showValue(value: unknown): string {
  if (typeof value === 'string') return shorten(value);
  return typeof value === 'object' && value !== null ? kindOf(value) : String(value);
}

function explanation(keys: readonly (string | number)[], message: string): Explanation {
  const path = pathText(keys);
  return { keys, path, message, text: path === '' ? message : `${path}: ${message}` };
}

function unknownKey(keys: readonly (string | number)[], fields: Fields): string {
  const path = fieldPath(keys);
  const field = fields[path];
  if (field !== undefined) return `does not go with the rest (${field.about})`;
  const parent = fieldPath(keys.slice(0, -1));
  const known = Object.keys(fields).filter(
    (key) => key !== '' && key.slice(0, Math.max(0, key.lastIndexOf('.'))) === parent && !key.endsWith('[]'),
  );
  const names = known.map((key) => key.slice(key.lastIndexOf('.') + 1));
  const meant = nearest(String(keys.at(-1)), names);
  return meant === undefined
    ? `is not a known key; known here: ${names.join(', ')}`
    : `is not a known key; did you mean ${meant}?`;
}

function show(keys: readonly (string | number)[], root: unknown, fields: Fields): string {
  const value = keys.reduce<unknown>(
    (at, key) => (typeof at === 'object' && at !== null ? (at as Record<string, unknown>)[key] : undefined),
    root,
  );
  return keys.length === 0 || isPrivate(keys, fields) ? kindOf(value) : showValue(value);
}

function isPrivate(keys: readonly (string | number)[], fields: Fields): boolean {
  return keys.some((_, index) => fields[fieldPath(keys.slice(0, index + 1))]?.private === true);
}

function fieldPath(keys: readonly (string | number)[]): string {
  return keys.reduce<string>((path, key) => {
    if (typeof key === 'number') return `${path}[]`;
    return path === '' ? key : `${path}.${key}`;
  }, '');
}

/** JSON pointer to keys; only the value tells a list place from a key that looks like one. */
function keysOf(pointer: string, root: unknown): (string | number)[] {
  const keys: (string | number)[] = [];
  let at = root;
  for (const token of pointer.split('/').slice(1)) {
    const key = token.replaceAll('~1', '/').replaceAll('~0', '~');
    keys.push(Array.isArray(at) ? Number(key) : key);
    at = typeof at === 'object' && at !== null ? (at as Record<string, unknown>)[key] : undefined;
  }
  return keys;
}

function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return value.length === 0 ? 'an empty list' : 'a list';
  if (value === '') return 'an empty string';
  const kind = typeof value;
  return kind === 'object' ? 'an object' : kind === 'undefined' ? 'nothing' : `a ${kind}`;
}

function shorten(text: string): string {
  return JSON.stringify(text.length > SHOWN_CHARACTERS ? `${text.slice(0, SHOWN_CHARACTERS - 1)}…` : text);
}
