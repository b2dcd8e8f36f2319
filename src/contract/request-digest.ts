import { createHash } from 'node:crypto';
import type { TaskRequest } from './generated/types.ts';

/** What a finished task still says of its request: everything but texts, which are nobody's business any more. */
export function withoutTexts(request: TaskRequest): TaskRequest {
  const { prompt: _prompt, inputs: _inputs, messages: _messages, sampling, ...rest } = request;
  if (!sampling) return rest as TaskRequest;
  const { stop: _stop, grammar: _grammar, json_schema: _schema, ...numbers } = sampling;
  return { ...rest, sampling: numbers } as TaskRequest;
}

/** SHA-256 over the request with its keys in order: equal requests, equal digests. */
export function digestOf(request: TaskRequest): string {
  return createHash('sha256').update(JSON.stringify(request, sorted)).digest('base64url');
}

function sorted(_key: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}
