import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import formats from 'ajv-formats';
import { loadSpec, type JsonObject } from '../../tools/contract-spec.ts';

export const spec = loadSpec();

const ajv = new Ajv2020({
  strict: true,
  strictRequired: false,
  allowUnionTypes: true,
  keywords: ['x-expects', 'x-private', 'x-rules'],
});
formats.default(ajv);
ajv.addSchema(spec.bundle);

const compiled = new Map<string, ValidateFunction>();

/**
 * Checks a live answer against the contract. Without a JSON body pass the text, or nothing with status 204.
 * @throws Error that names the operation and the field when the answer is not what the contract promises
 */
export function validateResponse(operationId: string, status: number, body?: unknown): void {
  const operation = spec.operations.find((candidate) => candidate.operationId === operationId);
  if (operation === undefined) throw new Error(`the contract has no operation ${operationId}`);
  const response = operation.responses[status];
  const name = `${operationId} ${status}`;
  if (response === undefined) {
    throw new Error(`${name}: the contract only has ${Object.keys(operation.responses).join(', ')}`);
  }
  if (response.schema !== undefined) return check(name, response.schema, body);
  const isEmpty = body === undefined || body === '';
  if (response.contentType === undefined && !isEmpty) throw new Error(`${name}: there must be no body`);
  if (response.contentType !== undefined && typeof body !== 'string')
    throw new Error(`${name}: must be text`);
}

/**
 * Checks the data of a server-sent event.
 * @throws Error that names the event and the field
 */
export function validateEvent(name: string, data: unknown): void {
  const stream = spec.operations.find(({ operationId }) => operationId === 'streamTask');
  const schema = stream?.responses[200]?.events[name];
  if (schema === undefined) throw new Error(`the contract has no event ${name}`);
  check(`event ${name}`, schema, data);
}

/** Checks a value against a component schema by name. */
export function validateSchema(name: string, value: unknown): void {
  check(name, { $ref: `#/$defs/${name}` }, value);
}

function check(name: string, schema: JsonObject, value: unknown): void {
  let validate = compiled.get(name);
  if (validate === undefined) {
    validate = ajv.compile(absolute(schema));
    compiled.set(name, validate);
  }
  if (validate(value)) return;
  const reasons = ajv.errorsText(validate.errors, { dataVar: '' });
  throw new Error(`${name}: ${reasons} in ${JSON.stringify(value)}`);
}

/** Schemas of answers stand outside the bundle that their references point into. */
function absolute(schema: JsonObject): JsonObject {
  return JSON.parse(JSON.stringify(schema).replaceAll('"#/$defs/', '"contract#/$defs/')) as JsonObject;
}
