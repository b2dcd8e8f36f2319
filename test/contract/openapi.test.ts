import test from 'ava';
import { ERROR_KINDS } from '../../src/errors.ts';
import { follow, isObject, loadConfigSchema, type Json, type JsonObject } from '../../tools/contract-spec.ts';
import { spec, validateEvent, validateResponse, validateSchema } from '../helpers/contract.ts';

type Visit = (node: JsonObject, path: string) => void;

function walk(value: Json | undefined, path: string, visit: Visit): void {
  if (Array.isArray(value)) return value.forEach((item, index) => walk(item, `${path}/${index}`, visit));
  if (!isObject(value)) return;
  visit(value, path);
  for (const [key, inner] of Object.entries(value)) walk(inner, `${path}/${key}`, visit);
}

function at(node: Json | undefined, ...keys: string[]): JsonObject {
  const found = keys.reduce<Json | undefined>(
    (inner, key) => (isObject(inner) ? inner[key] : undefined),
    node,
  );
  return isObject(found) ? found : {};
}

test('the contract files say OpenAPI 3.1 and JSON Schema 2020-12, with title, version and description', (t) => {
  for (const [file, document] of Object.entries(spec.documents)) {
    t.regex(String(document.openapi), /^3\.1\.\d+$/, file);
    t.is(document.jsonSchemaDialect, 'https://json-schema.org/draft/2020-12/schema', file);
    for (const key of ['title', 'version', 'description'])
      t.truthy(at(document, 'info')[key], `${file} ${key}`);
  }
});

test('every reference in the contract leads somewhere', (t) => {
  let references = 0;
  for (const [file, document] of Object.entries(spec.documents)) {
    walk(document, file, (node, path) => {
      if (typeof node.$ref !== 'string') return;
      t.notThrows(() => follow(spec.documents, file, node), path);
      references++;
    });
  }
  t.true(references > 200);
});

test('nothing in the contract is empty, as a comma in an unquoted description would make it', (t) => {
  for (const [file, document] of Object.entries(spec.documents)) {
    walk(document, file, (node, path) => {
      if (path.includes('/examples')) return;
      for (const [key, value] of Object.entries(node)) t.not(value, null, `${path}/${key}`);
    });
  }
});

test('every operation has a name of its own, words, and an answer that is a success', (t) => {
  const names = spec.operations.map(({ operationId }) => operationId);
  t.deepEqual(names, [...new Set(names)]);
  for (const { operationId, raw, responses } of spec.operations) {
    for (const key of ['operationId', 'summary', 'description', 'tags'])
      t.truthy(raw[key], `${operationId} ${key}`);
    t.true(
      Object.keys(responses).some((status) => status.startsWith('2')),
      operationId,
    );
    for (const { description } of Object.values(responses)) t.truthy(description, operationId);
  }
});

test('the placeholders of a path are its path parameters', (t) => {
  for (const { operationId, path, file, raw } of spec.operations) {
    const shared = at(spec.documents[file], 'paths', path).parameters ?? [];
    const parameters = [...(shared as JsonObject[]), ...((raw.parameters ?? []) as JsonObject[])]
      .map((parameter) => follow(spec.documents, file, parameter).node)
      .filter((parameter) => parameter.in === 'path');
    const placeholders = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
    t.deepEqual(
      parameters.map(({ name }) => name),
      placeholders,
      operationId,
    );
    for (const parameter of parameters) t.true(parameter.required, operationId);
  }
});

test('every response carries X-Correlation-Id, and 429 says when to come back', (t) => {
  for (const { operationId, responses } of spec.operations) {
    for (const [status, { headers }] of Object.entries(responses)) {
      t.true(headers.includes('X-Correlation-Id'), `${operationId} ${status}`);
    }
    const refused = responses['429']?.headers;
    if (refused) t.true(refused.includes('Retry-After') && refused.includes('X-Backoff-Ms'), operationId);
  }
  t.true(
    spec.operations.find(({ operationId }) => operationId === 'submitTask')?.responses['429'] !== undefined,
  );
});

test('every operation may turn a caller away with 401 and 403, but for the health that everybody may ask for', (t) => {
  const open = spec.operations
    .filter(({ responses }) => responses['401'] === undefined || responses['403'] === undefined)
    .map(({ operationId }) => operationId);
  t.deepEqual(open, ['getHealth']);
  for (const { operationId, responses } of spec.operations)
    if (responses['401'])
      t.deepEqual(responses['401'].headers, ['X-Correlation-Id', 'WWW-Authenticate'], operationId);
});

