import { failure, TaskchartError } from '../errors.ts';
import { canonicalId } from '../ids.ts';
import { explain } from './explain.ts';
import {
  catalogModelFields,
  drainRequestFields,
  modelStateRequestFields,
  purgeRequestFields,
  reloadRequestFields,
  taskRequestFields,
  tokenizeRequestFields,
  workerRegistrationFields,
  type Fields,
} from './generated/fields.js';
import type {
  CatalogModel,
  DrainRequest,
  ModelStateRequest,
  PurgeRequest,
  ReloadRequest,
  TaskRequest,
  TokenizeRequest,
  WorkerRegistration,
} from './generated/types.ts';
import {
  validateCatalogModel,
  validateDrainRequest,
  validateModelStateRequest,
  validatePurgeRequest,
  validateReloadRequest,
  validateTaskRequest,
  validateTokenizeRequest,
  validateWorkerRegistration,
  type Validate,
} from './generated/validators.js';
import { schemaMistake } from './schema-mistake.ts';

/** Deeper schemas overflow stacks of engines, and of what compares or stores them. Nobody writes them by hand. */
const MOST_LEVELS = 64;

/**
 * Checks the body of a task submission against the contract; limits of pools and deadlines are not its matter. Ids are
 * in lower case afterwards.
 * @throws TaskchartError INVALID_PARAMS, its message names the field and what would be right
 */
export function parseTaskRequest(body: unknown): TaskRequest {
  const request = check(body, validateTaskRequest, taskRequestFields);
  const { json_schema } = request.sampling ?? {};
  const mistake =
    workloadMistake(request) ??
    depthMistake(request) ??
    (json_schema && schemaMistake(json_schema, 'sampling.json_schema'));
  if (mistake) throw invalid(mistake, request.engine);
  const kept = known(request, SHAPE) as TaskRequest;
  if (kept.task_id !== undefined) kept.task_id = canonicalId(kept.task_id);
  if (kept.session_id !== undefined) kept.session_id = canonicalId(kept.session_id);
  return kept;
}

const MOST_NAMES = 20;
const LONGEST_NAME = 40;

/** Names of the body's own fields that {@link parseTaskRequest} has not kept: the first 20, at most 40 characters each. */
export function unknownFields(body: unknown, request: TaskRequest): string[] {
  const names = Object.keys(body as object);
  if (names.length === Object.keys(request).length) return [];
  return names
    .filter((name) => !Object.hasOwn(request, name))
    .slice(0, MOST_NAMES)
    .map((name) => name.slice(0, LONGEST_NAME));
}

/** The same for the body of a count. */
export function parseTokenizeRequest(body: unknown): TokenizeRequest {
  return check(body, validateTokenizeRequest, tokenizeRequestFields);
}

/** The same for the body of a drain. */
export function parseDrain(body: unknown): DrainRequest {
  return check(body, validateDrainRequest, drainRequestFields);
}

/** The same for the body of a purge. */
export function parsePurge(body: unknown): PurgeRequest {
  return check(body, validatePurgeRequest, purgeRequestFields);
}

/** The same for the body of a reload; whether there is such a model is not looked at. */
export function parseReload(body: unknown): ReloadRequest {
  return check(body, validateReloadRequest, reloadRequestFields);
}

/** The same for a model that is added to the catalog; its name is not looked at more closely. */
export function parseCatalogModel(body: unknown): CatalogModel {
  return known(check(body, validateCatalogModel, catalogModelFields), MODEL_SHAPE) as CatalogModel;
}

/** The same for the body that retires a model or takes it back. */
export function parseModelState(body: unknown): ModelStateRequest {
  return check(body, validateModelStateRequest, modelStateRequestFields);
}

/** An engine that is announced, with the pool and the name that were left out. */
export type Worker = WorkerRegistration & Required<Pick<WorkerRegistration, 'pool_id' | 'replica_id'>>;

