import { failure, TaskchartError } from '../errors.ts';
import { explain } from './explain.ts';
import { taskRequestFields } from './generated/fields.js';
import type { TaskRequest } from './generated/types.ts';
import { validateTaskRequest } from './generated/validators.js';

/**
 * Checks the body of a task submission against the contract; limits of pools and deadlines are not its matter.
 * @throws TaskchartError INVALID_PARAMS, its message names the field and what would be right
 */
export function parseTaskRequest(body: unknown): TaskRequest {
  if (validateTaskRequest(body)) return known(body);
  const { path, message, text } = explain(validateTaskRequest.errors, body, taskRequestFields);
  const isWhole = path === '' && message.startsWith('must');
  const { engine } = (typeof body === 'object' && body !== null ? body : {}) as { engine?: unknown };
  throw new TaskchartError(
    failure('INVALID_PARAMS', isWhole ? `the body ${message}` : text, isEngine(engine) ? { engine } : {}),
  );
}

/** The envelope names the engine where it is one; anything else the caller sent has no place there. */
function isEngine(value: unknown): value is TaskRequest['engine'] {
  return typeof value === 'string' && /^[a-z]{2,16}$/.test(value);
}

const FIELDS = Object.keys(taskRequestFields).filter(
  (path) => path !== '' && !/[.[]/.test(path),
) as (keyof TaskRequest)[];

/** Fields nobody knows are ignored, which means that they are not kept either. */
function known(request: TaskRequest): TaskRequest {
  const kept: Partial<Record<keyof TaskRequest, unknown>> = {};
  for (const field of FIELDS) if (request[field] !== undefined) kept[field] = request[field];
  return kept as TaskRequest;
}
