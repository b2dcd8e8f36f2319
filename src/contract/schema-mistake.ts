/** Keywords whose value is a schema. */
const ONE = (
  'items additionalProperties not if then else contains propertyNames unevaluatedItems unevaluatedProperties ' +
  'additionalItems'
).split(' ');
/** Keywords whose value is a list of schemas. */
const LIST = ['allOf', 'anyOf', 'oneOf', 'prefixItems'];
/** Keywords whose value has a schema under each name. */
const NAMED = ['properties', 'patternProperties', '$defs', 'definitions', 'dependentSchemas'];

/** Of a property in a message, in characters. */
const LONGEST_NAME = 40;

const TYPES = ['string', 'number', 'integer', 'boolean', 'null', 'object', 'array'];

/**
 * What makes an object no JSON Schema, as far as that shows without an engine: `{}` is one. Goes down by recursion, so
 * the depth has to be checked before.
 * @param at where the schema stands, for the message
 * @returns undefined where nothing does
 */
export function schemaMistake(schema: unknown, at: string): string | undefined {
  if (typeof schema === 'boolean') return undefined;
  if (!isObject(schema)) return `${at}: must be a schema (an object, true or false)`;
  for (const [keyword, value] of Object.entries(schema)) {
    const mistake = keywordMistake(keyword, value, `${at}.${keyword}`);
    if (mistake) return mistake;
  }
  return undefined;
}

function keywordMistake(keyword: string, value: unknown, at: string): string | undefined {
  if (keyword === 'type') {
    const types: readonly unknown[] = Array.isArray(value) ? value : [value];
    const isKnown = types.length > 0 && types.every((type) => TYPES.includes(type as string));
    return isKnown ? undefined : `${at}: must be one of ${TYPES.join(', ')}, or a list of them`;
  }
  if (keyword === 'enum') return isFilled(value) ? undefined : `${at}: must be a list with entries`;
  if (keyword === 'required') {
    const isNames = Array.isArray(value) && value.every((name) => typeof name === 'string');
    return isNames ? undefined : `${at}: must be a list of names`;
  }
  if (LIST.includes(keyword)) {
    if (!isFilled(value)) return `${at}: must be a list of schemas`;
    return firstMistake(value.map((each, i) => [each, `${at}[${i}]`]));
  }
  if (NAMED.includes(keyword)) {
    if (!isObject(value)) return `${at}: must be an object of schemas`;
    return firstMistake(
      Object.entries(value).map(([name, each]) => [each, `${at}.${name.slice(0, LONGEST_NAME)}`]),
    );
  }
  // Older drafts have a list here.
  if (keyword === 'items' && Array.isArray(value))
    return firstMistake(value.map((each, i) => [each, `${at}[${i}]`]));
  return ONE.includes(keyword) ? schemaMistake(value, at) : undefined;
}

function firstMistake(schemas: readonly [schema: unknown, at: string][]): string | undefined {
  for (const [schema, at] of schemas) {
    const mistake = schemaMistake(schema, at);
    if (mistake) return mistake;
  }
  return undefined;
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isFilled(value: unknown): value is unknown[] {
  return Array.isArray(value) && value.length > 0;
}