/** The same for an engine that is announced, by a request or by a file. */
export function parseWorker(body: unknown): Worker {
  const {
    pool_id = 'default',
    replica_id = 'r0',
    ...more
  } = check(body, validateWorkerRegistration, workerRegistrationFields);
  if (!URL.canParse(more.url)) throw invalid('url: must be an http or https URL', more.engine);
  const { url, engine, engine_version, slots_total, device_mask } = more;
  return {
    pool_id,
    replica_id,
    url,
    engine,
    engine_version,
    ...(slots_total === undefined ? {} : { slots_total }),
    ...(device_mask === undefined ? {} : { device_mask }),
  };
}

function check<T>(body: unknown, validate: Validate<T>, fields: Fields): T {
  if (validate(body)) return body;
  const { path, message, text } = explain(validate.errors, body, fields);
  const isWhole = path === '' && message.startsWith('must');
  const { engine } = (typeof body === 'object' && body !== null ? body : {}) as { engine?: unknown };
  throw invalid(isWhole ? `the body ${message}` : text, isEngine(engine) ? engine : undefined);
}

function invalid(message: string, engine: string | undefined): TaskchartError {
  return new TaskchartError(failure('INVALID_PARAMS', message, engine === undefined ? {} : { engine }));
}

const ENGINES: Readonly<Record<TaskRequest['engine'], true>> = {
  llamacpp: true,
  vllm: true,
  tgi: true,
  triton: true,
  openai: true,
  synthetic: true,
};

/** The envelope and the metrics name the engine where it is one; anything else the caller sent has no place there. */
function isEngine(value: unknown): value is TaskRequest['engine'] {
  return typeof value === 'string' && Object.hasOwn(ENGINES, value);
}

/** What each workload needs; the schema only knows that there has to be some input. */
function workloadMistake({ workload, prompt, inputs, messages }: TaskRequest): string | undefined {
  if (workload !== 'rerank' && prompt !== undefined && inputs)
    return `prompt and inputs: only one of them goes with workload ${workload}`;
  if (workload === 'completion') return undefined;
  if (messages) return `messages: only go with workload completion, not with ${workload}`;
  if (workload === 'rerank' && prompt === undefined)
    return 'prompt: is required for workload rerank (the query)';
  if (workload === 'rerank' && !inputs) return 'inputs: is required for workload rerank (the documents)';
  if (workload === 'rerank') return undefined;
  if (prompt === '') return 'prompt: must not be empty for workload embedding';
  const empty = inputs?.indexOf('') ?? -1;
  return empty === -1 ? undefined : `inputs[${empty}]: must not be empty for workload embedding`;
}

function depthMistake({ sampling }: TaskRequest): string | undefined {
  let level: unknown[] = sampling?.json_schema ? [sampling.json_schema] : [];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > MOST_LEVELS)
      return `sampling.json_schema: must not be nested deeper than ${MOST_LEVELS} levels`;
    level = level.flatMap((node) => (typeof node === 'object' && node !== null ? Object.values(node) : []));
  }
  return undefined;
}

/** The fields of an object, and of the entries of a list; neither where a value is kept as it is. */
interface Shape {
  fields?: [name: string, shape: Shape][];
  entries?: Shape;
}

function shapeOf(table: Fields, path = ''): Shape {
  const paths = Object.keys(table);
  const start = path === '' ? '' : `${path}.`;
  const names = paths
    .filter((known) => known !== '' && known.startsWith(start))
    .map((known) => known.slice(start.length))
    .filter((name) => !/[.[]/.test(name));
  if (names.length > 0) return { fields: names.map((name) => [name, shapeOf(table, start + name)]) };
  return paths.includes(`${path}[]`) ? { entries: shapeOf(table, `${path}[]`) } : {};
}

const SHAPE = shapeOf(taskRequestFields);
const MODEL_SHAPE = shapeOf(catalogModelFields);

/**
 * Fields nobody knows are ignored, which means that they are not kept either, at any depth: what was never checked is
 * neither stored nor compared.
 */
function known(value: unknown, { fields, entries }: Shape): unknown {
  if (entries?.fields) return (value as unknown[]).map((entry) => known(entry, entries));
  if (!fields) return value;
  const kept: Record<string, unknown> = {};
  for (const [name, shape] of fields) {
    const field = (value as Record<string, unknown>)[name];
    if (field !== undefined) kept[name] = known(field, shape);
  }
  return kept;
}