test('an operation answers 501 exactly if it is planned', (t) => {
  for (const { operationId, planned, responses } of spec.operations) {
    t.is(responses['501'] !== undefined, planned, operationId);
  }
  const present = spec.operations.filter(({ planned }) => !planned).map(({ operationId }) => operationId);
  t.deepEqual(present.sort(), [
    'cancelTask',
    'createArtifact',
    'createModel',
    'deleteModel',
    'deleteSession',
    'deleteTask',
    'drainPool',
    'getArtifact',
    'getCapabilities',
    'getHealth',
    'getMetrics',
    'getModel',
    'getPoolHealth',
    'getSession',
    'getTask',
    'listArtifacts',
    'listModels',
    'listPools',
    'listTasks',
    'previewTask',
    'purgePool',
    'registerWorker',
    'reloadPool',
    'setModelState',
    'streamTask',
    'submitTask',
    'tokenize',
    'tokenizeQuery',
    'touchSession',
    'verifyModel',
  ]);
});

test('every schema and every field is described', (t) => {
  const isDescribed = (file: string, schema: JsonObject) =>
    typeof schema.description === 'string' ||
    typeof follow(spec.documents, file, schema).node.description === 'string';
  for (const [file, document] of Object.entries(spec.documents)) {
    const schemas = at(document, 'components', 'schemas');
    for (const [name, schema] of Object.entries(schemas))
      t.true(isDescribed(file, schema as JsonObject), name);
    walk(document, file, (node, path) => {
      if (path.includes('/examples')) return;
      const fields = isObject(node.schema) ? { schema: node.schema } : node.properties;
      if (!isObject(fields)) return;
      for (const [key, field] of Object.entries(fields))
        t.true(isDescribed(file, field as JsonObject), `${path}/${key}`);
    });
  }
});

test('every key of the configuration is described', (t) => {
  const schema = loadConfigSchema();
  const defs = schema.$defs as JsonObject;
  walk(schema, 'config', (node, path) => {
    for (const [key, field] of Object.entries(at(node, 'properties') as Record<string, JsonObject>)) {
      const name = typeof field.$ref === 'string' ? field.$ref.replace('#/$defs/', '') : '';
      t.truthy(field.description ?? at(defs, name).description, `${path}/${key}`);
    }
    // A map by names of the user's is open, and what stands under them is not.
    if (node.type !== 'object' || isObject(node.additionalProperties)) return;
    t.is(node.additionalProperties ?? !node.oneOf, false, `${path} is open`);
  });
});

test('fields whose name ends in a unit, and tokens and bytes, say it in words', (t) => {
  const units: [RegExp, RegExp][] = [
    [/_ms(_remaining)?$/, /millisecond/i],
    [/_bytes$|^bytes_/, /bytes/i],
  ];
  for (const [name, schema] of Object.entries(spec.bundle.$defs)) {
    for (const [key, field] of Object.entries(at(schema, 'properties'))) {
      for (const [names, words] of units) {
        if (names.test(key)) t.regex(String((field as JsonObject).description), words, `${name}.${key}`);
      }
    }
  }
});

test('the codes of the error envelope are the closed error family', (t) => {
  const codes = at(spec.bundle.$defs.Error, 'properties', 'code').enum as string[];
  t.deepEqual(codes, Object.keys(ERROR_KINDS));
});

test('every status of the error family can be answered to a submission or to another operation', (t) => {
  const statuses = new Set(spec.operations.flatMap(({ responses }) => Object.keys(responses)));
  for (const { status } of Object.values(ERROR_KINDS)) t.true(statuses.has(String(status)), String(status));
});

test('the examples in the contract are valid', (t) => {
  let examples = 0;
  for (const [name, schema] of Object.entries(spec.bundle.$defs)) {
    for (const example of (schema.examples ?? []) as Json[]) {
      t.notThrows(() => validateSchema(name, example), name);
      examples++;
    }
  }
  t.true(examples >= 15);
});

test('answers and events are checked against the contract, and a mistake is named', (t) => {
  t.notThrows(() => validateResponse('getHealth', 200, { status: 'ok' }));
  t.notThrows(() => validateResponse('cancelTask', 204));
  t.notThrows(() => validateResponse('getMetrics', 200, '# TYPE x counter\n'));
  t.notThrows(() => validateEvent('started', { queue_position: 0, predicted_start_ms: 0, more: 1 }));
  t.notThrows(() => validateEvent('token', { t: 'a', i: 0 }));
  t.notThrows(() => validateEvent('token', { batch: [{ t: 'a', i: 0 }] }));
  t.notThrows(() => validateEvent('error', { code: 'INTERNAL', message: 'no', retriable: false }));
  t.throws(() => validateResponse('getHealth', 200, { status: 'fine' }), {
    message: /^getHealth 200: .*status/,
  });
  t.throws(() => validateResponse('getHealth', 418, {}), { message: /the contract only has 200, 503/ });
  t.throws(() => validateResponse('nobody', 200, {}), { message: /no operation nobody/ });
  t.throws(() => validateResponse('cancelTask', 204, {}), { message: /there must be no body/ });
  t.throws(() => validateEvent('token', { t: 'a' }), { message: /^event token: .*i/ });
  t.throws(() => validateEvent('tick', {}), { message: /no event tick/ });
});
