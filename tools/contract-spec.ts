import { readFileSync } from 'node:fs';
import { parse } from 'yaml';

export type Json = null | boolean | number | string | Json[] | JsonObject;
export interface JsonObject {
  [key: string]: Json;
}

/** One response of an operation, with every reference followed. */
interface ResponseSpec {
  description: string;
  /** Header names as written in the contract. */
  headers: string[];
  /** JSON schema of the body, its references pointing into {@link Spec.bundle}; undefined where it is not JSON. */
  schema: JsonObject | undefined;
  contentType: string | undefined;
  /** Schemas of the data of each server-sent event, by event name. */
  events: Record<string, JsonObject>;
}

interface OperationSpec {
  operationId: string;
  method: string;
  /** As in the contract: `/v1/tasks/{id}`. */
  path: string;
  /** Declared, but answered with 501. */
  planned: boolean;
  file: string;
  /** Name of the component schema of the JSON body, if the operation takes one. */
  request: string | undefined;
  responses: Record<string, ResponseSpec>;
  raw: JsonObject;
}

export interface Spec {
  /** Version of the wire contract, the same in every file. */
  version: string;
  documents: Record<string, JsonObject>;
  /** All component schemas of all files under `$defs`; references are `#/$defs/Name`. */
  bundle: { $id: string; $defs: Record<string, JsonObject> };
  operations: OperationSpec[];
}

const FILES = ['common.yaml', 'data.yaml', 'control.yaml'];
const METHODS = ['get', 'put', 'post', 'delete', 'patch'];
const SCHEMA_REF = /^(?:\.\/[a-z]+\.yaml)?#\/components\/schemas\/(\w+)$/;
const FOLDER = new URL('../contracts/', import.meta.url);

/** Reads the OpenAPI files; a reference that leads nowhere, or a name that two files give, throws. */
export function loadSpec(): Spec {
  const documents = Object.fromEntries(FILES.map((file) => [file, readYaml(`openapi/${file}`)]));
  const $defs: Record<string, JsonObject> = {};
  for (const [file, document] of Object.entries(documents)) {
    for (const [name, schema] of Object.entries(child(document, 'components', 'schemas'))) {
      if ($defs[name] !== undefined) throw new Error(`${file}: schema ${name} has already been defined`);
      $defs[name] = intoBundle(schema) as JsonObject;
    }
  }
  const bundle = { $id: 'contract', $defs };
  const operations = Object.entries(documents).flatMap(([file, document]) =>
    Object.entries(child(document, 'paths')).flatMap(([path, item]) =>
      METHODS.filter((method) => (item as JsonObject)[method] !== undefined).map((method) =>
        operation(documents, file, path, method, (item as JsonObject)[method] as JsonObject),
      ),
    ),
  );
  const versions = new Set(Object.values(documents).map((document) => child(document, 'info').version));
  const [version] = versions;
  if (typeof version !== 'string' || versions.size > 1) throw new Error('the files must have one version');
  return { version, documents, bundle, operations };
}

/** The configuration's schema as it is written. */
export function loadConfigSchema(): JsonObject {
  return JSON.parse(readFileSync(new URL('config.schema.json', FOLDER), 'utf8')) as JsonObject;
}

/** Follows `$ref`s, across files, until there is none. */
export function follow(
  documents: Spec['documents'],
  file: string,
  node: JsonObject,
): { file: string; node: JsonObject } {
  if (typeof node.$ref !== 'string') return { file, node };
  const [target = '', pointer = ''] = node.$ref.split('#');
  const next = target === '' ? file : target.replace('./', '');
  const document = documents[next];
  if (document === undefined) throw new Error(`${file}: ${node.$ref} names a file that does not exist`);
  const found = pointer
    .split('/')
    .slice(1)
    .reduce<Json | undefined>((value, key) => (isObject(value) ? value[key] : undefined), document);
  if (!isObject(found)) throw new Error(`${file}: ${node.$ref} leads nowhere`);
  return follow(documents, next, found);
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function operation(
  documents: Spec['documents'],
  file: string,
  path: string,
  method: string,
  raw: JsonObject,
): OperationSpec {
  const body = child(raw, 'requestBody', 'content', 'application/json', 'schema');
  const responses = Object.entries(child(raw, 'responses')).map(([status, node]) => [
    status,
    response(documents, follow(documents, file, node as JsonObject)),
  ]);
  return {
    operationId: String(raw.operationId),
    method,
    path,
    planned: raw['x-status'] === 'planned',
    file,
    request: typeof body.$ref === 'string' ? SCHEMA_REF.exec(body.$ref)?.[1] : undefined,
    responses: Object.fromEntries(responses) as OperationSpec['responses'],
    raw,
  };
}

function response(
  documents: Spec['documents'],
  { file, node }: { file: string; node: JsonObject },
): ResponseSpec {
  const headers = child(node, 'headers');
  for (const header of Object.values(headers)) follow(documents, file, header as JsonObject);
  const [contentType, media] = Object.entries(child(node, 'content'))[0] ?? [];
  const events = intoBundle(child((media ?? {}) as JsonObject, 'x-sse-events'));
  const isJson = contentType === 'application/json';
  return {
    description: String(node.description),
    headers: Object.keys(headers),
    schema: isJson ? (intoBundle((media as JsonObject).schema) as JsonObject) : undefined,
    contentType,
    events: events as Record<string, JsonObject>,
  };
}

function child(node: JsonObject, ...path: string[]): JsonObject {
  let value: Json | undefined = node;
  for (const key of path) value = isObject(value) ? value[key] : undefined;
  return isObject(value) ? value : {};
}

/** Copies a schema so that its references point into the bundle. */
function intoBundle(value: Json | undefined): Json | undefined {
  if (Array.isArray(value)) return value.map((item) => intoBundle(item) as Json);
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => {
      if (key !== '$ref') return [key, intoBundle(item) as Json];
      const name = SCHEMA_REF.exec(String(item))?.[1];
      if (name === undefined) throw new Error(`${String(item)} is not a reference to a component schema`);
      return [key, `#/$defs/${name}`];
    }),
  );
}

function readYaml(path: string): JsonObject {
  return parse(readFileSync(new URL(path, FOLDER), 'utf8')) as JsonObject;
}
