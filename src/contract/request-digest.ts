import { hash } from 'node:crypto';
import type { TaskRequest } from './generated/types.ts';

/** What a finished task still says of its request: everything but texts, which are nobody's business any more. */
export function withoutTexts(request: TaskRequest): TaskRequest {
  const { prompt: _prompt, inputs: _inputs, messages: _messages, sampling, ...rest } = request;
  if (!sampling) return rest as TaskRequest;
  const { stop: _stop, grammar: _grammar, json_schema: _schema, ...numbers } = sampling;
  return { ...rest, sampling: numbers } as TaskRequest;
}

/** Longer strings go into the digest by their own, which spares making one string of all that a prompt has. */
const LONG = 1024;

/** SHA-256 over the request with its keys in order: equal requests, equal digests. */
export function digestOf(request: TaskRequest): string {
  return hash('sha256', JSON.stringify(request, orderly), 'base64url');
}

function orderly(_key: string, value: unknown): unknown {
  if (typeof value === 'string') return value.length > LONG ? `\0${hash('sha256', value)}` : value;
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}
